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
  const Region room = stage.take(chunk);
  Builder& b = stage.on();
  b.loop(plan::chunk_count(largest(output), chunk), [&] {
    b.copy(mine.chunks(chunk), slot(room, chunk, mine.count));
    meet(stage);
    for (int i = 1; i < p; i++) {
      const Region& target = output[static_cast<size_t>((me + i) % p)];
      b.copy(slot(at_peer(stage.group, (me + i) % p, room), chunk, target.count),
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
  cost.local(block * (request.in_place ? 1 : 2));
  return loaded(cost.total());
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
