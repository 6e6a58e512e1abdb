// Shows that a Topology derives its tables from the ranks it is given, prices paths by what they
// cross, and keeps both when it is cut to a subset. Hand-made three-host topologies.
#include "topology/topology.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "rail_speeds.h"

namespace railccl::topology {
namespace {

Host host_with(std::vector<double> speeds) {
  Host host;
  host.inner_bytes_per_s = 40e9;
  host.inner_alpha_s = 1e-6;
  host.copy_bytes_per_s = 20e9;
  for (const double speed : speeds) {
    Nic nic;
    nic.bytes_per_s = speed;
    nic.rail = static_cast<int>(host.nics.size());
    host.nics.push_back(nic);
  }
  return host;
}

Rank place(int host, uint64_t process, int nic, int rail) {
  Rank rank;
  rank.host = host;
  rank.process = process;
  rank.nic = nic;
  rank.rail = rail;
  return rank;
}

/// Host 0 has ranks 0, 1 (one process) and 4; host 1 has none; host 2 has 2 and 3.
Topology three_hosts() {
  return Topology({host_with({10e9, 8e9}), host_with({}), host_with({12e9, 0})}, {{}, {}},
                  {place(0, 7, 0, 0), place(0, 7, 1, 1), place(2, 8, 0, 0), place(2, 9, 1, 1),
                   place(0, 10, 0, 0)},
                  20e-6, 4);
}

TEST(Topology, DerivesTables) {
  const Topology t = three_hosts();
  EXPECT_EQ(t.size(), 5);
  EXPECT_EQ(t.ranks_of_host(0), (std::vector<int>{0, 1, 4}));
  EXPECT_EQ(t.ranks_of_host(1), (std::vector<int>{}));
  EXPECT_EQ(t.ranks_of_host(2), (std::vector<int>{2, 3}));
  EXPECT_EQ(t.used_hosts(), (std::vector<int>{0, 2}));
  EXPECT_EQ(t.ranks_per_host_max(), 3);
  EXPECT_EQ(t.ranks_per_host_min(), 2);
  EXPECT_EQ(t.rank(4).local, 2);
  EXPECT_EQ(t.rank(3).local, 1);
}

// Containers of one machine: hosts by memory and network, but not by what runs their ranks.
TEST(Topology, HostsOfOneMachineShareItsCores) {
  Host a = host_with({10e9}), b = host_with({10e9}), c = host_with({10e9}), d = host_with({10e9});
  a.machine = b.machine = 7;
  c.machine = 8;
  const Topology t({a, b, c, d}, {{}},
                   {place(0, 1, 0, 0), place(1, 2, 0, 0), place(1, 3, 0, 0), place(2, 4, 0, 0),
                    place(3, 5, 0, 0), place(3, 6, 0, 0)});
  EXPECT_EQ(t.ranks_on_cores_of(0), 3);
  EXPECT_EQ(t.ranks_on_cores_of(1), 3);
  EXPECT_EQ(t.ranks_on_cores_of(2), 1);
  EXPECT_EQ(t.ranks_on_cores_of(3), 2);
}

TEST(Topology, PricesPaths) {
  const Topology t = three_hosts();
  const Path self = t.path(1, 1);
  EXPECT_EQ(self.alpha_s, 0);
  EXPECT_EQ(self.bytes_per_s, 20e9);
  EXPECT_TRUE(self.same_process && self.same_host);

  const Path threads = t.path(0, 1);
  EXPECT_TRUE(threads.same_process && threads.same_host);
  EXPECT_FALSE(threads.crosses_spine);  // NICs do not matter inside a host
  EXPECT_EQ(threads.bytes_per_s, 40e9);
  EXPECT_EQ(threads.alpha_s, 1e-6);
  EXPECT_FALSE(t.path(0, 4).same_process);

  const Path rail = t.path(0, 2);
  EXPECT_FALSE(rail.same_host || rail.same_process || rail.crosses_spine);
  EXPECT_EQ(rail.bytes_per_s, 10e9);  // the slower end
  EXPECT_EQ(rail.alpha_s, 20e-6);

  const Path across = t.path(1, 2);
  EXPECT_TRUE(across.crosses_spine);
  EXPECT_EQ(across.bytes_per_s, 8e9 / 4);
  EXPECT_GT(t.path(1, 3).bytes_per_s, 0);  // a NIC of unknown speed is not one of no speed
}

TEST(Topology, WithoutRailsNothingCrosses) {
  const Topology t({host_with({}), host_with({})}, {}, {place(0, 1, -1, -1), place(1, 2, -1, -1)},
                   1e-6, 4);
  EXPECT_FALSE(t.path(0, 1).crosses_spine);
  EXPECT_GT(t.path(0, 1).bytes_per_s, 0);
}

TEST(Topology, SubsetRenumbersRanksAndKeepsHosts) {
  const Topology t = three_hosts();
  const Topology s = t.subset({4, 3, 0});
  EXPECT_EQ(s.size(), 3);
  EXPECT_EQ(s.hosts(), t.hosts());
  EXPECT_EQ(s.ranks_of_host(0), (std::vector<int>{0, 2}));
  EXPECT_EQ(s.rank(0).process, 10u);
  EXPECT_EQ(s.rank(0).local, 0);
  EXPECT_EQ(s.rank(2).local, 1);
  EXPECT_EQ(s.path(1, 2).crosses_spine, t.path(3, 0).crosses_spine);
  EXPECT_EQ(s.oversubscription(), 4);
  EXPECT_EQ(t.subset({0, 1, 2, 3, 4}), t);
  EXPECT_EQ(t.subset({2}).used_hosts(), (std::vector<int>{2}));
}

/// The domains of ranks at (NUMA node, cache).
std::vector<int> domains(const std::vector<std::pair<int, int>>& places, int gpu = -1) {
  std::vector<Rank> ranks;
  for (const auto& [numa, cache] : places) {
    ranks.emplace_back();
    ranks.back().numa = numa;
    ranks.back().cache = cache;
    ranks.back().gpu = gpu;
  }
  const Topology t({host_with({})}, {}, ranks);
  std::vector<int> domains;
  for (const Rank& rank : t.ranks()) domains.push_back(rank.domain);
  if (!ranks.empty()) {
    EXPECT_EQ(t.domains_of_host(0), *std::max_element(domains.begin(), domains.end()) + 1);
  }
  return domains;
}

TEST(Topology, DomainsAreTheSmallestThatRanksShare) {
  using Domains = std::vector<int>;
  EXPECT_EQ(domains({{1, -1}, {0, -1}, {1, -1}, {3, -1}}), (Domains{0, 1, 0, 2}));
  // Caches inside a node come first, also where ranks know nothing of nodes.
  EXPECT_EQ(domains({{0, 8}, {0, 0}, {0, 8}, {1, 16}}), (Domains{0, 1, 0, 2}));
  EXPECT_EQ(domains({{-1, 0}, {-1, 8}, {-1, 0}}), (Domains{0, 1, 0}));
  // A cache that two nodes share does not make them one.
  EXPECT_EQ(domains({{0, 0}, {1, 0}, {1, 0}}), (Domains{0, 1, 1}));
  // Caches of one rank each: the nodes; nodes of one rank each: each for itself.
  EXPECT_EQ(domains({{0, 0}, {0, 8}, {1, 16}, {1, 24}}), (Domains{0, 0, 1, 1}));
  EXPECT_EQ(domains({{0, 0}, {0, 8}}), (Domains{0, 1}));
  EXPECT_EQ(domains({{0, 0}, {1, 8}}), (Domains{0, 1}));
  // What is not known of everyone does not count.
  EXPECT_EQ(domains({{0, 0}, {0, 8}, {0, 0}, {1, -1}}), (Domains{0, 0, 0, 1}));
  EXPECT_EQ(domains({{0, -1}, {1, -1}, {-1, -1}}), (Domains{0, 0, 0}));
  EXPECT_EQ(domains({{0, 0}, {0, 0}}), (Domains{0, 0}));
  // GPUs have ways of their own.
  EXPECT_EQ(domains({{0, 0}, {0, 0}, {1, 8}}, 0), (Domains{0, 0, 0}));
}

TEST(Topology, DomainsAreDerivedAnewForSubsets) {
  std::vector<Rank> ranks(6);
  for (size_t r = 0; r < ranks.size(); r++) {
    ranks[r].numa = static_cast<int>(r) / 3;
    ranks[r].cache = static_cast<int>(r) / 2 * 8;
  }
  const Topology t({host_with({})}, {}, ranks);
  EXPECT_EQ(t.domains_of_host(0), 4);  // ranks 2 and 3 share a cache, not a node
  EXPECT_TRUE(t.same_domain(0, 1));
  EXPECT_FALSE(t.same_domain(0, 2));
  const Topology s = t.subset({5, 3, 0});
  EXPECT_EQ(s.domains_of_host(0), 2);
  EXPECT_TRUE(s.same_domain(0, 1));
}

TEST(Topology, Empty) {
  const Topology t;
  EXPECT_EQ(t.size(), 0);
  EXPECT_EQ(t.ranks_per_host_max(), 0);
  EXPECT_EQ(t.ranks_per_host_min(), 0);
}

TEST(Topology, RailsTakeOtherSpeedsWithTheirNics) {
  const Topology t = three_hosts();
  EXPECT_EQ(rail_speed(t, 0), 10e9);
  EXPECT_EQ(rail_speed(t, 1), 8e9);
  EXPECT_EQ(t.nic_bytes_per_s(3), 1.25e9) << "unknown";
  EXPECT_EQ(t.slowest_nic_bytes_per_s(), 1.25e9);

  const Topology slower = with_rail_speeds(t, {2e9, -1});
  EXPECT_EQ(rail_speed(slower, 0), 2e9);
  EXPECT_EQ(slower.rails()[0].bytes_per_s, 2e9);
  EXPECT_EQ(slower.nic_bytes_per_s(0), 2e9);
  EXPECT_EQ(slower.nic_bytes_per_s(2), 2e9);
  EXPECT_EQ(rail_speed(slower, 1), 8e9);

  const Topology down = with_rail_speeds(slower, {0, 1e9});
  EXPECT_EQ(rail_speed(down, 0), 0);
  EXPECT_FALSE(down.hosts()[0].nics[0].up);
  EXPECT_LT(down.nic_bytes_per_s(0), 0.1e9) << "plans had better do without";
  EXPECT_EQ(down.slowest_nic_bytes_per_s(), down.nic_bytes_per_s(0));
  EXPECT_EQ(down.ranks(), t.ranks());

  const Topology back = with_rail_speeds(down, {10e9, 3e9});
  EXPECT_EQ(rail_speed(back, 0), 10e9);
  EXPECT_TRUE(back.hosts()[2].nics[0].up);
}

TEST(Topology, NicsOfOneHostTakeOtherSpeedsThanThoseOfOthers) {
  constexpr double kNone = -1, kAsBefore = std::numeric_limits<double>::infinity();
  const Topology t = three_hosts();
  const Topology other = t.with_nic_speeds({{kNone, 4e9}, {kNone, kNone}, {0, kNone}});
  EXPECT_EQ(other.rail_bytes_per_s(0, 0), 10e9);
  EXPECT_EQ(other.rail_bytes_per_s(1, 0), 4e9);
  EXPECT_EQ(other.rail_bytes_per_s(0, 2), 0);
  EXPECT_LT(other.rail_bytes_per_s(1, 2), 0) << "nobody knows";
  EXPECT_LT(other.rail_bytes_per_s(0, 1), 0) << "a host without ranks";
  EXPECT_EQ(other.rails()[0].bytes_per_s, 10e9) << "of those that are up";
  EXPECT_EQ(other.rails()[1].bytes_per_s, 4e9);
  const Topology back =
      other.with_nic_speeds({{kNone, 8e9}, {kNone, kNone}, {kAsBefore, kAsBefore}});
  EXPECT_EQ(back.rail_bytes_per_s(0, 2), 12e9);
  EXPECT_EQ(back.hosts(), t.hosts());
}

TEST(Topology, RailSpeedsThatAreNoneChangeNothing) {
  const Topology t = three_hosts();
  for (const double none :
       {-1.0, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    EXPECT_EQ(with_rail_speeds(t, {none, none}), t);
}

}  // namespace
}  // namespace railccl::topology
