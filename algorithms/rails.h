// Rails: which rank of each part (host, NUMA node) carries which share of the data between parts,
// so that traffic between hosts stays on one rail.
//
// Words: a group's ranks fall into *parts*. Data is cut into *shards*; each shard has one *owner*
// in each part, and the owners of one shard form the *across group* in which it travels between
// parts. Pure arithmetic on the topology: every rank computes the same.
#pragma once

#include <vector>

#include "plan/builder.h"
#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::algorithms {

/// How a group is cut. Owners of one shard are all on the same rail whenever some rail has ranks in
/// every part; then only such rails are used, each for a share of the data in proportion to its
/// speed (that of its slowest NIC), and those that are down, or fifty times slower than others, for
/// none. Healthy rails count as equal, though measured they never are. A share is cut further among
/// the ranks that share the rail in the part that has most of them. A part with fewer ranks on the
/// rail gives several neighbouring shards to one rank. Ranks on other rails own nothing and hand
/// their data to those that do. Without a common rail, or inside one host, where rails carry
/// nothing, shards are spread over each part's ranks in order.
class Shards {
 public:
  /// `part_of[r]` for each global rank; `members` are global ranks in group order. `weights`, one
  /// for each rail, are given to common rails instead of those that follow from their speeds.
  Shards(const topology::Topology& topology, const std::vector<int>& members,
         const std::vector<int>& part_of, const std::vector<uint64_t>& weights = {});

  int count() const { return static_cast<int>(owners_.size()); }
  int parts() const { return static_cast<int>(parts_.size()); }
  /// Ranks of part i, in group order.
  const std::vector<int>& part(int i) const { return parts_[static_cast<size_t>(i)]; }
  /// The part that holds `rank`, or -1.
  int part_with(int rank) const;
  /// Owners of a shard, one per part: its across group.
  const std::vector<int>& across(int shard) const { return owners_[static_cast<size_t>(shard)]; }
  int owner(int shard, int part) const { return across(shard)[static_cast<size_t>(part)]; }
  /// Shards of `rank` in its part, neighbours in ascending order; empty when it owns none.
  std::vector<int> owned_by(int rank) const;
  /// The shard by which the block of `rank` travels: its first own one, or for ranks that own none
  /// one of its part's in turn. For collectives that move a block per rank.
  int column_of(int rank) const { return column_[static_cast<size_t>(rank)]; }
  /// Ranks of `part` whose column is `shard`.
  std::vector<int> blocks_of(int part, int shard) const;

  /// That shard's share of a region.
  plan::Region of(const plan::Region& whole, int shard) const;
  /// What each member of a part owns of a region: one piece each, in group order, maybe empty.
  std::vector<plan::Region> pieces(const plan::Region& whole, int part) const;

 private:
  struct Place {
    // Of `units` blocks of the whole the rail has `weight` from `first` on; of these together,
    // block `index` of `shards_on_rail`.
    uint64_t first, weight, units, index, shards_on_rail;
  };
  std::vector<std::vector<int>> parts_;
  std::vector<std::vector<int>> owners_;
  std::vector<Place> places_;
  std::vector<int> column_;  // by global rank
};

/// Host of each rank: the parts of a hierarchy's usual level.
std::vector<int> host_parts(const topology::Topology& topology);

/// More than one host, and somewhere more than one rank per host: what rail algorithms are for.
bool has_rails(const topology::Topology& topology);

/// Where one rank's data for another host leaves this host and enters that one.
struct Crossing {
  int out = 0;  // rank on the sender's host
  int in = 0;   // rank on the other host, on the same rail when any rail that works reaches both
  friend bool operator==(const Crossing&, const Crossing&) = default;
};
Crossing crossing(const topology::Topology& topology, int from, int to_host);

/// Sets the most loaded NIC's outer and spine bytes for an all-to-all of `block` bytes per pair of
/// ranks: each rank sends a block to every rank of another host, so a NIC carries (p - G) blocks
/// for each rank it serves. `by_rail`: as all_to_all_rail routes them.
void charge_all_to_all(const topology::Topology& topology, double block, bool by_rail,
                       plan::Cost& cost);

}  // namespace railccl::algorithms
