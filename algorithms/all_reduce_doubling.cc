// All-reduce, recursive doubling: whole vectors are exchanged between partners 1, 2, 4... apart.
//
// Let q be the largest power of two <= p. The first 2(p-q) ranks pair up: an even one gives its
// vector to the odd one after it and gets the result in the end; the q others double. Partners
// compute a op b and b op a, which are the same bits. Rounds: log2 q, two more if p > q. Bytes sent
// and received: n log2 q, n more if p > q. For small vectors, where rounds are all that counts.
// Scratch: 2 chunks per channel.
#include <bit>

#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {
namespace {

/// Who does what when p is folded to a power of two.
struct Fold {
  explicit Fold(int p) : power(static_cast<int>(std::bit_floor(static_cast<unsigned>(p)))) {
    extra = p - power;
  }
  bool paired(int i) const { return i < 2 * extra; }
  bool idle(int i) const { return paired(i) && i % 2 == 0; }
  int folded(int i) const { return paired(i) ? i / 2 : i - extra; }
  int unfolded(int v) const { return v < extra ? 2 * v + 1 : v + extra; }

  int power;
  int extra = 0;
};

}  // namespace

void doubling_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  if (p == 1) return place(stage, input, output, stage.pre, stage.post);
  if (input.count == 0) return;
  const Fold fold(p);
  const uint64_t chunk = std::min(stage.chunk, input.count);
  const uint64_t iterations = plan::chunk_count(input.count, chunk);
  const Slice raw = input.chunks(chunk), result = output.chunks(chunk);
  Builder& b = stage.on();
  if (fold.idle(me)) {
    b.loop(iterations, [&] {
      b.send(group.at(me + 1), raw, stage.pre);
      b.recv(group.at(me + 1), result);
    });
    return;
  }
  const Region room = stage.take(2 * chunk);
  // A round must not write what it is still sending: its partner might wait for the same.
  const Slice slots[] = {room.part(0, chunk).slots(chunk, 1, input.count),
                         room.part(chunk, chunk).slots(chunk, 1, input.count)};
  b.loop(iterations, [&] {
    Slice current = raw;
    Pre pre = stage.pre;
    int free = 0;
    const auto move_to_slot = [&] {
      current = slots[free];
      free = 1 - free;
      pre = Pre::no;
    };
    if (fold.paired(me)) {
      b.recv_reduce(group.at(me - 1), raw, slots[free], pre);
      move_to_slot();
    } else if (fold.power == 2 && same_place(b, input, output)) {
      b.copy(raw, slots[free], pre);
      move_to_slot();
    }
    for (int distance = 1; distance < fold.power; distance *= 2) {
      const int partner = group.at(fold.unfolded(fold.folded(me) ^ distance));
      const bool last = 2 * distance == fold.power;
      b.send(partner, current, pre);
      b.recv_reduce(partner, current, last ? result : slots[free], pre,
                    last ? stage.post : Post::no);
      move_to_slot();
    }
    if (fold.paired(me)) b.send(group.at(me - 1), result);
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
  const Fold fold(p);
  const double n = static_cast<double>(plan::bytes_of(request));
  const double iterations = iterations_of(request.count, tuning, tuning.channels, 1);
  for (int distance = 1; distance < fold.power; distance *= 2) cost.skip(distance, iterations, n);
  if (fold.extra > 0) cost.skip(1, 2 * iterations, n);
  cost.local(p == 1 ? n : n * (log2_ceil(fold.power) + (fold.extra > 0 ? 1 : 0)));
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "doubling", [](const Stage& stage, const Share& share) {
        doubling_all_reduce(stage, share(stage.builder.input()), share(stage.builder.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_doubling){Collective::all_reduce, "doubling", supports, cost, build};

}  // namespace railccl::algorithms
