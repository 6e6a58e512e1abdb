// All-gather, shared: through peers' scratch, for ranks that can load and store it.
//
// Per chunk: lay the own block out in scratch, meet, copy everyone's, meet. Memory traffic of all p
// ranks, for blocks of m elements: 2pm to lay out, 2p(p-1)m to copy. Two rounds of p-1 signals per
// chunk. Scratch: one chunk per channel.
#include "algorithms/circle_cost.h"
#include "algorithms/shared.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void shared_all_gather(const Stage& stage, const Region& mine, const Blocks& output) {
  const int p = stage.group.size(), me = stage.group.me;
  const uint64_t chunk = std::min(stage.chunk, largest(output));
  place(stage, mine, output[static_cast<size_t>(me)], Pre::no, Post::no);
  if (p == 1 || chunk == 0) return;
  const uint64_t iterations = plan::chunk_count(largest(output), chunk);
  const uint32_t slots = turns(stage, chunk, iterations);
  const Region room = stage.take(chunk * slots);
  Builder& b = stage.on();
  b.loop(iterations, [&] {
    b.copy(mine.chunks(chunk), room.slots(chunk, slots, mine.count));
    meet(stage);
    for (int i = 1; i < p; i++) {
      const Region& target = output[static_cast<size_t>((me + i) % p)];
      b.copy(at_peer(stage.group, (me + i) % p, room).slots(chunk, slots, target.count),
             target.chunks(chunk));
    }
    meet(stage);
  });
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_gather && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const double block = static_cast<double>(plan::bytes_of(request));
  cost.everyone(2 * iterations_of(request.count, tuning, tuning.channels, 1), block);
  cost.local(request.in_place ? 0 : block);
  return loaded(cost.total(), cost.size() == 1 ? 0 : block);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "shared", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        shared_all_gather(stage, share(b.input()), share.of_each(b.output(), stage.group));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_shared){Collective::all_gather, "shared", supports, cost, build};

}  // namespace railccl::algorithms
