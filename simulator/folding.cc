// Folding: which moves a topology allows, and whether programs follow them.
#include "simulator/folding.h"

#include <bit>
#include <map>
#include <unordered_map>

#include "base/random.h"
#include "simulator/compiled.h"
#include "simulator/fabric.h"

namespace railccl::simulator {

using plan::Program;
using plan::Slice;
using plan::Step;
using topology::Topology;

namespace {

/// Ranks of each host, when these are alike and ranks are in the order of their hosts; else 0.
int local_ranks(const Topology& topology) {
  const int local = topology.ranks_per_host_max();
  if (local < 1 || topology.ranks_per_host_min() != local) return 0;
  for (int r = 0; r < topology.size(); r++) {
    const topology::Rank& rank = topology.rank(r);
    if (rank.local != r % local ||
        rank.host != topology.used_hosts()[static_cast<size_t>(r / local)])
      return 0;
  }
  return local;
}

/// Whether one rank's program becomes another's when ranks are moved. Places in buffers may differ:
/// then each is another one everywhere, and no two become one.
class Likeness {
 public:
  Likeness(const Folding& folding, const Program& first, const Program& other)
      : folding_(folding), first_(first), other_(other) {}

  bool holds() {
    if (first_.channels.size() != other_.channels.size()) return false;
    for (size_t c = 0; c < first_.channels.size(); c++) {
      const plan::Channel &a = first_.channels[c], &b = other_.channels[c];
      if (a.loops != b.loops || a.steps.size() != b.steps.size()) return false;
      for (size_t s = 0; s < a.steps.size(); s++)
        if (!alike(a.steps[s], b.steps[s])) return false;
    }
    return true;
  }

 private:
  bool alike(const Step& a, const Step& b) {
    if (a.verb != b.verb || a.channel != b.channel || a.source_count != b.source_count ||
        a.target_count != b.target_count || !alike(a.peer, b.peer) || !alike(a.src, b.src) ||
        !alike(a.dst, b.dst))
      return false;
    for (uint32_t i = 0; i < a.source_count; i++)
      if (!alike(first_.sources[a.first_source + i], other_.sources[b.first_source + i]))
        return false;
    for (uint32_t i = 0; i < a.target_count; i++)
      if (!alike(first_.targets[a.first_target + i], other_.targets[b.first_target + i]))
        return false;
    return true;
  }
  bool alike(int a, int b) const {
    if (a == plan::kHere || b == plan::kHere) return a == b;
    return folding_.seen(other_.rank, b) == a;
  }
  bool alike(const Slice& a, const Slice& b) {
    if (a.buffer != b.buffer || a.count != b.count || a.stride != b.stride ||
        a.modulo != b.modulo || a.clamp_stride != b.clamp_stride || a.limit != b.limit ||
        !alike(a.owner, b.owner))
      return false;
    return there_.try_emplace(a, b).first->second == b &&
           back_.try_emplace(b, a).first->second == a;
  }

  const Folding& folding_;
  const Program &first_, &other_;
  std::unordered_map<Slice, Slice, SliceHash> there_, back_;
};

/// Do the programs of some ranks become their stand-ins' ones?
bool follow(const Folding& folding, int ranks, int local, const MakeProgram& make) {
  constexpr int kSamples = 24;
  std::vector<int> samples = {1, local, ranks - 1, ranks - local, local - 1, ranks / 2};
  Random random(1);
  for (int i = 0; i < kSamples; i++)
    samples.push_back(static_cast<int>(random.below(static_cast<uint64_t>(ranks))));
  std::map<int, Program> stand_ins;
  for (const int rank : samples) {
    if (rank < 0 || rank >= ranks || folding.stand_in(rank) == rank) continue;
    const auto [at, fresh] = stand_ins.try_emplace(folding.stand_in(rank));
    if (fresh) {
      auto made = make(at->first);
      if (!made.is_ok()) return false;
      at->second = std::move(made).value();
    }
    const auto made = make(rank);
    if (!made.is_ok() || !Likeness(folding, at->second, *made).holds()) return false;
  }
  return true;
}

}  // namespace

Folding::Folding(int hosts, int local, Move move_hosts, Move move_local)
    : hosts_(hosts),
      local_(local),
      folds_((move_hosts == Move::none ? 1 : hosts) * (move_local == Move::none ? 1 : local)),
      move_hosts_(move_hosts),
      move_local_(move_local) {}

Folding find_folding(const Topology& topology, const MakeProgram& make) {
  using enum Folding::Move;
  const int local = local_ranks(topology);
  if (local == 0) return {};
  const int hosts = topology.size() / local;
  const auto allowed = [](Folding::Move move, int size) {
    return move == none ||
           (size > 1 && (move == turn || std::has_single_bit(static_cast<unsigned>(size))));
  };
  Fabric fabric(topology);
  Folding best;
  for (const Folding::Move move_hosts : {turn, flip, none})
    for (const Folding::Move move_local : {turn, flip, none}) {
      if (!allowed(move_hosts, hosts) || !allowed(move_local, local)) continue;
      const Folding folding(hosts, local, move_hosts, move_local);
      if (folding.folds() <= best.folds() || !fabric.fold(folding)) continue;
      if (follow(folding, topology.size(), local, make)) best = folding;
    }
  return best;
}

}  // namespace railccl::simulator
