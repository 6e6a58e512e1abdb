// Broadcast, shared: out of the root's scratch, for ranks that can load it.
//
// The root lays chunks out in two slots in turn; everyone copies them. Readers signal for every
// slot that the root may fill: twice ahead, then after each chunk that they have copied; so the
// root lays out one chunk while the one before is read. Memory traffic of all ranks: 2pn. One round
// of signals per chunk in each direction, overlapping. Scratch: 2 chunks per channel.
#include "algorithms/circle_cost.h"
#include "algorithms/shared.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void shared_broadcast(const Stage& stage, int root, const Region& source, const Region& target) {
  constexpr uint32_t kSlots = 2;
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  const uint64_t count = me == root ? source.count : target.count;
  const uint64_t chunk = std::min(stage.chunk, count);
  if (me == root) place(stage, source, target, Pre::no, Post::no);
  if (p == 1 || chunk == 0) return;
  const Region room = stage.take(kSlots * chunk);
  const Slice slots = at_peer(group, root, room).slots(chunk, kSlots, count);
  Builder& b = stage.on();
  if (me != root) {
    for (uint32_t i = 0; i < kSlots; i++) b.signal(group.at(root));
    b.loop(plan::chunk_count(count, chunk), [&] {
      b.wait(group.at(root));
      b.copy(slots, target.chunks(chunk));
      b.signal(group.at(root));
    });
    return;
  }
  const auto wait_for_readers = [&] {
    for (int i = 1; i < p; i++) b.wait(group.at(me + i));
  };
  b.loop(plan::chunk_count(count, chunk), [&] {
    wait_for_readers();
    b.copy(source.chunks(chunk), slots);
    for (int i = 1; i < p; i++) b.signal(group.at(me + i));
  });
  for (uint32_t i = 0; i < kSlots; i++) wait_for_readers();
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::broadcast && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  plan::Cost cost;
  const double n = static_cast<double>(plan::bytes_of(request));
  cost.local_bytes = n * (request.in_place ? 1 : 2);
  if (topology.size() == 1) return cost;
  cost.inner_rounds = 1 + iterations_of(request.count, tuning, tuning.channels, 1);
  cost.peer_bytes = n;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(request, topology, tuning, rank, "shared",
                     [](const Stage& stage, const Share& share) {
                       const Builder& b = stage.builder;
                       shared_broadcast(stage, index_of(stage.group, b.request().root),
                                        share(b.input()), share(b.output()));
                     });
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_shared){Collective::broadcast, "shared", supports, cost, build};

}  // namespace railccl::algorithms
