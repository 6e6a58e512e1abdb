// Broadcast, scatter-gather: a binomial scatter of p blocks, then an all-gather ring (van de
// Geijn).
//
// Counted from the root as 0, rank r takes blocks r..r+w (w its lowest set bit) from r - w and
// hands the upper halves on; then blocks go round the ring. The root sends 2 (p-1)/p n, the others
// receive n at most once: a block that the scatter left somewhere is not sent there again, and
// nothing is sent to the root. log2 p + p - 1 rounds, against a chain's p - 2 + n/m: for long
// messages on few ranks. No scratch.
#include <bit>

#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {
namespace {

/// How many blocks the scatter brings to place r of p: [r, r + n).
int share_of(int p, int r) {
  const int width = r == 0 ? p : r & -r;
  return std::min(width, p - r);
}

/// Adjoining blocks [first, first + n) as one slice.
Slice range(const Blocks& blocks, int first, int n) {
  Region region = blocks[static_cast<size_t>(first)];
  for (int i = 1; i < n; i++) region.count += blocks[static_cast<size_t>(first + i)].count;
  return region.slice();
}

}  // namespace

void scatter_gather_broadcast(const Stage& stage, int root, const Region& source,
                              const Region& target) {
  const Group group = rotated(stage.group, root);
  const int p = group.size(), me = group.me;
  const Blocks blocks = split(me == 0 ? source : target, p);
  Builder& b = stage.on();
  if (me > 0) b.recv(group.at(me - (me & -me)), range(blocks, me, share_of(p, me)));
  const int width = me == 0 ? static_cast<int>(std::bit_ceil(static_cast<unsigned>(p))) : me & -me;
  for (int w = width / 2; w > 0; w /= 2) {
    if (me + w < p) b.send(group.at(me + w), range(blocks, me + w, share_of(p, me + w)));
  }
  const auto wanted = [&](int at, int block) {
    return block < at || block >= at + share_of(p, at);
  };
  for (int step = 0; step < p - 1; step++) {
    const int passed = (me + p - step) % p, taken = (passed + p - 1) % p;
    const int next = (me + 1) % p;
    if (next != 0 && wanted(next, passed)) b.send(group.at(next), range(blocks, passed, 1));
    if (me != 0 && wanted(me, taken)) b.recv(group.at(me - 1), range(blocks, taken, 1));
  }
  if (me == 0) place(stage, source, target, Pre::no, Post::no);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::broadcast;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  // The scatter's port load is the root's; the ring's is everyone's.
  for (int w = 1; w < p; w *= 2) cost.skip(w, 1, n / p * std::min(w, p - w));
  cost.ring(p - 1, n * (p - 1) / p);
  cost.local(request.in_place ? 0 : n);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(request, topology, tuning, rank, "scatter_gather",
                     [](const Stage& stage, const Share& share) {
                       const Builder& b = stage.builder;
                       scatter_gather_broadcast(stage, index_of(stage.group, b.request().root),
                                                share(b.input()), share(b.output()));
                     });
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_scatter_gather){Collective::broadcast, "scatter_gather", supports, cost,
                                            build};

}  // namespace railccl::algorithms
