// Scatter, direct: the root sends each rank its block; the mirror image of gather_direct.
//
// One round, p-1 blocks through the root's port: the bound for large blocks.
#include "algorithms/algorithm.h"
#include "algorithms/rooted.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::scatter;
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
      b.recv(request.root, b.output().block(lane, lanes).slice());
      continue;
    }
    const auto place = [&](int r) {
      return b.input()
          .block(static_cast<uint64_t>(r), static_cast<uint64_t>(ranks))
          .block(lane, lanes)
          .slice();
    };
    for (int i = 1; i < ranks; i++) {
      const int to = (rank + i) % ranks;
      b.send(to, place(to));
    }
    if (!request.in_place) b.copy(place(rank), b.output().block(lane, lanes).slice());
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(scatter_direct){Collective::scatter, "direct", supports, cost, build};

}  // namespace railccl::algorithms
