// Reduce-scatter, ring: every block goes round once and collects a contribution at each rank.
//
// Each rank sends and receives (p-1) blocks, the least possible, in p-1 rounds per chunk
// (Patarasuk & Yuan 2009). Scratch: min(4, p-2) chunks per channel.
#include "algorithms/circle_cost.h"
#include "algorithms/ring.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void ring_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output,
                         const Blocks& work) {
  const int p = stage.group.size();
  if (p == 1) return place(stage, input[0], output, stage.pre, stage.post);
  const uint64_t count = largest(input);
  const uint64_t chunk = std::min(stage.chunk, count);
  if (count == 0) return;
  const uint32_t slots = ring_slots(p);
  const Region room = stage.take(work.empty() ? slots * chunk : 0);
  const auto partial = [&](int step, int block) {
    const size_t i = static_cast<size_t>(block);
    if (!work.empty()) return work[i].chunks(stage.chunk);
    const uint64_t slot = static_cast<uint64_t>(step) % slots;
    return room.part(slot * chunk, chunk).slots(stage.chunk, 1, input[i].count);
  };
  stage.on().loop(plan::chunk_count(count, stage.chunk),
                  [&] { ring_reduce_scatter_steps(stage, input, output, partial); });
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::reduce_scatter;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  cost.ring((p - 1) * iterations_of(request.count, tuning, tuning.channels, 1), block * (p - 1));
  cost.local(p == 1 ? block : block * (p - 1));
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "ring", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        ring_reduce_scatter(stage, share.of_each(b.input(), stage.group), share(b.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_ring){Collective::reduce_scatter, "ring", supports, cost, build};

}  // namespace railccl::algorithms
