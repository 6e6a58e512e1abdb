// Broadcast, shared: out of the root's scratch, for ranks that can load it.
//
// The root lays chunks out in slots in turn; everyone copies them, and signals that a slot is free
// again. So the root lays out chunks while earlier ones are read, and need not wait for anybody to
// begin: all slots are free then, because it left the call before only when everyone had read.
// Memory traffic of all ranks: 2pn. One round of signals per chunk in each direction, overlapping.
// Scratch: 2 to kSendWindow chunks per channel.
#include "algorithms/circle_cost.h"
#include "algorithms/shared.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void shared_broadcast(const Stage& stage, int root, const Region& source, const Region& target) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  const uint64_t count = me == root ? source.count : target.count;
  const uint64_t chunk = std::min(stage.chunk, count);
  if (me == root) place(stage, source, target, Pre::no, Post::no);
  if (p == 1 || chunk == 0) return;
  const uint64_t iterations = plan::chunk_count(count, chunk);
  // Readers' signals wait in their windows while the root fills slots.
  const uint32_t slots =
      std::clamp<uint32_t>(turns(stage, chunk, iterations), 2, plan::kSendWindow);
  const Region room = at_peer(group, root, stage.take(slots * chunk));
  Builder& b = stage.on();
  if (me != root) {
    b.loop(iterations, [&] {
      b.wait(group.at(root));
      b.copy(room.slots(chunk, slots, count), target.chunks(chunk));
      b.signal(group.at(root));
    });
    return;
  }
  const auto everyone_has_read = [&] {
    for (int i = 1; i < p; i++) b.wait(group.at(me + i));
  };
  const auto lay_out = [&](const Region& part) {
    b.copy(part.chunks(chunk), room.slots(chunk, slots, part.count));
    for (int i = 1; i < p; i++) b.signal(group.at(me + i));
  };
  const uint64_t first = std::min<uint64_t>(slots, iterations);
  const Region head = source.part(0, std::min(count, first * chunk));
  b.loop(first, [&] { lay_out(head); });
  b.loop(iterations - first, [&] {
    everyone_has_read();
    lay_out(source.part(head.count, count - head.count));
  });
  b.loop(first, everyone_has_read);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::broadcast && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  plan::Cost cost;
  const double n = static_cast<double>(plan::bytes_of(request));
  if (topology.size() == 1 || !request.in_place) cost.local_bytes = n;
  if (topology.size() == 1) return cost;
  const double chunks = iterations_of(request.count, tuning, tuning.channels, 1);
  cost.inner_rounds = 1 + chunks;
  cost.inner_extra = cost.inner_rounds * (topology.size() - 2);
  // Chunks are read while later ones are laid out: only the last reading comes on top.
  cost.shared_bytes = n;
  cost.peer_bytes = n / std::max(1.0, chunks);
  if (topology.domains_of_host(topology.used_hosts()[0]) > 1) cost.cross_bytes = n;
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
