// Columns: the cost that all_gather_rail and reduce_scatter_rail share.
#include "algorithms/columns.h"

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "algorithms/domains.h"
#include "algorithms/port_meter.h"

namespace railccl::algorithms {

plan::Cost columns_cost(const plan::Request& request, const topology::Topology& topology,
                        const plan::Tuning& tuning) {
  const double block = static_cast<double>(plan::bytes_of(request));
  const Columns columns(topology, 0, host_parts(topology));
  const Shards& shards = columns.shards;
  const int hosts = shards.parts();
  std::vector<double> blocks_in;  // per shard
  std::vector<bool> crosses;
  for (int s = 0; s < shards.count(); s++) {
    const std::vector<int>& owners = shards.across(s);
    blocks_in.push_back(static_cast<double>(columns.blocks_of(s).size()));
    crosses.push_back(std::any_of(owners.begin(), owners.end(), [&](int r) {
      return topology.rank(r).rail != topology.rank(owners[0]).rail;
    }));
  }
  std::map<std::pair<int, int>, double> nics, spine;
  double brought_least = topology.size();
  for (int p = 0; p < hosts; p++) {
    std::map<int, double> brought;
    for (const int r : shards.part(p)) brought[r] = 0;
    for (int s = 0; s < shards.count(); s++) {
      const int owner = shards.owner(s, p);
      const topology::Rank& at = topology.rank(owner);
      const double all = blocks_in[static_cast<size_t>(s)];
      const auto own = static_cast<double>(shards.blocks_of(p, s).size());
      const double bytes = (all - own) * block * slowness(topology, owner);
      nics[{at.host, at.nic}] += bytes;
      if (crosses[static_cast<size_t>(s)]) spine[{at.host, at.nic}] += bytes;
      brought[owner] += all;
    }
    for (const auto& [rank, blocks] : brought) brought_least = std::min(brought_least, blocks);
  }
  plan::Cost cost;
  cost.staged = true;
  for (const auto& [nic, bytes] : nics) cost.outer_bytes = std::max(cost.outer_bytes, bytes);
  for (const auto& [nic, bytes] : spine) cost.spine_bytes = std::max(cost.spine_bytes, bytes);
  cost.inner_bytes = (topology.size() - brought_least) * block;
  cost.cross_bytes = cost.inner_bytes * cross_share(topology);
  const double chunks = static_cast<double>(
      plan::chunk_count(request.count, std::max<uint64_t>(1, tuning.chunk_elements)));
  const auto bytes = static_cast<uint64_t>(block * hosts);
  const int most = topology.ranks_per_host_max();
  cost.outer_rounds = chunks * spread_across(hosts, bytes).rounds(hosts);
  const SpreadPattern& inner = spread_within(most, static_cast<uint64_t>(block * topology.size()));
  cost.inner_rounds = inner.rounds(most);
  cost.inner_extra = inner.extra(most);
  cost.local_bytes = block * hosts;
  return cost;
}

}  // namespace railccl::algorithms
