// Arithmetic that broadcast_rail and reduce_rail share: the outer pattern and the cost.
#pragma once

#include <algorithm>
#include <cstdint>

#include "algorithms/compose.h"
#include "algorithms/domains.h"
#include "algorithms/port_meter.h"
#include "algorithms/tree.h"

namespace railccl::algorithms {

/// Between hosts a chain sends each shard once per NIC, but its last host waits for N-1 hops; for
/// small shards a tree's log2 N hops and two children per node are quicker.
inline bool chain_across(uint64_t shard_bytes) { return shard_bytes > (64 << 10); }

inline plan::Cost rail_rooted_cost(const plan::Request& request, const topology::Topology& topology,
                                   const plan::Tuning& tuning) {
  const Shards shards(topology, Group::everyone(topology.size(), 0).members, host_parts(topology));
  const double n = static_cast<double>(plan::bytes_of(request));
  const int root_part = shards.part_with(request.root);
  const int hosts = shards.parts(), most = topology.ranks_per_host_max();
  const uint64_t chunk = std::min(chunk_of(tuning, shards), std::max<uint64_t>(1, request.count));
  const uint64_t chunk_bytes = chunk * size_of(request.datatype);
  const bool chain = chain_across(chunk_bytes / static_cast<uint64_t>(shards.count()));

  plan::Cost cost;
  cost.staged = true;
  PortMeter meter(topology);
  const Region whole{plan::Buffer::output, plan::kHere, 0, request.count};
  for (int s = 0; s < shards.count(); s++) {
    const double bytes = static_cast<double>(shards.of(whole, s).count * size_of(request.datatype));
    // For a reduction all edges turn round, which leaves the larger direction of a NIC the same.
    const Group owners{shards.across(s), 0};
    if (chain) {
      for (int i = 0; i + 1 < hosts; i++) {
        meter.add(owners.at(root_part + i), owners.at(root_part + i + 1), bytes);
      }
    } else {
      for (const auto& [parent, child] : rooted_tree_edges(owners, 0, root_part)) {
        meter.add(parent, child, bytes);
      }
    }
  }
  meter.charge(cost);
  double depth = 0;
  while ((1 << static_cast<int>(depth)) < hosts) depth++;
  const double chunks = static_cast<double>(plan::chunk_count(request.count, chunk));
  cost.inner_bytes = 2 * n * (most - 1) / most;
  cost.cross_bytes = cost.inner_bytes * cross_share(topology);
  const SpreadPattern& inner = spread_within(most, chunk_bytes);
  cost.inner_rounds = 1 + inner.rounds(most);
  cost.inner_extra = inner.extra(most);
  cost.outer_rounds = (chain ? hosts - 1 : depth) + std::max(0.0, chunks - 1);
  cost.local_bytes = n / most;
  return cost;
}

}  // namespace railccl::algorithms
