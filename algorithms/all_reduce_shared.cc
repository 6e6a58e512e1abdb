// All-reduce, shared: two-shot through peers' scratch, for ranks that can load and store it.
//
// Per chunk of every block: lay the others' blocks out in scratch, meet, reduce the own block
// straight from everyone's scratch into the output and a slot, meet, copy the others' results out
// of their slots. The slots are safe to use again: the first meeting of the next chunk comes after
// all results were copied, the second after all contributions were read. A last meeting keeps a
// rank from leaving while others read from it.
//
// Memory traffic (reads and writes, all p ranks): lay out 2(p-1)n, reduce (p+2)n, copy out
// 2(p-1)n: (5p - 2) n, where (3p + 1) n would need inputs that peers can load, and 2pn all buffers.
// 2 rounds of p-1 signals per chunk. Scratch: (p + 1) chunks per channel and turn.
#include "algorithms/circle_cost.h"
#include "algorithms/shared.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void shared_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const int p = stage.group.size(), me = stage.group.me;
  if (p == 1) return place(stage, input, output, stage.pre, stage.post);
  const Blocks source = split(input, p), target = split(output, p);
  const uint64_t chunk = std::min(stage.chunk, largest(source));
  if (chunk == 0) return;
  const uint64_t iterations = plan::chunk_count(largest(source), chunk);
  const uint64_t each = static_cast<uint64_t>(p + 1) * chunk;
  const uint32_t slots = turns(stage, each, iterations);
  const Region room = stage.take(each * slots);
  const Contributions contributions(stage, room, chunk, slots, source);
  const Region result = room.part(static_cast<uint64_t>(p) * slots * chunk, slots * chunk);
  const auto result_of = [&](int i) {
    return at_peer(stage.group, i, result)
        .slots(chunk, slots, target[static_cast<size_t>(i)].count);
  };
  Builder& b = stage.on();
  b.loop(iterations, [&] {
    const Slice mine = target[static_cast<size_t>(me)].chunks(chunk);
    contributions.publish();
    meet(stage);
    contributions.reduce_mine({result_of(me), mine});
    meet(stage);
    for (int i = 1; i < p; i++) {
      const int peer = (me + i) % p;
      b.copy(result_of(peer), target[static_cast<size_t>(peer)].chunks(chunk));
    }
  });
  meet(stage);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_reduce && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  cost.everyone(1 + 2 * iterations_of(request.count, tuning, tuning.channels, p), 2 * n / p);
  // The own block is read at home, but the result is laid out without being read: that cancels out.
  if (p == 1) cost.local(n);
  return loaded(cost.total(), p == 1 ? 0 : n);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "shared", [](const Stage& stage, const Share& share) {
        shared_all_reduce(stage, share(stage.builder.input()), share(stage.builder.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_shared){Collective::all_reduce, "shared", supports, cost, build};

}  // namespace railccl::algorithms
