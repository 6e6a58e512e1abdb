// All-gather, Bruck: the number of blocks that everyone holds doubles (Bruck et al. 1997).
//
// With blocks me..me+h (mod p) at hand, send as many of them as are still wanted to the rank h
// before, take the next ones from the rank h further. ceil(log2 p) rounds for any p, and p-1 blocks
// sent and received per rank: both the least possible. Blocks are received where they belong, so
// the turning of the original is not needed; a message breaks where they wrap round. No scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {
namespace {

/// Blocks [first, first + n) of the circle as slices of adjoining blocks: the same on every rank.
std::vector<Slice> runs(const Blocks& blocks, int first, int n) {
  std::vector<Region> regions;
  const int p = static_cast<int>(blocks.size());
  for (int i = 0; i < n; i++) {
    const int at = (first + i) % p;
    const Region& block = blocks[static_cast<size_t>(at)];
    const bool joins = !regions.empty() && at != 0 && regions.back().buffer == block.buffer &&
                       regions.back().offset + regions.back().count == block.offset;
    if (joins)
      regions.back().count += block.count;
    else
      regions.push_back(block);
  }
  std::vector<Slice> slices;
  for (const Region& region : regions) slices.push_back(region.slice());
  return slices;
}

}  // namespace

void bruck_all_gather(const Stage& stage, const Region& mine, const Blocks& output) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  place(stage, mine, output[static_cast<size_t>(me)], Pre::no, Post::no);
  Builder& b = stage.on();
  for (int have = 1; have < p; have *= 2) {
    const int n = std::min(have, p - have);
    const std::vector<Slice> sent = runs(output, me, n), taken = runs(output, me + have, n);
    for (size_t i = 0; i < std::max(sent.size(), taken.size()) + kSendLead; i++) {
      if (i < sent.size()) b.send(group.at(me - have), sent[i]);
      if (i >= kSendLead && i - kSendLead < taken.size())
        b.recv(group.at(me + have), taken[i - kSendLead]);
    }
  }
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_gather;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  for (int have = 1; have < p; have *= 2) cost.skip(-have, 1, block * std::min(have, p - have));
  cost.local(request.in_place ? 0 : block);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "bruck", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        bruck_all_gather(stage, share(b.input()), share.of_each(b.output(), stage.group));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_bruck){Collective::all_gather, "bruck", supports, cost, build};

}  // namespace railccl::algorithms
