// Reduce-scatter, shared: through peers' scratch, for ranks that can load and store it.
//
// Per chunk of every block: lay the others' blocks out in scratch, meet, reduce the own block
// straight from everyone's scratch, meet. Memory traffic of all p ranks, for blocks of m elements:
// lay out 2p(p-1)m, reduce p(p+1)m. Two rounds of p-1 signals per chunk. Scratch: p chunks per
// channel.
#include "algorithms/circle_cost.h"
#include "algorithms/shared.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void shared_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output) {
  const int p = stage.group.size();
  if (p == 1) return place(stage, input[0], output, stage.pre, stage.post);
  const uint64_t chunk = std::min(stage.chunk, largest(input));
  if (chunk == 0) return;
  const uint64_t iterations = plan::chunk_count(largest(input), chunk);
  const uint64_t each = static_cast<uint64_t>(p) * chunk;
  const uint32_t slots = turns(stage, each, iterations);
  const Contributions contributions(stage, stage.take(each * slots), chunk, slots, input);
  stage.on().loop(iterations, [&] {
    contributions.publish();
    meet(stage);
    contributions.reduce_mine({output.chunks(chunk)});
    meet(stage);
  });
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::reduce_scatter && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  cost.everyone(2 * iterations_of(request.count, tuning, tuning.channels, 1), block);
  cost.local(block);
  return loaded(cost.total(), block * (p - 1));
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "shared", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        shared_reduce_scatter(stage, share.of_each(b.input(), stage.group), share(b.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_shared){Collective::reduce_scatter, "shared", supports, cost,
                                         build};

}  // namespace railccl::algorithms
