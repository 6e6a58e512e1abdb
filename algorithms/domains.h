// Domains: hierarchies inside a host. Ranks of one domain (a last-level cache or a NUMA node) are
// near each other; bytes that cross between domains are dear, so each should cross once.
//
// The same compositions as between hosts (compose.h), with domains for parts. There are no rails
// inside a host: the data is cut evenly among the ranks of the largest domain, and equally numbered
// ranks of all domains form the group across.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "topology/topology.h"

namespace railccl::algorithms {

/// Domain of each rank: the parts of a hierarchy on one host.
inline std::vector<int> domain_parts(const topology::Topology& topology) {
  std::vector<int> parts;
  for (const topology::Rank& rank : topology.ranks()) parts.push_back(rank.domain);
  return parts;
}

/// One host with several domains, of which one has several ranks: what domain algorithms are for.
inline bool has_domains(const topology::Topology& topology) {
  if (topology.used_hosts().size() != 1) return false;
  const int domains = topology.domains_of_host(topology.used_hosts()[0]);
  return domains > 1 && domains < topology.size();
}

/// Ranks of each domain, by (host, domain).
inline std::map<std::pair<int, int>, int> domain_sizes(const topology::Topology& topology) {
  std::map<std::pair<int, int>, int> sizes;
  for (const topology::Rank& rank : topology.ranks()) sizes[{rank.host, rank.domain}]++;
  return sizes;
}

/// Of what a rank exchanges with all others of its host alike, the share that crosses domains; of
/// the rank where it is largest.
inline double cross_share(const topology::Topology& topology) {
  double share = 0;
  for (const auto& [place, size] : domain_sizes(topology)) {
    const auto local = static_cast<double>(topology.ranks_of_host(place.first).size());
    if (local > 1) share = std::max(share, (local - size) / (local - 1));
  }
  return share;
}

}  // namespace railccl::algorithms
