// Arithmetic that gather and scatter share: what the root's links carry, and the binomial tree.
#pragma once

#include <algorithm>
#include <cstdint>

#include "algorithms/port_meter.h"
#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::algorithms {

/// The root exchanges one block with every other rank itself: p-1 blocks through its port, those of
/// other hosts through its NIC. No schedule can move less, since the root's buffer needs each
/// block.
inline plan::Cost direct_rooted_cost(const plan::Request& request,
                                     const topology::Topology& topology) {
  const double block = static_cast<double>(plan::bytes_of(request));
  const topology::Rank& root = topology.rank(request.root);
  plan::Cost cost;
  const int near = static_cast<int>(topology.ranks_of_host(root.host).size());
  cost.inner_extra = std::max(0, near - 2);
  cost.outer_extra = std::max(0, topology.size() - near - 1);
  PortMeter meter(topology);
  for (int r = 0; r < topology.size(); r++) meter.add(request.root, r, block);
  meter.charge(cost);
  // All blocks are posted at once and do not wait for each other: one round each way at most.
  cost.inner_rounds = cost.inner_bytes > 0 ? 1 : 0;
  cost.outer_rounds = cost.outer_bytes > 0 ? 1 : 0;
  cost.local_bytes = request.in_place ? 0 : block;
  return cost;
}

/// A binomial tree over virtual ranks 0..p-1 with root 0. The parent of v clears v's lowest set
/// bit, so that v's subtree is the contiguous range [v, v + subtree): blocks of a subtree travel as
/// one message. Depth ceil(log2 p).
struct Binomial {
  int size = 1;

  static int lowest_bit(int v) { return v & -v; }
  int parent(int v) const { return v - lowest_bit(v); }
  int subtree(int v) const { return v == 0 ? size : std::min(lowest_bit(v), size - v); }
  /// Distance of the farthest child that v may have: children are v + d for d = 1, 2, 4 ... below.
  int reach(int v) const { return v == 0 ? size : lowest_bit(v); }
  int depth() const {
    int rounds = 0;
    while ((1 << rounds) < size) rounds++;
    return rounds;
  }
};

/// The root's port carries p-1 blocks as in the direct form, but in ceil(log2 p) messages; which of
/// them cross hosts depends on the placement, and the worst case is charged.
inline plan::Cost tree_rooted_cost(const plan::Request& request,
                                   const topology::Topology& topology) {
  const double block = static_cast<double>(plan::bytes_of(request));
  const Binomial tree{topology.size()};
  plan::Cost cost;
  const bool one_host = topology.used_hosts().size() <= 1;
  if (one_host) cost.cross_bytes = direct_rooted_cost(request, topology).cross_bytes;
  (one_host ? cost.inner_rounds : cost.outer_rounds) = tree.depth();
  (one_host ? cost.inner_bytes : cost.outer_bytes) = (topology.size() - 1) * block;
  if (!one_host && topology.rails().size() > 1) cost.spine_bytes = cost.outer_bytes;
  cost.local_bytes = block * (topology.size() > 2 ? 2 : 1);
  return cost;
}

}  // namespace railccl::algorithms
