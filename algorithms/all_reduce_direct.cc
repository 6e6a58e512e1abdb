// All-reduce, direct: one shot, everyone sends everything to everyone, and reduces by itself.
//
// One round, which is the least; each rank sends and receives (p-1) n, p/2 times as much as needed.
// For tiny messages and few ranks; with two ranks it moves no more than any other. All ranks add in
// the same order (by group index), so that all get the same bits; of two ranks, recv_reduce does so
// by itself. Scratch: p chunks per channel, none for two ranks.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void direct_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  if (p == 1) return place(stage, input, output, stage.pre, stage.post);
  const uint64_t chunk = std::min(stage.chunk, input.count);
  if (chunk == 0) return;
  if (p == 2) {
    // Nothing to keep: what comes is reduced with the own input as it comes.
    Builder& b = stage.on();
    const int other = group.at(me + 1);
    b.loop(plan::chunk_count(input.count, chunk), [&] {
      b.send(other, input.chunks(chunk), stage.pre);
      b.recv_reduce(other, input.chunks(chunk), output.chunks(chunk), stage.pre, stage.post);
    });
    return;
  }
  const Region room = stage.take(static_cast<uint64_t>(p) * chunk);
  std::vector<Slice> slots;
  for (int i = 0; i < p; i++)
    slots.push_back(
        room.part(static_cast<uint64_t>(i) * chunk, chunk).slots(chunk, 1, input.count));
  Builder& b = stage.on();
  b.loop(plan::chunk_count(input.count, chunk), [&] {
    b.copy(input.chunks(chunk), slots[static_cast<size_t>(me)], stage.pre);
    for (int i = 1; i < p; i++) b.send(group.at(me + i), slots[static_cast<size_t>(me)]);
    for (int i = 1; i < p; i++)
      b.recv(group.at(me - i), slots[static_cast<size_t>((me + p - i) % p)]);
    b.reduce(slots[0], std::span(slots).subspan(1), output.chunks(chunk), Pre::no, stage.post);
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
  cost.everyone(iterations_of(request.count, tuning, tuning.channels, 1), n);
  cost.local(p <= 2 ? n : n * (p + 1));
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "direct", [](const Stage& stage, const Share& share) {
        direct_all_reduce(stage, share(stage.builder.input()), share(stage.builder.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_direct){Collective::all_reduce, "direct", supports, cost, build};

}  // namespace railccl::algorithms
