// Speeds of whole rails, on all hosts alike, for tests.
#pragma once

#include <algorithm>
#include <vector>

#include "topology/topology.h"

namespace railccl {

/// As Topology::with_nic_speeds, the same on all hosts.
inline topology::Topology with_rail_speeds(const topology::Topology& topology,
                                           const std::vector<double>& of_rails) {
  return topology.with_nic_speeds(
      std::vector<std::vector<double>>(topology.hosts().size(), of_rails));
}

/// What the slowest host carries on a rail: 0 when one's NIC is down, negative when none is known.
inline double rail_speed(const topology::Topology& topology, int rail) {
  double least = -1;
  for (const int host : topology.used_hosts()) {
    const double speed = topology.rail_bytes_per_s(rail, host);
    if (speed >= 0 && (least < 0 || speed < least)) least = speed;
  }
  return least;
}

}  // namespace railccl
