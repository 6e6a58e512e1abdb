// Open: plans over the inputs and outputs of all ranks of a host, which everyone can load and
// store.
//
// For calls whose buffers the runtime has found open to all (threads of one process, or memory that
// processes share); it has also seen to it that all ranks have entered. No scratch, no messages but
// a meeting in the end: no rank may return while others still read or write its buffers.
//
// Work is cut into one part per rank, so that all cores work however few ranks hold data. In place
// needs nothing: each element of an input is read by one rank only, which then overwrites it.
#pragma once

#include <vector>

#include "algorithms/algorithm.h"
#include "algorithms/shared.h"

namespace railccl::algorithms {

/// `rank`'s buffer as the builder's rank names it.
inline Region of_rank(const Builder& b, Region region, int rank) {
  region.owner = rank == b.rank() ? plan::kHere : rank;
  return region;
}
/// `rank`'s input or output of `count` elements, which a rooted collective may give it alone.
inline Region input_of(const Builder& b, int rank) {
  const uint64_t n = plan::input_elements(b.request(), b.ranks(), rank);
  return of_rank(b, {plan::Buffer::input, plan::kHere, 0, n}, rank);
}
inline Region output_of(const Builder& b, int rank) {
  const uint64_t n = plan::output_elements(b.request(), b.ranks(), rank);
  return of_rank(b, {plan::Buffer::output, plan::kHere, 0, n}, rank);
}
/// Block `i` of as many as there are ranks.
inline Region block_of(const Builder& b, const Region& region, int i) {
  return region.block(static_cast<uint64_t>(i), static_cast<uint64_t>(b.ranks()));
}
/// This rank's part of the work on a region.
inline Slice my_part(const Builder& b, const Region& region) {
  return block_of(b, region, b.rank()).slice();
}
/// The rank `k` places on.
inline int rank_after(const Builder& b, int k) { return (b.rank() + k) % b.ranks(); }

/// dsts = all inputs' elements at `at`, reduced; `at` gives the slice of a rank's input.
template <typename At>
void reduce_inputs(Builder& b, const At& at, const std::vector<Slice>& dsts) {
  std::vector<Slice> others;
  for (int k = 1; k < b.ranks(); k++) others.push_back(at(input_of(b, rank_after(b, k))));
  const Slice mine = at(input_of(b, b.rank()));
  if (others.empty()) return b.copy(mine, dsts, Pre::yes, Post::yes);
  b.reduce(mine, others, dsts, Pre::yes, Post::yes);
}

/// Everyone has finished.
inline void part(Builder& b) {
  for (int k = 1; k < b.ranks(); k++) b.signal(rank_after(b, k));
  for (int k = 1; k < b.ranks(); k++) b.wait(rank_after(b, b.ranks() - k));
}

/// What a rank reads, from itself and from each of its peers, in bytes; two rounds of signals, the
/// runtime's exchange about the buffers included.
inline plan::Cost open_cost(int ranks, double own_bytes, double peer_bytes) {
  plan::Cost cost;
  cost.local_bytes = own_bytes;
  if (ranks == 1) return cost;
  cost.inner_rounds = 2;
  cost.inner_extra = 2 * (ranks - 2);
  cost.peer_bytes = peer_bytes * (ranks - 1);
  return cost;
}

}  // namespace railccl::algorithms
