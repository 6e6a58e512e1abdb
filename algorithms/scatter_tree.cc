// Scatter, binomial tree: the mirror image of gather_tree; each rank receives its subtree's blocks
// in one message, keeps the first and passes the rest on, the largest subtree first.
//
// ceil(log2 p) messages at the root instead of p-1; p-1 blocks through its port (the bound).
#include "algorithms/algorithm.h"
#include "algorithms/rooted.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::scatter;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  return tree_rooted_cost(request, topology);
}

/// The largest power of two below n (n >= 2): the farthest child comes first.
int farthest(int n) {
  int d = 1;
  while (d * 2 < n) d *= 2;
  return d;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning&, int rank) {
  const int ranks = topology.size();
  const Binomial tree{ranks};
  const int me = (rank - request.root + ranks) % ranks;
  const auto real = [&](int v) { return (v + request.root) % ranks; };
  const uint64_t count = request.count;

  plan::Builder b(request, ranks, rank, "tree");
  b.channel(0);
  if (me == 0) {
    const auto blocks = [&](int first, int n) {
      return b.input().part(static_cast<uint64_t>(first) * count, static_cast<uint64_t>(n) * count);
    };
    for (int d = ranks > 1 ? farthest(ranks) : 0; d > 0; d /= 2) {
      // The input is in rank order, so a subtree that passes rank p-1 comes from two places.
      const int n = tree.subtree(d);
      const int before_wrap = std::min(n, ranks - real(d));
      b.send(real(d), blocks(real(d), before_wrap).slice());
      if (before_wrap < n) b.send(real(d), blocks(0, n - before_wrap).slice());
    }
    if (!request.in_place) b.copy(blocks(rank, 1).slice(), b.output().slice());
    return std::move(b).take();
  }

  const int mine = tree.subtree(me);
  const plan::Region held = mine > 1 ? b.scratch(static_cast<uint64_t>(mine) * count) : b.output();
  const int parent = tree.parent(me);
  const int before_wrap = parent == 0 ? std::min(mine, ranks - rank) : mine;
  b.recv(real(parent), held.part(0, static_cast<uint64_t>(before_wrap) * count).slice());
  if (before_wrap < mine) {
    b.recv(real(parent), held.part(static_cast<uint64_t>(before_wrap) * count,
                                   static_cast<uint64_t>(mine - before_wrap) * count)
                             .slice());
  }
  for (int d = mine > 1 ? farthest(mine) : 0; d > 0; d /= 2) {
    b.send(real(me + d), held.part(static_cast<uint64_t>(d) * count,
                                   static_cast<uint64_t>(tree.subtree(me + d)) * count)
                             .slice());
  }
  if (mine > 1) b.copy(held.part(0, count).slice(), b.output().slice());
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(scatter_tree){Collective::scatter, "tree", supports, cost, build};

}  // namespace railccl::algorithms
