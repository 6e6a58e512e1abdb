// Leaves: which hosts, weaker than others, should take part in some of the data by way of
// neighbours, and how the data is divided then.
//
// A rail that one host lacks (its NIC is down, slow or was never there) need not be lost to the
// others. A host is a *leaf* of some data when it hands its sum of them to a neighbour, which adds
// it to its own, and gets the result back; the others all-reduce them on rails that the leaf may
// lack. Out of N hosts of which k are leaves of a share Y of the data and all N are on the rings of
// the rest X = 1 - Y, with neighbours out of q hosts taking turns, pass through the NICs of a host,
// in each direction,
//
//   leaf     2 (N-1)/N X + Y                              what it hands over, instead of a ring's
//   other    2 (N-1)/N X + 2 (N-k-1)/(N-k) Y + k/q Y      a smaller ring, and what leaves hand over
//
// times the size of the data. Y relieves leaves and burdens others. With W the NICs' speeds of a
// host added up, both take equally long where
//
//   (2 (N-1)/N X + Y) / W_leaf = (2 (N-1)/N X + (2 (N-k-1)/(N-k) + k/q) Y) / W_other
//
// or else all the data should have leaves, or none. For one leaf and q = N - 1 this meets the bound
// of any all-reduce, max(1 / min W, 2 (N-1) / sum W). Within a host each NIC gets what makes all of
// them take equally long: a leaf's hand over more where its rings carry less, and the others' rings
// of Y use what X and the leaves have left of each rail, above all those that leaves lack.
#pragma once

#include <cstdint>
#include <vector>

#include "topology/topology.h"

namespace railccl::algorithms {

struct Leaves {
  using Weights = std::vector<uint64_t>;  // by rail

  std::vector<int> hosts;       // the leaves; empty: they would gain next to nothing
  std::vector<int> others;      // the other hosts with ranks, ascending
  uint64_t without = 0;         // of kUnits of the data, those that have no leaves (X)
  Weights rings;                // how the others' rings divide the data that have leaves (Y)
  std::vector<Weights> passes;  // how NICs of hosts[i] divide what it hands over of them
  double gain = 1;  // how many times as long the busiest NIC takes when no data have leaves

  static constexpr uint64_t kUnits = 240;
  /// Neighbours that take turns for one NIC of a leaf: each gets a message of each chunk.
  static constexpr int kNeighbours = 8;
};

/// What takes the busiest NIC the least time.
Leaves leaves_of(const topology::Topology& topology);

}  // namespace railccl::algorithms
