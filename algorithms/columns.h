// Columns: how collectives with one block per rank travel over rails.
//
// Each rank's block belongs to one shard, its column, and crosses parts (hosts, or domains of one)
// among that shard's owners. On its own host a rank whose column another rank owns hands its block
// to that one, which sits on the column's rail (NCCL calls this PXN); everyone else owns the column
// itself.
#pragma once

#include <vector>

#include "algorithms/compose.h"

namespace railccl::algorithms {

struct Columns {
  Shards shards;
  int part = 0;  // this rank's
  int rank = 0;
  std::vector<int> owned;

  Columns(const topology::Topology& topology, int me, const Parts& parts)
      : shards(topology, Group::everyone(topology.size(), me).members, parts),
        part(shards.part_with(me)),
        rank(me),
        owned(shards.owned_by(me)) {}

  /// Who carries r's block in r's own part.
  int carrier(int r) const { return shards.owner(shards.column_of(r), shards.part_with(r)); }
  /// Ranks of this part whose blocks this rank carries, without its own.
  std::vector<int> handed() const {
    std::vector<int> ranks;
    for (const int r : shards.part(part)) {
      if (r != rank && carrier(r) == rank) ranks.push_back(r);
    }
    return ranks;
  }
  /// All blocks of a shard, part by part: what its owners hold after, or before, crossing.
  std::vector<int> blocks_of(int shard) const {
    std::vector<int> ranks;
    for (int p = 0; p < shards.parts(); p++) {
      for (const int r : shards.blocks_of(p, shard)) ranks.push_back(r);
    }
    return ranks;
  }
  /// All blocks that `owner`, a rank of this part, brings into it.
  std::vector<int> brought_by(int owner) const {
    std::vector<int> ranks;
    for (const int s : shards.owned_by(owner)) {
      for (const int r : blocks_of(s)) ranks.push_back(r);
    }
    return ranks;
  }
};

/// What an all-gather of `block` bytes per rank costs in this form; its mirror image costs the
/// same. Each owner's NIC takes in every block of its column from the other hosts and passes none
/// twice; inside a host everyone takes in all blocks it did not bring itself.
plan::Cost columns_cost(const plan::Request& request, const topology::Topology& topology,
                        const plan::Tuning& tuning);

}  // namespace railccl::algorithms
