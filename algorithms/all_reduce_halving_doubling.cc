// All-reduce, halving-doubling: halving reduce-scatter, then an all-gather that doubles.
//
// Rabenseifner's composition (2004): 2 ceil(log2 p) rounds, and 2 (p-1)/p n sent and received per
// rank. For powers of two on the hypercube, as there: what a round moves adjoins, so it is one
// message each way, between the same two ranks. For any other p with circular skips instead (Träff
// 2023), which are as good but for messages that break where blocks wrap round. Partial sums are
// kept in the output: no scratch.
#include <bit>

#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {
namespace {

bool on_cube(int p) { return p > 1 && std::has_single_bit(static_cast<unsigned>(p)); }

Region join(const Blocks& blocks, int first, int n) {
  Region joined = blocks[static_cast<size_t>(first)];
  for (int i = 1; i < n; i++) joined.count += blocks[static_cast<size_t>(first + i)].count;
  return joined;
}

void cube(const Stage& stage, const Blocks& input, const Blocks& output) {
  Builder& b = stage.on();
  const int p = stage.group.size(), me = stage.group.me;
  // Who differ in this bit keep the blocks of those that are like them in it and above.
  for (int half = p / 2; half > 0; half /= 2) {
    const int peer = me ^ half, mine = me & -half, theirs = peer & -half;
    const Pre pre = half == p / 2 ? stage.pre : Pre::no;
    const Blocks& source = half == p / 2 ? input : output;
    b.send(stage.group.at(peer), join(source, theirs, half).slice(), pre);
    b.recv_reduce(stage.group.at(peer), join(source, mine, half).slice(),
                  join(output, mine, half).slice(), pre, half == 1 ? stage.post : Post::no);
  }
  for (int have = 1; have < p; have *= 2) {
    const int peer = me ^ have, mine = me & -have, theirs = peer & -have;
    b.send(stage.group.at(peer), join(output, mine, have).slice());
    b.recv(stage.group.at(peer), join(output, theirs, have).slice());
  }
}

}  // namespace

void halving_doubling_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const int p = stage.group.size();
  const Blocks source = split(input, p), target = split(output, p);
  if (on_cube(p)) return cube(stage, source, target);
  const Region& mine = target[static_cast<size_t>(stage.group.me)];
  halving_reduce_scatter(stage, source, mine, target);
  bruck_all_gather(stage, mine, target);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  if (on_cube(p)) {
    for (int half = p / 2; half > 0; half /= 2)
      for (int twice = 0; twice < 2; twice++) cost.exchange(half, n / p * half);
    cost.local(n * (p - 1) / p);
    return cost.total();
  }
  for (int s = p; s > 1; s = (s + 1) / 2) {
    const int half = (s + 1) / 2;
    cost.skip(half, 1, n / p * (s - half));
  }
  for (int have = 1; have < p; have *= 2) cost.skip(-have, 1, n / p * std::min(have, p - have));
  cost.local(p == 1 ? n : n * (p - 1) / p);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(request, topology, tuning, rank, "halving_doubling",
                     [](const Stage& stage, const Share& share) {
                       halving_doubling_all_reduce(stage, share(stage.builder.input()),
                                                   share(stage.builder.output()));
                     });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_halving_doubling){Collective::all_reduce, "halving_doubling", supports,
                                               cost, build};

}  // namespace railccl::algorithms
