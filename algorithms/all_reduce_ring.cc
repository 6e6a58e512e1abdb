// All-reduce, ring: reduce-scatter round the ring, then all-gather (Patarasuk & Yuan 2009).
//
// Each rank sends and receives 2 (p-1)/p n, the least that any all-reduce can, always to and from
// the same neighbour; 2 (p-1) rounds per chunk. Partial sums are kept in the output: no scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/ring.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void ring_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const int p = stage.group.size();
  if (p == 1) return place(stage, input, output, stage.pre, stage.post);
  const Blocks source = split(input, p), target = split(output, p);
  const Region& mine = target[static_cast<size_t>(stage.group.me)];
  stage.on().loop(plan::chunk_count(largest(source), stage.chunk), [&] {
    ring_reduce_scatter_steps(stage, source, mine, [&](int, int block) {
      return target[static_cast<size_t>(block)].chunks(stage.chunk);
    });
    ring_all_gather_steps(stage, mine, target);
  });
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  cost.ring(2.0 * (p - 1) * iterations_of(request.count, tuning, tuning.channels, p),
            2 * n * (p - 1) / p);
  cost.local(p == 1 ? n : n * (p - 1) / p);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "ring", [](const Stage& stage, const Share& share) {
        ring_all_reduce(stage, share(stage.builder.input()), share(stage.builder.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_ring){Collective::all_reduce, "ring", supports, cost, build};

}  // namespace railccl::algorithms
