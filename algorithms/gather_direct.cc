// Gather, direct: every rank sends its block to the root, which receives each at its place.
//
// One round, p-1 blocks through the root's port, no copy but the root's own block: the bound for
// large blocks. For small ones the root's p-1 messages cost more than gather_tree's log2 p.
#include "algorithms/algorithm.h"
#include "algorithms/rooted.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::gather;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  return direct_rooted_cost(request, topology);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  const int ranks = topology.size();
  const auto lanes = static_cast<uint64_t>(tuning.channels);
  plan::Builder b(request, ranks, rank, "direct");
  for (uint64_t lane = 0; lane < lanes; lane++) {
    b.channel(static_cast<int>(lane));
    if (rank != request.root) {
      b.send(request.root, b.input().block(lane, lanes).slice());
      continue;
    }
    const auto place = [&](int r) {
      return b.output()
          .block(static_cast<uint64_t>(r), static_cast<uint64_t>(ranks))
          .block(lane, lanes)
          .slice();
    };
    if (!request.in_place) b.copy(b.input().block(lane, lanes).slice(), place(rank));
    for (int i = 1; i < ranks; i++) {
      const int from = (rank + i) % ranks;
      b.recv(from, place(from));
    }
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(gather_direct){Collective::gather, "direct", supports, cost, build};

}  // namespace railccl::algorithms
