// Shows that merging is a pure function of the facts: permuting ranks permutes the result and
// nothing else, exchange as text changes nothing, and NICs are dealt near and evenly. Hand-made and
// seeded random clusters.
#include "topology/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "base/random.h"

namespace railccl::topology {
namespace {

Nic nic(const std::string& name, int numa, const std::string& address, double speed = 10e9) {
  Nic made;
  made.name = name;
  made.numa = numa;
  made.bytes_per_s = speed;
  if (!address.empty()) made.addresses = {address};
  return made;
}

/// Host h with `nics` NICs on rails 1.. by subnet, dealt over two NUMA nodes.
Host host_of(int h, int nics) {
  Host host;
  host.name = fmt::format("h{}", h);
  host.id = static_cast<uint64_t>(h) + 1;
  host.numas.resize(2);
  for (int n = 0; n < nics; n++)
    host.nics.push_back(
        nic(fmt::format("eth{}", n), n * 2 / nics, fmt::format("10.0.{}.{}/24", n + 1, h + 1)));
  return host;
}

Facts fact_of(const Host& host, uint64_t process, int numa = -1, int gpu = -1) {
  Facts facts;
  facts.host = host;
  facts.process = process;
  facts.numa = numa;
  facts.gpu = gpu;
  return facts;
}

std::vector<Facts> random_facts(uint64_t seed) {
  Random random(seed);
  std::vector<Facts> facts;
  const int hosts = 1 + static_cast<int>(random.below(5));
  for (int h = 0; h < hosts; h++) {
    Host host = host_of(h, static_cast<int>(random.below(6)));
    for (Nic& n : host.nics) {
      n.up = !random.chance(0.2);
      if (random.chance(0.2)) n.bytes_per_s = 0;
      if (random.chance(0.2)) n.numa = -1;
    }
    host.gpus.resize(random.below(4));
    const uint64_t ranks = 1 + random.below(9);
    for (uint64_t r = 0; r < ranks; r++)
      facts.push_back(fact_of(host, 100 * host.id + r / 2, static_cast<int>(random.below(3)) - 1,
                              static_cast<int>(random.below(host.gpus.size() + 1)) - 1));
  }
  return facts;
}

TEST(Merge, HostsProcessesAndOrder) {
  const Host a = host_of(0, 1), b = host_of(1, 1);
  const Topology t = merge({fact_of(b, 9), fact_of(a, 1), fact_of(b, 9), fact_of(a, 2)});
  ASSERT_EQ(t.hosts().size(), 2u);
  EXPECT_EQ(t.hosts()[0].name, "h1");  // in the order of their first ranks
  EXPECT_EQ(t.ranks_of_host(0), (std::vector<int>{0, 2}));
  EXPECT_TRUE(t.path(0, 2).same_process);
  EXPECT_FALSE(t.path(1, 3).same_process);
  EXPECT_TRUE(t.path(1, 3).same_host);
  EXPECT_EQ(t.rails().size(), 1u);
  EXPECT_FALSE(t.path(0, 1).crosses_spine);
}

TEST(Merge, TheSameAfterTheExchange) {
  for (uint64_t seed = 0; seed < 200; seed++) {
    const std::vector<Facts> facts = random_facts(seed);
    std::vector<Facts> received;
    for (const Facts& fact : facts) {
      Result<Facts> read = decode(encode(fact));
      ASSERT_TRUE(read.is_ok()) << seed << ": " << read.status().text();
      EXPECT_EQ(*read, fact) << seed;
      received.push_back(std::move(read).value());
    }
    EXPECT_EQ(merge(received), merge(facts)) << seed;
  }
}

TEST(Merge, PermutingRanksOfAHostPermutesNothingElse) {
  for (uint64_t seed = 0; seed < 300; seed++) {
    std::vector<Facts> facts = random_facts(seed);
    const Topology before = merge(facts);
    // Reorder by a random permutation and look each rank up again by its facts.
    std::vector<size_t> order(facts.size());
    std::iota(order.begin(), order.end(), 0);
    Random random(seed + 1000);
    for (size_t i = order.size(); i > 1; i--) std::swap(order[i - 1], order[random.below(i)]);
    std::vector<Facts> shuffled;
    for (const size_t old : order) shuffled.push_back(facts[old]);
    const Topology after = merge(shuffled);

    ASSERT_EQ(after.hosts().size(), before.hosts().size());
    ASSERT_EQ(after.rails().size(), before.rails().size()) << seed;
    // Rails may be numbered anew, so they are compared by the subnet that made them.
    std::map<std::string, std::multiset<std::string>> nics_before, nics_after;
    for (const auto& [topology, nics] :
         {std::pair(&before, &nics_before), std::pair(&after, &nics_after)})
      for (const Host& host : topology->hosts())
        for (const Nic& n : host.nics)
          (*nics)[n.rail < 0 ? "none" : n.neighbourhood].insert(host.name + n.name);
    EXPECT_EQ(nics_before, nics_after) << seed;
    for (size_t r = 0; r < order.size(); r++) {
      const Rank& moved = after.rank(static_cast<int>(r));
      const Rank& old = before.rank(static_cast<int>(order[r]));
      EXPECT_EQ(moved.process, old.process);
      EXPECT_EQ(after.hosts()[static_cast<size_t>(moved.host)].id,
                before.hosts()[static_cast<size_t>(old.host)].id);
      EXPECT_EQ(moved.nic < 0, old.nic < 0);
    }
  }
}

TEST(Nics, AreSpreadEvenly) {
  for (int nics = 1; nics <= 8; nics++)
    for (int ranks = 1; ranks <= 17; ranks++) {
      std::vector<Facts> facts;
      for (int h = 0; h < 2; h++)
        for (int r = 0; r < ranks; r++)
          facts.push_back(fact_of(host_of(h, nics), static_cast<uint64_t>(h * 100 + r)));
      const Topology t = merge(facts);
      std::vector<int> users(static_cast<size_t>(nics), 0);
      for (const int r : t.ranks_of_host(0)) {
        ASSERT_GE(t.rank(r).nic, 0);
        users[static_cast<size_t>(t.rank(r).nic)]++;
        EXPECT_EQ(t.rank(r).rail, t.rank(r).local % nics);
        EXPECT_EQ(t.rank(r).rail, t.rank(r + ranks).rail);  // its twin on the other host
      }
      const auto [least, most] = std::minmax_element(users.begin(), users.end());
      EXPECT_LE(*most - *least, 1) << nics << " NICs, " << ranks << " ranks";
    }
}

TEST(Nics, NearOnesFirst) {
  // Ranks are bound to NUMA nodes in reverse: each still gets a NIC of its own node.
  std::vector<Facts> facts;
  for (int h = 0; h < 2; h++)
    for (int r = 0; r < 8; r++)
      facts.push_back(fact_of(host_of(h, 4), static_cast<uint64_t>(h * 100 + r), r < 4 ? 1 : 0));
  const Topology t = merge(facts);
  std::map<int, int> users;
  for (const int r : t.ranks_of_host(0)) {
    const Nic& n = t.hosts()[0].nics[static_cast<size_t>(t.rank(r).nic)];
    EXPECT_EQ(n.numa, t.rank(r).numa) << why_nic(t, r);
    EXPECT_THAT(why_nic(t, r), testing::HasSubstr("on the same NUMA node, shared by 2 ranks"));
    users[t.rank(r).nic]++;
  }
  for (const auto& [n, count] : users) EXPECT_EQ(count, 2) << n;
}

TEST(Nics, SpreadBeatsNearness) {
  // All ranks sit on node 0, but half of the wires hang off node 1.
  std::vector<Facts> facts;
  for (int r = 0; r < 4; r++) facts.push_back(fact_of(host_of(0, 4), static_cast<uint64_t>(r), 0));
  std::set<int> used;
  const Topology t = merge(facts);
  for (const Rank& rank : t.ranks()) used.insert(rank.nic);
  EXPECT_EQ(used.size(), 4u);
}

TEST(Nics, TheSamePciSwitchBeatsTheSameNumaNode) {
  Host host = host_of(0, 2);
  host.nics[0].numa = host.nics[1].numa = 0;
  host.nics[0].upstream = "0000:20:01.0";
  host.nics[1].upstream = "0000:10:01.0";
  host.gpus = {{"g", "", 0, "0000:10:01.0"}, {"g", "", 0, "0000:20:01.0"}};
  const Topology t = merge({fact_of(host, 1, -1, 0), fact_of(host, 2, -1, 1)});
  EXPECT_EQ(t.rank(0).nic, 1);
  EXPECT_EQ(t.rank(1).nic, 0);
  EXPECT_THAT(why_nic(t, 0), testing::HasSubstr("behind the same PCI switch"));
}

TEST(Nics, AHostThatLostARailKeepsTheOthersInPlace) {
  std::vector<Facts> facts;
  for (int h = 0; h < 3; h++) {
    Host host = host_of(h, 4);
    for (Nic& n : host.nics) n.numa = -1;
    host.nics[2].up = h != 1;
    for (int r = 0; r < 4; r++) facts.push_back(fact_of(host, static_cast<uint64_t>(h * 10 + r)));
  }
  const Topology t = merge(facts);
  ASSERT_EQ(t.rails().size(), 4u);
  for (const int local : {0, 1, 3}) EXPECT_EQ(t.rank(4 + local).rail, local);
  EXPECT_NE(t.rank(4 + 2).rail, 2);
  EXPECT_GE(t.rank(4 + 2).nic, 0);
  for (int local = 0; local < 4; local++) EXPECT_EQ(t.rank(8 + local).rail, local);
}

TEST(Nics, SlowDownAndRaillessOnesAreLeftAlone) {
  std::vector<Facts> facts;
  for (int h = 0; h < 2; h++) {
    Host host = host_of(h, 2);
    host.nics.insert(host.nics.begin(),
                     nic("mgmt", 0, fmt::format("192.168.0.{}/24", h + 1), 125e6));
    host.nics.push_back(nic("private", 0, fmt::format("10.9.{}.1/24", h), 100e9));
    for (int r = 0; r < 3; r++) facts.push_back(fact_of(host, static_cast<uint64_t>(h * 10 + r)));
  }
  const Topology t = merge(facts);
  ASSERT_EQ(t.rails().size(), 3u);  // management is a rail of its own, only a slow one
  for (int r = 0; r < t.size(); r++) {
    const std::string& name = t.host_of(r).nics[static_cast<size_t>(t.rank(r).nic)].name;
    EXPECT_TRUE(name == "eth0" || name == "eth1") << name;
  }
}

TEST(Nics, NoneAtAll) {
  Host down = host_of(1, 1);
  down.nics[0].up = false;
  const Topology t = merge({fact_of(host_of(0, 0), 1), fact_of(down, 2)});
  EXPECT_EQ(t.rank(0).nic, -1);
  EXPECT_EQ(why_nic(t, 0), "its host has no NIC");
  EXPECT_EQ(t.rank(1).nic, -1);
  EXPECT_EQ(why_nic(t, 1), "no NIC of its host is up");
  EXPECT_GT(t.path(0, 1).bytes_per_s, 0);
}

TEST(Merge, IndicesTheDescribingRankLacksAreDropped) {
  Host small = host_of(0, 1), big = small;
  big.numas.resize(4);
  big.gpus.resize(2);
  const Topology t = merge({fact_of(small, 1), fact_of(big, 2, 3, 1)});
  EXPECT_EQ(t.rank(1).numa, -1);
  EXPECT_EQ(t.rank(1).gpu, -1);
}

TEST(Merge, RanksMeetByCacheWhateverTheirControlGroupsShow) {
  std::vector<Facts> facts;
  for (const int cache : {0, 8, 0, 8}) {
    facts.push_back(fact_of(host_of(0, 1), facts.size(), 0));
    facts.back().cache = cache;
    facts.back().host.cores = cache + 1;
  }
  const Topology t = merge(facts);
  EXPECT_EQ(t.domains_of_host(0), 2);
  EXPECT_TRUE(t.same_domain(1, 3));
  EXPECT_FALSE(t.same_domain(1, 2));
}

}  // namespace
}  // namespace railccl::topology
