// Shapes: topologies with given ranks per host, two NICs and two rails.
#pragma once

#include <fmt/format.h>

#include <vector>

#include "topology/topology.h"

namespace railccl::test {

inline topology::Topology hosts_with(const std::vector<int>& ranks_of_host) {
  std::vector<topology::Host> hosts;
  std::vector<topology::Rank> ranks;
  std::vector<topology::Rail> rails(2);
  for (size_t h = 0; h < ranks_of_host.size(); h++) {
    topology::Host host;
    host.name = fmt::format("host{}", h);
    host.id = h + 1;
    for (int n = 0; n < 2; n++) {
      topology::Nic nic;
      nic.name = fmt::format("eth{}", n);
      nic.bytes_per_s = 1e9;
      nic.rail = n;
      host.nics.push_back(nic);
    }
    hosts.push_back(host);
    for (int r = 0; r < ranks_of_host[h]; r++) {
      topology::Rank rank;
      rank.host = static_cast<int>(h);
      rank.process = ranks.size() + 1;
      rank.nic = rank.rail = r % 2;
      ranks.push_back(rank);
    }
  }
  return topology::Topology(hosts, rails, ranks);
}

}  // namespace railccl::test
