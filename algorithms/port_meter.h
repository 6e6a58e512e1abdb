// PortMeter: adds up who sends how much to whom, and answers with the most loaded port and NIC.
//
// For cost() of algorithms whose edges are easier to enumerate than to sum by hand. Ranks that
// share a NIC share its load. Full duplex: a port's load is the larger of its two directions. Of
// unequal NICs the one counts that takes longest.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::algorithms {

/// How many bytes through the slowest NIC take as long as one through that of rank r: what
/// plan::Cost counts in.
inline double slowness(const topology::Topology& topology, int r) {
  return topology.slowest_nic_bytes_per_s() / topology.nic_bytes_per_s(r);
}

class PortMeter {
 public:
  explicit PortMeter(const topology::Topology& topology)
      : topology_(topology),
        ports_(static_cast<size_t>(topology.size())),
        nics_(static_cast<size_t>(topology.nic_count())) {}

  void add(int from, int to, double bytes) {
    if (from == to) return;
    const topology::Rank& source = topology_.rank(from);
    const topology::Rank& target = topology_.rank(to);
    if (source.host == target.host) {
      Load& out = ports_[static_cast<size_t>(from)];
      Load& in = ports_[static_cast<size_t>(to)];
      out.out += bytes;
      in.in += bytes;
      if (source.domain != target.domain) {
        out.away_out += bytes;
        in.away_in += bytes;
      }
      return;
    }
    Load& out = nics_[static_cast<size_t>(topology_.nic_place(from))];
    Load& in = nics_[static_cast<size_t>(topology_.nic_place(to))];
    const double sent = bytes * slowness(topology_, from);
    const double received = bytes * slowness(topology_, to);
    out.out += sent;
    in.in += received;
    if (source.rail != target.rail) {
      out.away_out += sent;
      in.away_in += received;
    }
  }

  /// Sets the port and NIC loads of `cost`.
  void charge(plan::Cost& cost) const {
    for (const Load& port : ports_) {
      cost.inner_bytes = std::max({cost.inner_bytes, port.in, port.out});
      cost.cross_bytes = std::max({cost.cross_bytes, port.away_in, port.away_out});
    }
    for (const Load& nic : nics_) {
      cost.outer_bytes = std::max({cost.outer_bytes, nic.in, nic.out});
      cost.spine_bytes = std::max({cost.spine_bytes, nic.away_in, nic.away_out});
    }
  }

 private:
  /// Bytes, and of these what leaves the domain (ports) or the rail (NICs).
  struct Load {
    double in = 0, out = 0, away_in = 0, away_out = 0;
  };
  const topology::Topology& topology_;
  std::vector<Load> ports_;
  std::vector<Load> nics_;
};

}  // namespace railccl::algorithms
