// Gather, binomial tree: each rank collects its subtree's blocks and passes them on in one message.
//
// Ranks are renumbered so that the root is 0; v's subtree is [v, v + lowest bit of v):
//
//     0 <- 1,  2 <- 3,  0 <- {2,3}          (p = 4, right to left: rounds 1, 1, 2)
//
// ceil(log2 p) messages at the root instead of p-1, and p-1 blocks through its port as in the
// direct form (the bound). Inner nodes hold up to p/2 blocks in scratch and forward them, so half
// of all blocks travel more than once: for small blocks.
#include "algorithms/algorithm.h"
#include "algorithms/rooted.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::gather;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  return tree_rooted_cost(request, topology);
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
      return b.output().part(static_cast<uint64_t>(first) * count,
                             static_cast<uint64_t>(n) * count);
    };
    if (!request.in_place) b.copy(b.input().slice(), blocks(rank, 1).slice());
    for (int d = 1; d < tree.reach(0); d *= 2) {
      // The output is in rank order, so a subtree that passes rank p-1 lands in two places.
      const int n = tree.subtree(d);
      const int before_wrap = std::min(n, ranks - real(d));
      b.recv(real(d), blocks(real(d), before_wrap).slice());
      if (before_wrap < n) b.recv(real(d), blocks(0, n - before_wrap).slice());
    }
    return std::move(b).take();
  }

  plan::Region held = b.input();
  const int mine = tree.subtree(me);
  if (mine > 1) {
    held = b.scratch(static_cast<uint64_t>(mine) * count);
    b.copy(b.input().slice(), held.part(0, count).slice());
    for (int d = 1; d < mine; d *= 2) {
      b.recv(real(me + d), held.part(static_cast<uint64_t>(d) * count,
                                     static_cast<uint64_t>(tree.subtree(me + d)) * count)
                               .slice());
    }
  }
  // Only the root splits what wraps; its child knows the place as well as the root does.
  const int parent = tree.parent(me);
  const int before_wrap = parent == 0 ? std::min(mine, ranks - rank) : mine;
  b.send(real(parent), held.part(0, static_cast<uint64_t>(before_wrap) * count).slice());
  if (before_wrap < mine) {
    b.send(real(parent), held.part(static_cast<uint64_t>(before_wrap) * count,
                                   static_cast<uint64_t>(mine - before_wrap) * count)
                             .slice());
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(gather_tree){Collective::gather, "tree", supports, cost, build};

}  // namespace railccl::algorithms
