// Rails: shards and their owners, crossings between hosts, and what all-to-all costs the NICs.
#include "algorithms/rails.h"

#include <algorithm>
#include <map>
#include <utility>

namespace railccl::algorithms {
namespace {

using Ranks = std::vector<int>;

/// Ranks of each rail within a part, both in ascending order.
std::map<int, Ranks> by_rail(const topology::Topology& topology, const Ranks& part) {
  std::map<int, Ranks> rails;
  for (const int r : part) rails[topology.rank(r).rail].push_back(r);
  return rails;
}

size_t index_in(const Ranks& ranks, int rank) {
  return static_cast<size_t>(std::find(ranks.begin(), ranks.end(), rank) - ranks.begin());
}

}  // namespace

Shards::Shards(const topology::Topology& topology, const std::vector<int>& members,
               const std::vector<int>& part_of)
    : column_(static_cast<size_t>(topology.size()), -1) {
  std::map<int, size_t> index_of;
  for (const int r : members) {
    const auto [where, is_new] =
        index_of.try_emplace(part_of[static_cast<size_t>(r)], parts_.size());
    if (is_new) parts_.emplace_back();
    parts_[where->second].push_back(r);
  }

  // Candidates to own a shard: per rail (or for lack of a common one, per part) and part.
  std::vector<std::vector<Ranks>> lines;
  std::vector<std::map<int, Ranks>> rails;
  const bool one_host = std::all_of(members.begin(), members.end(), [&](int r) {
    return topology.rank(r).host == topology.rank(members.front()).host;
  });
  for (const Ranks& part : parts_) rails.push_back(by_rail(topology, part));
  for (const auto& [rail, first] : rails.front()) {
    const bool common = std::all_of(rails.begin(), rails.end(),
                                    [r = rail](const auto& part) { return part.contains(r); });
    if (!common || one_host) continue;
    lines.emplace_back();
    for (const auto& part : rails) lines.back().push_back(part.at(rail));
  }
  if (lines.empty()) lines.push_back(parts_);

  for (size_t line = 0; line < lines.size(); line++) {
    size_t most = 0;
    for (const Ranks& ranks : lines[line]) most = std::max(most, ranks.size());
    for (size_t i = 0; i < most; i++) {
      places_.push_back({line, lines.size(), i, most});
      owners_.emplace_back();
      for (const Ranks& ranks : lines[line]) {
        // Neighbouring shards for one owner: its piece stays one range.
        owners_.back().push_back(ranks[i * ranks.size() / most]);
      }
    }
  }

  for (int p = 0; p < parts(); p++) {
    int next = 0;
    for (int s = count() - 1; s >= 0; s--) column_[static_cast<size_t>(owner(s, p))] = s;
    for (const int r : part(p)) {
      if (column_of(r) < 0) column_[static_cast<size_t>(r)] = next++ % count();
    }
  }
}

int Shards::part_with(int rank) const {
  for (int p = 0; p < parts(); p++) {
    if (std::find(part(p).begin(), part(p).end(), rank) != part(p).end()) return p;
  }
  return -1;
}

std::vector<int> Shards::owned_by(int rank) const {
  std::vector<int> owned;
  const int p = part_with(rank);
  for (int s = 0; p >= 0 && s < count(); s++) {
    if (owner(s, p) == rank) owned.push_back(s);
  }
  return owned;
}

std::vector<int> Shards::blocks_of(int p, int shard) const {
  std::vector<int> ranks;
  for (const int r : part(p)) {
    if (column_of(r) == shard) ranks.push_back(r);
  }
  return ranks;
}

plan::Region Shards::of(const plan::Region& whole, int shard) const {
  const Place& place = places_[static_cast<size_t>(shard)];
  return whole.block(place.rail, place.rails).block(place.index, place.shards_on_rail);
}

std::vector<plan::Region> Shards::pieces(const plan::Region& whole, int p) const {
  std::vector<plan::Region> pieces(part(p).size(), whole.part(0, 0));
  for (int s = 0; s < count(); s++) {
    plan::Region& piece = pieces[index_in(part(p), owner(s, p))];
    const plan::Region shard = of(whole, s);
    if (piece.count == 0) {
      piece = shard;
    } else {
      piece.count += shard.count;
    }
  }
  return pieces;
}

std::vector<int> host_parts(const topology::Topology& topology) {
  std::vector<int> parts;
  for (const topology::Rank& rank : topology.ranks()) parts.push_back(rank.host);
  return parts;
}

bool has_rails(const topology::Topology& topology) {
  return topology.used_hosts().size() > 1 && topology.ranks_per_host_max() > 1;
}

Crossing crossing(const topology::Topology& topology, int from, int to_host) {
  const topology::Rank& source = topology.rank(from);
  const auto local = static_cast<size_t>(source.local);
  const Ranks& there = topology.ranks_of_host(to_host);
  const auto here_by_rail = by_rail(topology, topology.ranks_of_host(source.host));
  const auto there_by_rail = by_rail(topology, there);
  if (const auto same = there_by_rail.find(source.rail); same != there_by_rail.end()) {
    const size_t i = index_in(here_by_rail.at(source.rail), from);
    return {from, same->second[i % same->second.size()]};
  }
  std::vector<int> common;
  for (const auto& [rail, ranks] : here_by_rail) {
    if (there_by_rail.contains(rail)) common.push_back(rail);
  }
  if (common.empty()) return {from, there[local % there.size()]};
  const int rail = common[local % common.size()];
  const Ranks& out = here_by_rail.at(rail);
  const Ranks& in = there_by_rail.at(rail);
  return {out[local % out.size()], in[local % in.size()]};
}

void charge_all_to_all(const topology::Topology& topology, double block, bool via_rail,
                       plan::Cost& cost) {
  struct Load {
    double out = 0, spine = 0;
  };
  std::map<std::pair<int, int>, Load> nics;
  std::map<int, int> ranks_on_rail, ranks_reached;  // by rail; reached: on hosts that have the rail
  std::map<std::pair<int, int>, int> on_host_and_rail;
  const auto ranks_of = [&](int host) {
    return static_cast<int>(topology.ranks_of_host(host).size());
  };
  for (const topology::Rank& rank : topology.ranks()) {
    ranks_on_rail[rank.rail]++;
    if (on_host_and_rail[{rank.host, rank.rail}]++ == 0) {
      ranks_reached[rank.rail] += ranks_of(rank.host);
    }
  }
  for (int r = 0; r < topology.size(); r++) {
    const topology::Rank& rank = topology.rank(r);
    const int remote = topology.size() - ranks_of(rank.host);
    Load& own = nics[{rank.host, rank.nic}];
    if (!via_rail) {
      const int same_rail = ranks_on_rail[rank.rail] - on_host_and_rail[{rank.host, rank.rail}];
      own.out += remote * block;
      own.spine += (remote - same_rail) * block;
      continue;
    }
    const int reached = ranks_reached[rank.rail] - ranks_of(rank.host);
    own.out += reached * block;
    if (reached == remote) continue;
    for (const int host : topology.used_hosts()) {
      if (host == rank.host || on_host_and_rail.contains({host, rank.rail})) continue;
      const Crossing way = crossing(topology, r, host);
      Load& nic = nics[{rank.host, topology.rank(way.out).nic}];
      nic.out += ranks_of(host) * block;
      if (topology.rank(way.out).rail != topology.rank(way.in).rail) {
        nic.spine += ranks_of(host) * block;
      }
    }
  }
  for (const auto& [where, nic] : nics) {
    cost.outer_bytes = std::max(cost.outer_bytes, nic.out);
    cost.spine_bytes = std::max(cost.spine_bytes, nic.spine);
  }
}

}  // namespace railccl::algorithms
