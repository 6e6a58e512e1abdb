// CircleCost: prices patterns in which every rank does the same relative to its place in the group.
//
// Rounds between hosts and inside them, and bytes through the most loaded port and NIC, for sends
// to the rank `skip` places on and for sends to everyone.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "algorithms/domains.h"
#include "algorithms/flat.h"
#include "algorithms/port_meter.h"

namespace railccl::algorithms {

/// Rounds that doubling needs to reach p ranks.
inline int log2_ceil(int p) { return std::bit_width(static_cast<unsigned>(p - 1)); }

class CircleCost {
 public:
  explicit CircleCost(const topology::Topology& topology)
      : topology_(topology), group_(everyone_by_host(topology, 0)), meter_(topology) {}

  int size() const { return group_.size(); }

  /// Everyone sends `bytes` to the next, in `rounds` rounds. An item visits one edge per round, so
  /// rounds fall to the wires between hosts in the proportion of the edges that are such wires.
  void ring(double rounds, double bytes) {
    if (size() < 2) return;
    const double outer = rounds * send_to([](int index) { return index + 1; }, bytes) / size();
    cost_.outer_rounds += outer;
    cost_.inner_rounds += rounds - outer;
    cost_.outer_senders = 1;
  }

  /// Everyone sends `bytes` to the index `skip` further, in `rounds` rounds: the slowest pair
  /// counts.
  void skip(int skip, double rounds, double bytes) {
    if (size() < 2) return;
    (send_to([skip](int index) { return index + skip; }, bytes) > 0 ? cost_.outer_rounds
                                                                    : cost_.inner_rounds) += rounds;
  }

  /// Those whose indices differ in one bit send `bytes` to each other, in one round.
  void exchange(int bit, double bytes) {
    const int outer = send_to([bit](int index) { return index ^ bit; }, bytes);
    (outer > 0 ? cost_.outer_rounds : cost_.inner_rounds) += 1;
  }

  /// Everyone sends `bytes` to each other rank, in `rounds` rounds of concurrent messages.
  void everyone(double rounds, double bytes) {
    const int p = size();
    if (p < 2) return;
    std::map<std::pair<int, int>, std::pair<double, double>> nics;  // (host, NIC) -> all, spine
    double inner = 0, cross = 0;
    int near_most = 1, far_most = 0;
    const auto domains = domain_sizes(topology_);
    std::map<int, int> of_rail;
    std::map<std::pair<int, int>, int> of_host_rail;
    for (const topology::Rank& r : topology_.ranks()) {
      of_rail[r.rail]++;
      of_host_rail[{r.host, r.rail}]++;
    }
    for (int rank = 0; rank < p; rank++) {
      const topology::Rank& r = topology_.rank(rank);
      const double far_bytes = bytes * slowness(topology_, rank);
      const int near = static_cast<int>(topology_.ranks_of_host(r.host).size());
      const int same_rail = of_rail[r.rail] - of_host_rail[{r.host, r.rail}];
      near_most = std::max(near_most, near);
      far_most = std::max(far_most, p - near);
      inner = std::max(inner, bytes * (near - 1));
      cross = std::max(cross, bytes * (near - domains.at({r.host, r.domain})));
      auto& [all, spine] = nics[{r.host, r.nic}];
      all += far_bytes * (p - near);
      spine += far_bytes * (p - near - same_rail);
    }
    double outer = 0, spine_bytes = 0;
    for (const auto& [nic, load] : nics) {
      outer = std::max(outer, load.first);
      spine_bytes = std::max(spine_bytes, load.second);
    }
    everyone_inner_ += inner;
    everyone_cross_ += cross;
    everyone_outer_ += outer;
    everyone_spine_ += spine_bytes;
    (far_most > 0 ? cost_.outer_rounds : cost_.inner_rounds) += rounds;
    cost_.inner_extra += rounds * (far_most > 0 ? near_most - 1 : near_most - 2);
    cost_.outer_extra += rounds * std::max(0, far_most - 1);
  }

  /// Bytes that the slowest rank reads in copies and reductions.
  void local(double bytes) { cost_.local_bytes += bytes; }

  plan::Cost total() const {
    plan::Cost cost = cost_;
    meter_.charge(cost);
    cost.inner_bytes += everyone_inner_;
    cost.cross_bytes += everyone_cross_;
    cost.outer_bytes += everyone_outer_;
    cost.spine_bytes += everyone_spine_;
    return cost;
  }

 private:
  /// Number of the sends that leave their host; `peer_of(index)` may wrap round.
  template <typename PeerOf>
  int send_to(const PeerOf& peer_of, double bytes) {
    int outer = 0;
    for (int i = 0; i < size(); i++) {
      const int from = group_.at(i), to = group_.at(peer_of(i));
      meter_.add(from, to, bytes);
      if (topology_.rank(from).host != topology_.rank(to).host) outer++;
    }
    return outer;
  }

  const topology::Topology& topology_;
  Group group_;
  PortMeter meter_;
  plan::Cost cost_;
  double everyone_inner_ = 0, everyone_cross_ = 0, everyone_outer_ = 0, everyone_spine_ = 0;
};

/// Loop iterations of one of `shares` shares of `count` elements, cut into `blocks` blocks each.
inline double iterations_of(uint64_t count, const plan::Tuning& tuning, int shares, int blocks) {
  const uint64_t pieces =
      static_cast<uint64_t>(std::max(1, shares)) * static_cast<uint64_t>(blocks);
  const uint64_t block = (count + pieces - 1) / pieces;
  return static_cast<double>(
      plan::chunk_count(block, std::max<uint64_t>(1, tuning.chunk_elements)));
}

}  // namespace railccl::algorithms
