// All-reduce, direct: one shot, everyone sends everything to everyone, and reduces by itself.
//
// One round, which is the least; each rank sends and receives (p-1) n, p/2 times as much as needed.
// For tiny messages and few ranks; with two ranks it moves no more than any other. All ranks add in
// the same order (by group index), so that all get the same bits; of two ranks, recv_reduce does so
// by itself. Scratch: p chunks per channel; for two ranks 1, and none out of place.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

namespace {

/// Two ranks: what comes is reduced with the own input as it comes. In place that would have to
/// wait until the own message has left, hence for the other rank, which waits likewise: there it is
/// taken in first.
void exchange(const Stage& stage, const Region& input, const Region& output, uint64_t chunk) {
  Builder& b = stage.on();
  const int other = stage.group.at(stage.group.me + 1);
  const bool lower = stage.group.at(stage.group.me) < other;
  const Slice mine = input.chunks(chunk), result = output.chunks(chunk);
  if (!same_place(b, input, output)) {
    b.loop(plan::chunk_count(input.count, chunk), [&] {
      b.send(other, mine, stage.pre);
      b.recv_reduce(other, mine, result, stage.pre, stage.post);
    });
    return;
  }
  const Slice theirs = stage.take(chunk).slots(chunk, 1, input.count);
  b.loop(plan::chunk_count(input.count, chunk), [&] {
    b.send(other, mine, stage.pre);
    b.recv(other, theirs);
    // The lower rank's operand first, as recv_reduce has it; scaled operands commute.
    if (lower || stage.pre == Pre::yes) {
      b.reduce(mine, std::span(&theirs, 1), result, stage.pre, stage.post);
    } else {
      b.reduce(theirs, std::span(&mine, 1), result, Pre::no, stage.post);
    }
  });
}

}  // namespace

void direct_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  if (p == 1) return place(stage, input, output, stage.pre, stage.post);
  const uint64_t chunk = std::min(stage.chunk, input.count);
  if (chunk == 0) return;
  if (p == 2) return exchange(stage, input, output, chunk);
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
