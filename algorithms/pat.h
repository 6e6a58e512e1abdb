// PAT: parallel aggregated trees (Jeaugey 2025, "PAT: a new algorithm for all-gather and
// reduce-scatter operations at scale"), the arithmetic that both directions share.
//
// Each block travels down its own binomial tree. At rank r, "offset k" means the block of rank r-k.
// Offset k comes from rank r-d, d = lowest set bit of k, where it was offset k-d: far hops carry
// few blocks, near hops many, unlike Bruck's, whose farthest hop carries half of everything.
//
//   p = 8, A = 2: a message carries at most two blocks    distance 4: offset {4}
//                                                         distance 2: {2,6}
//                                                         distance 1: {3,7}, then {1,5}
//
// The A trees of the offsets that differ in the high bits only run in parallel and share messages
// (A is a power of two); the rest of each tree is walked depth first, so that a rank forwards each
// bundle at once and a reduction holds only one bundle per level. Messages per rank:
// log2 A + 2^ceil(log2 p) / A - 1, or p-1 for A = 1. Reduce-scatter is the same in reverse.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "algorithms/port_meter.h"
#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::algorithms {

struct PatRound {
  int distance = 1;
  bool high = false;         // one of the log2 A rounds in which the parallel trees split
  std::vector<int> offsets;  // ascending, at the end away from the block's own rank
};

/// How many blocks one message carries: as many as fit into a chunk, a power of two, at most half
/// of what the last hop could carry.
inline int pat_aggregation(int ranks, uint64_t block, uint64_t chunk) {
  int aggregation = 1;
  while (aggregation * 2 < ranks && static_cast<uint64_t>(aggregation) * 2 * block <= chunk) {
    aggregation *= 2;
  }
  return aggregation;
}

/// All rounds in the order of all-gather; `aggregation` a power of two.
inline std::vector<PatRound> pat_rounds(int ranks, int aggregation) {
  int reach = 1;
  while (reach < ranks) reach *= 2;
  const int span = reach / aggregation;  // offsets below it are the depth-first part
  std::vector<PatRound> rounds;
  const auto add = [&](int distance, bool high, int first, int step) {
    PatRound round{distance, high, {}};
    for (int k = first; k < ranks; k += step) round.offsets.push_back(k);
    if (!round.offsets.empty()) rounds.push_back(std::move(round));
  };
  for (int d = reach / 2; d >= span && d > 0; d /= 2) add(d, true, d, 2 * d);
  // Depth first from offset `at`, whose children are at + d for d below its lowest set bit.
  const auto walk = [&](const auto& self, int at, int below) -> void {
    for (int d = below / 2; d > 0; d /= 2) {
      add(d, false, at + d, span);
      self(self, at + d, d);
    }
  };
  walk(walk, 0, span);
  return rounds;
}

/// p-1 blocks each way per rank (the bound of both collectives); the split over hosts and rails
/// follows from the distances.
inline plan::Cost pat_cost(const plan::Request& request, const topology::Topology& topology,
                           const plan::Tuning& tuning) {
  const int p = topology.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  const auto lanes = static_cast<uint64_t>(tuning.channels);
  const uint64_t lane_block = (request.count + lanes - 1) / lanes;
  const int aggregation = pat_aggregation(p, lane_block, tuning.chunk_elements);
  PortMeter meter(topology);
  for (int d = 1; d < p; d *= 2) {
    const double blocks = (p - 1 - d) / (2 * d) + 1;  // offsets below p with lowest set bit d
    for (int r = 0; r < p; r++) meter.add(r, (r + d) % p, blocks * block);
  }
  plan::Cost cost;
  meter.charge(cost);
  int reach = 1, doublings = 0;
  while (reach < p) reach *= 2;
  while ((1 << doublings) < aggregation) doublings++;
  const double rounds = aggregation == 1 ? p - 1 : doublings + reach / aggregation - 1;
  (topology.used_hosts().size() > 1 ? cost.outer_rounds : cost.inner_rounds) = rounds;
  cost.local_bytes = block;
  if (aggregation > 1) cost.local_bytes += 2 * (p - 1) * block;  // packed and unpacked
  return cost;
}

}  // namespace railccl::algorithms
