// What the compositions over domains of one host cost: arithmetic that their files share.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <vector>

#include "algorithms/columns.h"
#include "algorithms/domains.h"
#include "algorithms/rail_rooted.h"

namespace railccl::algorithms {

/// The cut of an all-reduce, broadcast or reduce, and how a chunk of it crosses domains.
struct DomainCut {
  Shards shards;
  int domains, most, least;  // ranks of the largest and of the smallest domain
  double bytes;
  double chunks;
  uint64_t chunk_bytes;

  DomainCut(const plan::Request& request, const topology::Topology& topology,
            const plan::Tuning& tuning)
      : shards(topology, Group::everyone(topology.size(), 0).members, domain_parts(topology)),
        domains(shards.parts()),
        most(0),
        least(topology.size()),
        bytes(static_cast<double>(plan::bytes_of(request))) {
    for (int part = 0; part < domains; part++) {
      const int size = static_cast<int>(shards.part(part).size());
      most = std::max(most, size);
      least = std::min(least, size);
    }
    const uint64_t chunk = std::min(chunk_of(tuning, shards), std::max<uint64_t>(1, request.count));
    chunk_bytes = chunk * size_of(request.datatype);
    chunks = std::max(1.0, static_cast<double>(plan::chunk_count(request.count, chunk)));
  }

  uint64_t shard_bytes() const { return chunk_bytes / static_cast<uint64_t>(shards.count()); }
  /// Bytes of the shards that a rank owns at most, in a domain of `size` ranks.
  double owned(int size) const {
    const int of_one = (shards.count() + size - 1) / size;
    return bytes * of_one / shards.count();
  }
  double owned_most() const { return owned(least); }
  /// The most that `of(size, bytes owned)` gives for a rank of any domain.
  template <typename Of>
  double most_loaded(const Of& of) const {
    double load = 0;
    for (int part = 0; part < domains; part++) {
      const int size = static_cast<int>(shards.part(part).size());
      load = std::max(load, of(size, owned(size)));
    }
    return load;
  }
  /// Bytes through a rank's port to scatter, or gather, a buffer in its domain.
  double spread_bytes() const { return bytes * (most - 1) / most; }
};

/// A broadcast or a reduction: scattered in the root's domain, along chains or trees across, put
/// together in each.
inline plan::Cost domain_rooted_cost(const plan::Request& request,
                                     const topology::Topology& topology,
                                     const plan::Tuning& tuning) {
  const DomainCut cut(request, topology, tuning);
  const bool chain = chain_across(cut.shard_bytes());
  const double hops =
      chain ? cut.domains - 1 : std::bit_width(static_cast<unsigned>(cut.domains - 1));
  // In a tree of three or more a rank may serve two.
  const double copies = chain || cut.domains == 2 ? 1 : 2;
  plan::Cost cost;
  cost.staged = true;
  cost.cross_bytes = copies * cut.owned_most();
  cost.inner_bytes = 2 * cut.spread_bytes() + cost.cross_bytes;
  const SpreadPattern& within = spread_within(cut.most, cut.chunk_bytes);
  cost.inner_rounds = 1 + hops + within.rounds(cut.most) + cut.chunks - 1;
  cost.inner_extra = cut.chunks * within.extra(cut.most);
  cost.local_bytes = cut.bytes / cut.most;
  return cost;
}

/// An all-gather, or its mirror image: every block crosses once into each other domain.
inline plan::Cost domain_columns_cost(const plan::Request& request,
                                      const topology::Topology& topology,
                                      const plan::Tuning& tuning) {
  const double block = static_cast<double>(plan::bytes_of(request));
  const Columns columns(topology, 0, domain_parts(topology));
  const Shards& shards = columns.shards;
  std::vector<double> of_shard(static_cast<size_t>(shards.count()));
  int most = 0;
  for (int part = 0; part < shards.parts(); part++) {
    most = std::max(most, static_cast<int>(shards.part(part).size()));
    for (const int r : shards.part(part)) of_shard[static_cast<size_t>(shards.column_of(r))]++;
  }
  plan::Cost cost;
  cost.staged = true;
  for (int part = 0; part < shards.parts(); part++) {
    std::map<int, double> from_elsewhere;
    for (const int r : shards.part(part)) from_elsewhere[r] = -1;  // the own block
    for (int s = 0; s < shards.count(); s++)
      from_elsewhere[shards.owner(s, part)] += of_shard[static_cast<size_t>(s)];
    for (const auto& [rank, blocks] : from_elsewhere)
      cost.cross_bytes = std::max(cost.cross_bytes, blocks * block);
  }
  cost.inner_bytes = (topology.size() - 1) * block;
  const double chunks = static_cast<double>(
      plan::chunk_count(request.count, std::max<uint64_t>(1, tuning.chunk_elements)));
  const auto across = static_cast<uint64_t>(block) * static_cast<uint64_t>(shards.parts());
  const auto within = static_cast<uint64_t>(block) * static_cast<uint64_t>(topology.size());
  cost.inner_rounds =
      std::max(1.0, chunks) * spread_across(shards.parts(), across).rounds(shards.parts()) +
      spread_within(most, within).rounds(most);
  cost.inner_extra = std::max(1.0, chunks) * spread_within(most, within).extra(most);
  return cost;
}

}  // namespace railccl::algorithms
