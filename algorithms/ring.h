// Ring: the steps of one chunk going round, for the loops of ring patterns.
//
// Four ranks, reduce-scatter of blocks A B C D (owned by 0 1 2 3): block A starts at 1, collects 2
// and 3, ends at 0. In step s rank i passes on block i - 1 - s and takes up block i - 2 - s:
//
//   step    0 -> 1   1 -> 2   2 -> 3   3 -> 0
//    0        D        A        B        C        raw input
//    1        C        D        A        B        sums of two
//    2        B        C        D        A        sums of three; the receiver completes its own
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "algorithms/flat.h"

namespace railccl::algorithms {

/// Slots that partial sums pass through. With one slot everyone would wait for the next rank to
/// take the previous sum before taking one up itself: a deadlock. Two are safe; four let a rank run
/// ahead of a slow neighbour.
inline uint32_t ring_slots(int p) { return static_cast<uint32_t>(std::clamp(p - 2, 0, 4)); }

/// `partial(step, block)`: the place of the sum of `block` that is received in `step`.
template <typename Partial>
void ring_reduce_scatter_steps(const Stage& stage, const Blocks& input, const Region& output,
                               const Partial& partial) {
  Builder& b = stage.on();
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  const int next = group.at(me + 1), previous = group.at(me - 1);
  const auto raw = [&](int block) { return input[static_cast<size_t>(block)].chunks(stage.chunk); };
  for (int step = 0; step < p - 1; step++) {
    const int passed = (me + 2 * p - 1 - step) % p;
    const int taken = (passed + p - 1) % p;
    if (step == 0)
      b.send(next, raw(passed), stage.pre);
    else
      b.send(next, partial(step - 1, passed));
    if (step < p - 2)
      b.recv_reduce(previous, raw(taken), partial(step, taken), stage.pre);
    else
      b.recv_reduce(previous, raw(taken), output.chunks(stage.chunk), stage.pre, stage.post);
  }
}

/// Block i starts at index i, here from `mine`, and goes round to everyone else.
inline void ring_all_gather_steps(const Stage& stage, const Region& mine, const Blocks& output) {
  Builder& b = stage.on();
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  for (int step = 0; step < p - 1; step++) {
    const int passed = (me + p - step) % p;
    const int taken = (passed + p - 1) % p;
    const Region& from = step == 0 ? mine : output[static_cast<size_t>(passed)];
    b.send(group.at(me + 1), from.chunks(stage.chunk));
    b.recv(group.at(me - 1), output[static_cast<size_t>(taken)].chunks(stage.chunk));
  }
}

}  // namespace railccl::algorithms
