// Broadcast, direct: the root sends everything to everyone by itself.
//
// One round, the least there is; the root's port carries (p-1) n, where trees and rings need n. For
// small messages and few ranks. No scratch.
#include "algorithms/algorithm.h"
#include "algorithms/rooted.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::broadcast;
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
    const plan::Region target = b.output().block(lane, lanes);
    if (rank != request.root) {
      b.recv(request.root, target.slice());
      continue;
    }
    const plan::Slice source = b.input().block(lane, lanes).slice();
    for (int i = 1; i < ranks; i++) b.send((rank + i) % ranks, source);
    if (!request.in_place) b.copy(source, target.slice());
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_direct){Collective::broadcast, "direct", supports, cost, build};

}  // namespace railccl::algorithms
