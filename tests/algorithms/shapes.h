// Shapes: clusters for tests, written down in one line, and one call that checks a plan on them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "algorithms/algorithm.h"
#include "build_kind.h"
#include "plan/checker.h"
#include "topology/topology.h"

namespace railccl::algorithms {

/// `ranks[h]` ranks on host h, which has one NIC on each of `rails[h]` (maybe none); local rank i
/// sits on NIC i modulo their number. Ranks are numbered host by host, or dealt out round-robin
/// over the hosts.
struct Shape {
  std::string name;
  std::vector<int> ranks;
  std::vector<std::vector<int>> rails;
  bool round_robin = false;

  /// The rails on which every host that has ranks has one: those that never need to be left.
  std::vector<int> common_rails() const {
    std::vector<int> common;
    for (int rail = 0; rail < 64; rail++) {
      bool everywhere = true;
      for (size_t h = 0; h < ranks.size(); h++) {
        const auto at = std::find(rails[h].begin(), rails[h].end(), rail) - rails[h].begin();
        everywhere = everywhere && (ranks[h] == 0 ||
                                    at < std::min<std::ptrdiff_t>(ranks[h], std::ssize(rails[h])));
      }
      if (everywhere) common.push_back(rail);
    }
    return common;
  }
};

inline std::vector<int> rails_0_to(int n) {
  std::vector<int> rails;
  for (int i = 0; i < n; i++) rails.push_back(i);
  return rails;
}

/// `hosts` equal hosts.
inline Shape regular(int hosts, int ranks, int rails, bool round_robin = false) {
  const auto n = static_cast<size_t>(hosts);
  return {std::to_string(hosts) + "x" + std::to_string(ranks) + "/" + std::to_string(rails) +
              (round_robin ? " dealt" : ""),
          std::vector<int>(n, ranks), std::vector<std::vector<int>>(n, rails_0_to(rails)),
          round_robin};
}

inline topology::Topology topology_of(const Shape& shape) {
  std::vector<topology::Host> hosts;
  int rail_count = 0;
  for (size_t h = 0; h < shape.ranks.size(); h++) {
    topology::Host host;
    host.name = "host" + std::to_string(h);
    host.id = h + 1;
    for (const int rail : shape.rails[h]) {
      topology::Nic nic;
      nic.name = "nic" + std::to_string(rail);
      nic.bytes_per_s = 10e9;
      nic.rail = rail;
      host.nics.push_back(nic);
      rail_count = std::max(rail_count, rail + 1);
    }
    hosts.push_back(host);
  }
  std::vector<topology::Rank> ranks;
  const auto add = [&](size_t h, int local) {
    topology::Rank rank;
    rank.host = static_cast<int>(h);
    rank.process = ranks.size() + 1;
    if (!shape.rails[h].empty()) {
      rank.nic = local % static_cast<int>(shape.rails[h].size());
      rank.rail = shape.rails[h][static_cast<size_t>(rank.nic)];
    }
    ranks.push_back(rank);
  };
  if (shape.round_robin) {
    const int most = *std::max_element(shape.ranks.begin(), shape.ranks.end());
    for (int local = 0; local < most; local++) {
      for (size_t h = 0; h < shape.ranks.size(); h++) {
        if (local < shape.ranks[h]) add(h, local);
      }
    }
  } else {
    for (size_t h = 0; h < shape.ranks.size(); h++) {
      for (int local = 0; local < shape.ranks[h]; local++) add(h, local);
    }
  }
  return topology::Topology(
      hosts, std::vector<topology::Rail>(static_cast<size_t>(rail_count), {"written down", 10e9}),
      ranks);
}

inline plan::CheckOptions options_of(const topology::Topology& topology) {
  plan::CheckOptions options;
  for (const topology::Rank& rank : topology.ranks()) {
    options.host_of.push_back(rank.host);
    options.rail_of.push_back(rank.rail);
  }
  return options;
}

inline plan::Request request_of(Collective collective, uint64_t count, bool in_place = false,
                                int root = 0) {
  plan::Request request;
  request.collective = collective;
  request.op = reduces(collective) ? Reduction::sum : Reduction::none;
  request.count = count;
  request.in_place = in_place;
  request.root = root;
  return request;
}

inline Result<plan::CheckReport> check_on(const Algorithm& algorithm, const plan::Request& request,
                                          const topology::Topology& topology,
                                          const plan::Tuning& tuning) {
  return plan::check(
      request, topology.size(),
      [&](int rank) { return algorithm.build(request, topology, tuning, rank); },
      options_of(topology));
}

/// The bytes that leave the most loaded NIC, by the checker's count.
inline uint64_t nic_bytes(const plan::CheckReport& report, const topology::Topology& topology) {
  std::map<std::pair<int, int>, uint64_t> out, in;
  uint64_t most = 0;
  for (const auto& [edge, bytes] : report.bytes) {
    const topology::Rank& from = topology.rank(edge.first);
    const topology::Rank& to = topology.rank(edge.second);
    if (from.host == to.host) continue;
    most = std::max(most, out[{from.host, from.nic}] += bytes);
    most = std::max(most, in[{to.host, to.nic}] += bytes);
  }
  return most;
}

/// The bytes that one rank sends to others of its host, or takes in, whichever is more.
inline uint64_t port_bytes(const plan::CheckReport& report, const topology::Topology& topology) {
  std::vector<uint64_t> out(static_cast<size_t>(topology.size())), in(out.size());
  for (const auto& [edge, bytes] : report.bytes) {
    if (topology.rank(edge.first).host != topology.rank(edge.second).host) continue;
    out[static_cast<size_t>(edge.first)] += bytes;
    in[static_cast<size_t>(edge.second)] += bytes;
  }
  return std::max(*std::max_element(out.begin(), out.end()),
                  *std::max_element(in.begin(), in.end()));
}

/// Steps of rank 5's program: loops over chunks keep it as long for a gigabyte as for a few chunks.
inline size_t program_length(const Algorithm& algorithm, const topology::Topology& topology,
                             uint64_t count, const plan::Tuning& tuning) {
  const auto program =
      algorithm.build(request_of(algorithm.collective, count), topology, tuning, 5);
  EXPECT_TRUE(program.is_ok());
  size_t sum = 0;
  for (const plan::Channel& channel : program->channels) sum += channel.steps.size();
  return sum;
}

}  // namespace railccl::algorithms
