// All-gather, ring: every block goes round once.
//
// Each rank sends and receives (p-1) blocks, the least possible, in p-1 rounds per chunk. Blocks
// are received where they belong and passed on from there: no scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/ring.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void ring_all_gather(const Stage& stage, const Region& mine, const Blocks& output) {
  stage.on().loop(plan::chunk_count(largest(output), stage.chunk),
                  [&] { ring_all_gather_steps(stage, mine, output); });
  place(stage, mine, output[static_cast<size_t>(stage.group.me)], Pre::no, Post::no);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_gather;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  cost.ring((p - 1) * iterations_of(request.count, tuning, tuning.channels, 1), block * (p - 1));
  cost.local(request.in_place ? 0 : block);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "ring", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        ring_all_gather(stage, share(b.input()), share.of_each(b.output(), stage.group));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_ring){Collective::all_gather, "ring", supports, cost, build};

}  // namespace railccl::algorithms
