// Reduce, scatter-gather: halving reduce-scatter of p blocks, then each goes straight to the root.
//
// Rabenseifner's reduce (2004) with circular skips (see reduce_scatter_halving.cc) and a gather in
// one round instead of log2 p, so that nobody has to hold others' results. Everyone sends
// (p-1)/p n in the reduce-scatter, the others n/p more to the root, which receives 2 (p-1)/p n.
// Scratch: that of the reduce-scatter, and n/p for the finished block.
#include "algorithms/circle_cost.h"
#include "algorithms/halving.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void scatter_gather_reduce(const Stage& stage, int root, const Region& source,
                           const Region& target) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  const Blocks blocks = split(source, p);
  const uint64_t finished = me == root ? 0 : blocks[static_cast<size_t>(me)].count;
  const uint64_t partial = halving_scratch(stage, blocks);
  const Region room = stage.take(partial + finished);
  Scratch partial_room(room.part(0, partial));
  Stage scatter = stage;
  scatter.scratch = &partial_room;
  if (me != root) {
    const Region mine = room.part(partial, finished);
    halving_reduce_scatter(scatter, blocks, mine);
    stage.on().send(group.at(root), mine.slice());
    return;
  }
  const Blocks results = split(target, p);
  halving_reduce_scatter(scatter, blocks, results[static_cast<size_t>(me)]);
  for (int i = 1; i < p; i++)
    stage.on().recv(group.at(me + i), results[static_cast<size_t>((me + i) % p)].slice());
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  const double iterations = iterations_of(request.count, tuning, tuning.channels, p);
  for (int s = p; s > 1; s = (s + 1) / 2) {
    const int half = (s + 1) / 2;
    cost.skip(half, iterations, n / p * (s - half));
  }
  // The gather loads the root's port with what an exchange between all would load every port.
  cost.everyone(1, n / p);
  cost.local(p == 1 ? n : n * (p - 1) / p);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(request, topology, tuning, rank, "scatter_gather",
                     [](const Stage& stage, const Share& share) {
                       const Builder& b = stage.builder;
                       scatter_gather_reduce(stage, index_of(stage.group, b.request().root),
                                             share(b.input()), share(b.output()));
                     });
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_gather){Collective::reduce, "scatter_gather", supports, cost,
                                         build};

}  // namespace railccl::algorithms
