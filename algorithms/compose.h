// Compose: hierarchical collectives out of flat patterns, any pattern at any level.
//
//   all_reduce = within(part, reduce-scatter) ∘ across(shard, all-reduce) ∘ within(part,
//   all-gather)
//
// where the middle one may itself be composed over a coarser partition, to any depth: NUMA nodes,
// hosts, racks. Pure functions; patterns are chosen by size unless the caller fixes them.
#pragma once

#include <vector>

#include "algorithms/flat.h"
#include "algorithms/rails.h"

namespace railccl::algorithms {

/// A reduce-scatter and the all-gather that mirrors it.
struct SpreadPattern {
  const char* name;
  void (*reduce_scatter)(const Stage&, const Blocks& input, const Region& output);
  void (*all_gather)(const Stage&, const Region& mine, const Blocks& output);
  /// Messages in sequence for a group of that size, and those of a member beyond one for each.
  double (*rounds)(int size);
  double (*extra)(int size);
};
struct AllReducePattern {
  const char* name;
  void (*all_reduce)(const Stage&, const Region& input, const Region& output);
  double (*rounds)(int size);
  /// Bytes through each member's port for `bytes` of data.
  double (*bytes)(int size, double bytes);
};
/// The tables: ring, halving (with Bruck's all-gather), direct; ring, halving_doubling, doubling,
/// bruck.
const std::vector<SpreadPattern>& spread_patterns();
const std::vector<AllReducePattern>& all_reduce_patterns();

/// Which to use; null: by size.
struct Choice {
  const SpreadPattern* inner = nullptr;
  const AllReducePattern* outer = nullptr;
};
/// Inside a host: all pairs are equally near, so everyone exchanges with everyone at once, one
/// round at a ring's bytes; only in large groups with much data do rings keep the fan-in constant.
const SpreadPattern& spread_within(int size, uint64_t bytes);
/// Between hosts: logarithmic for small data, a ring's constant fan-in for large.
const SpreadPattern& spread_across(int size, uint64_t bytes);
const AllReducePattern& all_reduce_across(int size, uint64_t bytes);

/// A partition of all ranks: the part of each. Levels go from fine to coarse.
using Parts = std::vector<int>;

/// An all-reduce over the levels, pipelined over chunks (staged.h). With no level it is the flat
/// outer pattern.
Result<plan::Program> compose_all_reduce(const plan::Request& request,
                                         const topology::Topology& topology,
                                         const plan::Tuning& tuning, int rank,
                                         const std::vector<Parts>& levels, const Choice& choice,
                                         const char* name);

/// The other collectives over one level, as <collective>_rail.cc describe them for hosts.
Result<plan::Program> compose_reduce_scatter(const plan::Request& request,
                                             const topology::Topology& topology,
                                             const plan::Tuning& tuning, int rank,
                                             const Parts& parts, const char* name);
Result<plan::Program> compose_all_gather(const plan::Request& request,
                                         const topology::Topology& topology,
                                         const plan::Tuning& tuning, int rank, const Parts& parts,
                                         const char* name);
Result<plan::Program> compose_broadcast(const plan::Request& request,
                                        const topology::Topology& topology,
                                        const plan::Tuning& tuning, int rank, const Parts& parts,
                                        const char* name);
Result<plan::Program> compose_reduce(const plan::Request& request,
                                     const topology::Topology& topology, const plan::Tuning& tuning,
                                     int rank, const Parts& parts, const char* name);

/// How a composition with `stages` stages divides its data: lanes work side by side, each on its
/// own channels. A chunk is large enough that each shard's part of it is one of the tuning's
/// chunks.
int lanes_of(const plan::Tuning& tuning, int stages);
uint64_t chunk_of(const plan::Tuning& tuning, const Shards& shards);

// All-gather and reduce-scatter for members that own several pieces each (lists of Regions, in
// group order). Pieces that adjoin count as one; several small ones travel through scratch as one
// bundle of at most `bundle_max` elements for all members together, and large ones in turns.

/// Everyone gets every piece: `lists[i]` are the pieces of index i in this rank's own buffers,
/// where those of this rank are filled already.
void gather_lists(const Stage& stage, const std::vector<Blocks>& lists,
                  const SpreadPattern& pattern, uint64_t bundle_max);
/// Index i gets the sums of `lists[i]`; `mine[k]` is where this rank's k-th one goes.
void scatter_lists(const Stage& stage, const std::vector<Blocks>& lists, const Blocks& mine,
                   const SpreadPattern& pattern, uint64_t bundle_max);

/// The members as a group, seen from `rank`, which is one of them.
Group group_of(const std::vector<int>& members, int rank);

}  // namespace railccl::algorithms
