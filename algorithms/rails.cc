// Rails: shards and their owners, crossings between hosts, and what all-to-all costs the NICs.
#include "algorithms/rails.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>

#include "algorithms/port_meter.h"

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

/// Is the NIC of `rank` up?
bool works(const topology::Topology& topology, int rank) {
  const int nic = topology.rank(rank).nic;
  return nic < 0 || topology.host_of(rank).nics[static_cast<size_t>(nic)].up;
}

Ranks that_work(const topology::Topology& topology, const Ranks& ranks) {
  Ranks working;
  for (const int r : ranks)
    if (works(topology, r)) working.push_back(r);
  return working;
}

/// What a rail carries on which `parts` have these ranks; 0 when a NIC is down, infinite where
/// nobody knows.
double speed_of(const topology::Topology& topology, const std::vector<Ranks>& parts) {
  double least = std::numeric_limits<double>::infinity();
  for (const Ranks& ranks : parts) {
    for (const int r : ranks) {
      if (!works(topology, r)) return 0;
      const int nic = topology.rank(r).nic;
      const bool known =
          nic >= 0 && topology.host_of(r).nics[static_cast<size_t>(nic)].bytes_per_s > 0;
      if (known) least = std::min(least, topology.nic_bytes_per_s(r));
    }
  }
  return least;
}

/// The shares of rails with these speeds, as whole numbers without a common divisor. Rounded down,
/// so that a slow rail never has more than its share and all others wait for it.
std::vector<uint64_t> weights_of(const std::vector<double>& speeds) {
  constexpr double kFull = 64;
  constexpr double kEqual = 0.94, kNothing = 0.02;  // of the best
  double best = 0;
  for (const double speed : speeds)
    if (std::isfinite(speed)) best = std::max(best, speed);
  if (best == 0) best = 1;  // nothing but rails that are down, or unknown
  std::vector<uint64_t> weights;
  uint64_t divisor = 0;
  for (const double speed : speeds) {
    const double share = speed / best;
    double weight = kFull;
    if (share < kEqual) weight = share < kNothing ? 0 : kFull * share;
    weights.push_back(static_cast<uint64_t>(weight));
    divisor = std::gcd(divisor, weights.back());
  }
  if (divisor == 0) return std::vector<uint64_t>(speeds.size(), 1);
  for (uint64_t& weight : weights) weight /= divisor;
  return weights;
}

}  // namespace

Shards::Shards(const topology::Topology& topology, const std::vector<int>& members,
               const std::vector<int>& part_of, const std::vector<uint64_t>& given)
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
  std::vector<uint64_t> weights;
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
    if (!given.empty()) weights.push_back(rail < 0 ? 0 : given[static_cast<size_t>(rail)]);
  }
  if (lines.empty()) lines.push_back(parts_);

  if (weights.empty()) {
    std::vector<double> speeds;
    for (const auto& line : lines) speeds.push_back(speed_of(topology, line));
    weights = weights_of(speeds);
  }
  const uint64_t units = std::accumulate(weights.begin(), weights.end(), uint64_t{0});
  uint64_t first = 0;
  for (size_t line = 0; line < lines.size(); first += weights[line++]) {
    if (weights[line] == 0) continue;
    size_t most = 0;
    for (const Ranks& ranks : lines[line]) most = std::max(most, ranks.size());
    for (size_t i = 0; i < most; i++) {
      places_.push_back({first, weights[line], units, i, most});
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
  const plan::Region begin = whole.block(place.first, place.units);
  const plan::Region last = whole.block(place.first + place.weight - 1, place.units);
  const uint64_t from = begin.offset - whole.offset;
  const uint64_t to = last.offset + last.count - whole.offset;
  return whole.part(from, to - from).block(place.index, place.shards_on_rail);
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
  const Ranks& here = topology.ranks_of_host(source.host);
  const Ranks& there = topology.ranks_of_host(to_host);
  auto here_by_rail = by_rail(topology, that_work(topology, here));
  auto there_by_rail = by_rail(topology, that_work(topology, there));
  const auto common_rails = [&] {
    std::vector<int> common;
    for (const auto& [rail, ranks] : here_by_rail) {
      if (there_by_rail.contains(rail)) common.push_back(rail);
    }
    return common;
  };
  std::vector<int> common = common_rails();
  if (common.empty()) {
    here_by_rail = by_rail(topology, here);
    there_by_rail = by_rail(topology, there);
    common = common_rails();
  }
  if (common.empty()) return {from, there[local % there.size()]};
  const auto own = here_by_rail.find(source.rail);
  if (own != here_by_rail.end() && there_by_rail.contains(source.rail)) {
    const size_t i = index_in(own->second, from);
    const Ranks& same = there_by_rail.at(source.rail);
    // One whose own NIC is down, unlike its neighbours' on the rail, is not among them.
    if (i < own->second.size()) return {from, same[i % same.size()]};
  }
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
  for (int r = 0; r < topology.size(); r++) {
    const topology::Rank& rank = topology.rank(r);
    if (via_rail && !works(topology, r)) continue;
    ranks_on_rail[rank.rail]++;
    if (on_host_and_rail[{rank.host, rank.rail}]++ == 0) {
      ranks_reached[rank.rail] += ranks_of(rank.host);
    }
  }
  const auto charge = [&](int r, int blocks, int off_rail) {
    Load& nic = nics[{topology.rank(r).host, topology.rank(r).nic}];
    const double bytes = block * slowness(topology, r);
    nic.out += blocks * bytes;
    nic.spine += off_rail * bytes;
  };
  const auto charge_way = [&](int r, int host, int blocks) {
    const Crossing way = crossing(topology, r, host);
    const bool stays = topology.rank(way.out).rail == topology.rank(way.in).rail;
    charge(way.out, blocks, stays ? 0 : blocks);
  };
  for (int r = 0; r < topology.size(); r++) {
    const topology::Rank& rank = topology.rank(r);
    const int remote = topology.size() - ranks_of(rank.host);
    if (remote == 0) continue;
    if (!via_rail) {
      const int same_rail = ranks_on_rail[rank.rail] - on_host_and_rail[{rank.host, rank.rail}];
      charge(r, remote, remote - same_rail);
      continue;
    }
    if (!works(topology, r)) {
      const std::vector<int>& hosts = topology.used_hosts();
      // Of a rail that is down everywhere the first other host stands for all.
      if (ranks_on_rail[rank.rail] == 0) {
        charge_way(r, hosts[hosts[0] == rank.host ? 1 : 0], remote);
        continue;
      }
      for (const int host : hosts)
        if (host != rank.host) charge_way(r, host, ranks_of(host));
      continue;
    }
    const int reached = ranks_reached[rank.rail] - ranks_of(rank.host);
    charge(r, reached, 0);
    if (reached == remote) continue;
    for (const int host : topology.used_hosts()) {
      if (host == rank.host || on_host_and_rail.contains({host, rank.rail})) continue;
      charge_way(r, host, ranks_of(host));
    }
  }
  for (const auto& [where, nic] : nics) {
    cost.outer_bytes = std::max(cost.outer_bytes, nic.out);
    cost.spine_bytes = std::max(cost.spine_bytes, nic.spine);
  }
}

}  // namespace railccl::algorithms
