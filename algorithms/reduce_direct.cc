// Reduce, direct: everyone sends everything to the root, which adds it up by itself.
//
// One round, the least there is; the root's port carries (p-1) n, where trees and rings need n. For
// small messages and few ranks. The root adds in the order of the ranks behind it. No scratch.
#include "algorithms/algorithm.h"
#include "algorithms/rooted.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  plan::Cost cost = direct_rooted_cost(request, topology);
  const int ranks = topology.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  cost.local_bytes = ranks == 1 ? n : n * (ranks - 1);
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  const int ranks = topology.size();
  const auto lanes = static_cast<uint64_t>(tuning.channels);
  plan::Builder b(request, ranks, rank, "direct");
  for (uint64_t lane = 0; lane < lanes; lane++) {
    b.channel(static_cast<int>(lane));
    const plan::Slice source = b.input().block(lane, lanes).slice();
    if (rank != request.root) {
      b.send(request.root, source, plan::Pre::yes);
      continue;
    }
    const plan::Slice target = b.output().block(lane, lanes).slice();
    if (ranks == 1) b.copy(source, target, plan::Pre::yes, plan::Post::yes);
    for (int i = 1; i < ranks; i++) {
      const bool first = i == 1, last = i == ranks - 1;
      b.recv_reduce((rank + i) % ranks, first ? source : target, target,
                    first ? plan::Pre::yes : plan::Pre::no,
                    last ? plan::Post::yes : plan::Post::no);
    }
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(reduce_direct){Collective::reduce, "direct", supports, cost, build};

}  // namespace railccl::algorithms
