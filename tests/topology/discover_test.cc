// Shows that rails are found from measurements in flat networks, whatever the order of cables: on
// modelled fabrics, whose leaf uplinks share their capacity among what crosses them, with noise,
// missing NICs and failures; that nothing is found where there is nothing; and that what hostile
// machines report does no harm.
#include "topology/discover.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/random.h"
#include "topology/merge.h"
#include "topology/rails.h"

namespace railccl::topology {
namespace {

using testing::HasSubstr;

/// Hosts whose NICs share 10.78.0.0/16; leaf[h][n] is where NIC n of host h is cabled to.
struct Fabric {
  std::vector<std::vector<int>> leaf;
  double oversubscription = 4;
  double noise = 0;           // +- of each measurement
  double far_round_trip = 1;  // times a near one
  Random random{1};

  std::vector<Host> hosts() const {
    std::vector<Host> made;
    for (size_t h = 0; h < leaf.size(); h++) {
      Host host;
      host.name = fmt::format("h{}", h);
      host.id = h + 1;
      for (size_t n = 0; n < leaf[h].size(); n++) {
        Nic nic;
        nic.name = fmt::format("eth{}", n);
        nic.bytes_per_s = 25e6;
        nic.addresses = {fmt::format("10.78.{}.{}/16", n, h + 1)};
        host.nics.push_back(nic);
      }
      made.push_back(host);
    }
    return made;
  }

  int leaf_of(const NicAt& at) const {
    return leaf[static_cast<size_t>(at.host)][static_cast<size_t>(at.nic)];
  }

  /// What a round shows: links of 25 MB/s, and between leaves a part of what all NICs can send.
  std::vector<Sample> measure(const std::vector<Flow>& flows) {
    std::map<int, double> up, down, ports;
    for (const auto& host : leaf)
      for (const int l : host) ports[l]++;
    for (const Flow& flow : flows)
      if (leaf_of(flow.from) != leaf_of(flow.to)) {
        up[leaf_of(flow.from)]++;
        down[leaf_of(flow.to)]++;
      }
    std::vector<Sample> samples;
    for (const Flow& flow : flows) {
      const int a = leaf_of(flow.from), b = leaf_of(flow.to);
      const double share = a == b ? 1
                                  : std::min({1.0, ports[a] / oversubscription / up[a],
                                              ports[b] / oversubscription / down[b]});
      const double trip = 40e-6 * (a == b ? 1 : far_round_trip);
      samples.push_back({flow.from, flow.to, 25e6 * share * wobble(), trip * wobble()});
    }
    return samples;
  }
  double wobble() { return 1 + noise * (2 * random.uniform() - 1); }

  std::vector<Sample> probe(const FlatNetwork& network) {
    std::vector<Sample> samples;
    for (const auto& round : probe_rounds(network))
      for (const Sample& sample : measure(round)) samples.push_back(sample);
    return samples;
  }

  /// Are all NICs of each rail on one leaf?
  bool right(const Discovery& found) const {
    size_t nics = 0, all = 0;
    for (const auto& rail : found.rails) {
      nics += rail.size();
      for (const NicAt& at : rail)
        if (leaf_of(at) != leaf_of(rail.front())) return false;
    }
    for (const auto& host : leaf) all += host.size();
    return nics == all;
  }
};

FlatNetwork network_of(const std::vector<Host>& hosts) {
  const std::optional<FlatNetwork> network = flat_network(hosts);
  EXPECT_TRUE(network.has_value());
  return network.value_or(FlatNetwork());
}

TEST(Discover, OnlyFlatNetworksNeedIt) {
  Fabric fabric;
  fabric.leaf = {{0, 1}, {1, 0}};
  std::vector<Host> hosts = fabric.hosts();
  const FlatNetwork network = network_of(hosts);
  EXPECT_EQ(network.name, "subnet 10.78.0.0/16");
  EXPECT_EQ(network.ports_max(), 2u);
  EXPECT_EQ(network.hosts[1][1].address, "10.78.1.2/16");

  std::vector<Host> apart = hosts;  // a subnet for each rail
  for (size_t h = 0; h < 2; h++)
    for (size_t n = 0; n < 2; n++)
      apart[h].nics[n].addresses = {fmt::format("10.78.{}.{}/24", n, h + 1)};
  EXPECT_FALSE(flat_network(apart).has_value());
  EXPECT_FALSE(flat_network({hosts[0]}).has_value()) << "one host";
  std::vector<Host> one_nic = hosts;
  for (Host& host : one_nic) host.nics.resize(1);
  EXPECT_FALSE(flat_network(one_nic).has_value());
  std::vector<Host> by_hand = hosts;
  by_hand[1].nics[0].rail = 0;
  EXPECT_FALSE(flat_network(by_hand).has_value());
  std::vector<Host> down = hosts;
  down[0].nics[0].up = down[1].nics[1].up = false;
  EXPECT_FALSE(flat_network(down).has_value()) << "nothing to tell apart is up";
  std::vector<Host> infiniband = hosts;
  for (Host& host : infiniband)
    for (Nic& nic : host.nics) nic.neighbourhood = "ib subnet fe80::/64";
  EXPECT_EQ(network_of(infiniband).hosts[0][1].address, "10.78.1.1/16");
  for (Host& host : infiniband)
    for (Nic& nic : host.nics) nic.addresses.clear();
  EXPECT_FALSE(flat_network(infiniband).has_value()) << "no address to measure from";
}

TEST(Discover, RoundsCoverEachPairOnceAndLoadEachNicOnce) {
  Fabric fabric;
  fabric.leaf = {{0, 1, 2}, {0, 1}, {0, 1, 2}, {0}};
  const auto rounds = probe_rounds(network_of(fabric.hosts()));
  EXPECT_EQ(rounds.size(), 6u);
  std::map<std::pair<NicAt, NicAt>, int> turns;
  for (size_t r = 0; r < rounds.size(); r++) {
    std::map<NicAt, int> sends, receives;
    for (const Flow& flow : rounds[r]) {
      EXPECT_EQ((flow.from.host + (r < 3 ? 1 : 2)) % 4, flow.to.host);
      EXPECT_EQ(++sends[flow.from], 1);
      EXPECT_EQ(++receives[flow.to], 1);
      turns[{flow.from, flow.to}]++;
    }
  }
  EXPECT_EQ(turns.size(), (3u * 2 + 2 * 3 + 3 * 1 + 1 * 3) + (3 * 3 + 2 * 1 + 3 * 3 + 1 * 2));
  for (const auto& [pair, count] : turns) EXPECT_EQ(count, 1);
}

TEST(Discover, FindsRailsByBandwidthUnderNoise) {
  for (const size_t rails : {2, 4, 8})
    for (const size_t hosts : {2, 3, 4, 8, 33})
      for (uint64_t seed = 1; seed <= 10; seed++) {
        Fabric fabric;
        fabric.random = Random(seed);
        fabric.noise = 0.1;
        for (size_t h = 0; h < hosts; h++) {  // as the lab's cables: each host turned and mirrored
          fabric.leaf.emplace_back();
          for (size_t n = 0; n < rails; n++)
            fabric.leaf[h].push_back(
                static_cast<int>((h % 2 == 0 ? h + n : h + rails * hosts - n) % rails));
        }
        const FlatNetwork network = network_of(fabric.hosts());
        Discovery found = discover(network, fabric.probe(network));
        ASSERT_EQ(found.by, FoundBy::bandwidth) << rails << " " << hosts << " " << seed;
        ASSERT_EQ(found.rails.size(), rails) << hosts << " " << seed;
        ASSERT_TRUE(fabric.right(found)) << rails << " " << hosts << " " << seed;
        std::vector<Sample> samples = fabric.measure(flows_inside(network, found));
        for (const Sample& one : fabric.measure(flows_across(network, found)))
          samples.push_back(one);
        ASSERT_TRUE(confirm(samples, &found));
        EXPECT_NEAR(found.oversubscription, 4, 0.8);
      }
}

TEST(Discover, RandomCables) {
  for (uint64_t seed = 1; seed <= 50; seed++) {
    Fabric fabric;
    fabric.random = Random(seed);
    fabric.noise = 0.05;
    for (size_t h = 0; h < 8; h++) {
      std::vector<int> leaves = {0, 1, 2, 3};
      for (size_t n = 3; n > 0; n--) std::swap(leaves[n], leaves[fabric.random.below(n + 1)]);
      fabric.leaf.push_back(leaves);
    }
    const FlatNetwork network = network_of(fabric.hosts());
    const Discovery found = discover(network, fabric.probe(network));
    ASSERT_EQ(found.by, FoundBy::bandwidth) << seed;
    ASSERT_TRUE(fabric.right(found)) << seed;
  }
}

TEST(Discover, FindsRailsByLatencyWhereTheSpineIsWide) {
  Fabric fabric;
  fabric.leaf = {{0, 1, 2}, {2, 0, 1}, {1, 2, 0}, {0, 1, 2}};
  fabric.oversubscription = 1;
  fabric.far_round_trip = 1.6;
  fabric.noise = 0.05;
  const FlatNetwork network = network_of(fabric.hosts());
  Discovery found = discover(network, fabric.probe(network));
  EXPECT_EQ(found.by, FoundBy::latency);
  EXPECT_TRUE(fabric.right(found));
  EXPECT_TRUE(confirm(fabric.measure(flows_inside(network, found)), &found));
  EXPECT_EQ(found.oversubscription, 1);
  EXPECT_THAT(text_of(found), HasSubstr("3 rails, told by latency"));
}

TEST(Discover, PairsByOrderWhereNothingTells) {
  Fabric fabric;
  fabric.leaf = {{0, 0, 0}, {0, 0}, {0, 0, 0}};
  fabric.noise = 0.1;
  const FlatNetwork network = network_of(fabric.hosts());
  const Discovery found = discover(network, fabric.probe(network));
  EXPECT_EQ(found.by, FoundBy::order);
  const std::vector<std::vector<NicAt>> rails = {
      {{0, 0}, {1, 0}, {2, 0}}, {{0, 1}, {1, 1}, {2, 1}}, {{0, 2}, {2, 2}}};
  EXPECT_EQ(found.rails, rails);
  EXPECT_EQ(discover(network, {}).rails, rails) << "nothing measured";
}

TEST(Discover, ChanceDifferencesAreNotBelieved) {
  int believed = 0;
  for (uint64_t seed = 1; seed <= 100; seed++) {
    Fabric fabric;
    fabric.random = Random(seed);
    fabric.leaf = {{0, 0}, {0, 0}, {0, 0}, {0, 0}};
    fabric.noise = 0.5;  // a machine that does something else, too
    const FlatNetwork network = network_of(fabric.hosts());
    Discovery found = discover(network, fabric.probe(network));
    std::vector<Sample> samples = fabric.measure(flows_inside(network, found));
    for (const Sample& one : fabric.measure(flows_across(network, found))) samples.push_back(one);
    believed += found.by == FoundBy::bandwidth && confirm(samples, &found) ? 1 : 0;
  }
  EXPECT_LE(believed, 5);
}

TEST(Discover, MissingNicsAndFailuresAreMadeUpForByElimination) {
  Fabric fabric;
  fabric.leaf = {{0, 1, 2}, {2, 1, 0}, {1, 0, 2}, {0, 2, 1}};
  std::vector<Host> hosts = fabric.hosts();
  hosts[2].nics[1].up = false;
  const FlatNetwork network = network_of(hosts);
  std::vector<Sample> samples = fabric.probe(network);
  for (Sample& sample : samples)
    if (sample.from == NicAt{0, 2} || sample.to == NicAt{0, 2})
      sample.bytes_per_s = 0;  // its connections fail
  const Discovery found = discover(network, samples);
  EXPECT_EQ(found.by, FoundBy::bandwidth);
  EXPECT_EQ(found.rails.size(), 3u);
  EXPECT_TRUE(fabric.right(found)) << "each has one NIC left for the one rail left";
}

TEST(Discover, SeveralNicsOnOneLeafBecomeRailsOfTheirOwn) {
  Fabric fabric;
  fabric.leaf = {{0, 1, 0, 1}, {0, 0, 1, 1}, {1, 1, 0, 0}};
  const FlatNetwork network = network_of(fabric.hosts());
  Discovery found = discover(network, fabric.probe(network));
  EXPECT_EQ(found.by, FoundBy::bandwidth);
  EXPECT_EQ(found.rails.size(), 4u);
  EXPECT_TRUE(fabric.right(found));
  for (const Flow& flow : flows_across(network, found))
    EXPECT_NE(fabric.leaf_of(flow.from), fabric.leaf_of(flow.to));
  for (const Flow& flow : flows_inside(network, found))
    EXPECT_EQ(fabric.leaf_of(flow.from), fabric.leaf_of(flow.to));
}

TEST(Discover, AnUnconfirmedDifferenceIsNoRail) {
  Fabric fabric;
  fabric.leaf = {{0, 1}, {1, 0}, {0, 1}};
  const FlatNetwork network = network_of(fabric.hosts());
  Discovery found = discover(network, fabric.probe(network));
  ASSERT_EQ(found.by, FoundBy::bandwidth);
  fabric.oversubscription = 1;  // there was something else on the spine
  std::vector<Sample> samples = fabric.measure(flows_inside(network, found));
  for (const Sample& one : fabric.measure(flows_across(network, found))) samples.push_back(one);
  EXPECT_FALSE(confirm(samples, &found));
}

TEST(Discover, HostileSamplesDoNoHarm) {
  Fabric fabric;
  fabric.leaf = {{0, 1}, {1, 0}, {0, 1}, {1, 0}};
  const FlatNetwork network = network_of(fabric.hosts());
  const std::vector<Sample> honest = fabric.probe(network);
  const double bad[] = {0, -1, -1e300, 1e-300, std::numeric_limits<double>::infinity(), NAN};
  std::vector<Sample> samples = honest;
  for (const double value : bad) {
    samples.push_back({{7, 0}, {0, 1}, value, value});
    samples.push_back({{0, 99}, {1, 0}, value, value});
    samples.push_back({{-1, -1}, {1, 0}, value, value});
    samples.push_back({{0, 0}, {0, 1}, value, value});
  }
  samples.push_back({{2, 0}, {3, 1}, INFINITY, INFINITY});
  samples.push_back({{2, 0}, {3, 1}, NAN, NAN});
  const Discovery found = discover(network, samples);
  EXPECT_EQ(found.by, FoundBy::bandwidth);
  EXPECT_TRUE(fabric.right(found));
  for (const double value : bad) {
    std::vector<Sample> all_bad = honest;
    for (Sample& sample : all_bad) sample.bytes_per_s = sample.round_trip_s = value;
    EXPECT_EQ(discover(network, all_bad).by, FoundBy::order) << value;
  }
}

TEST(Discover, BecomesRailsWithReasons) {
  Fabric fabric;
  fabric.leaf = {{0, 1}, {1, 0}, {0, 1}};
  std::vector<Host> hosts = fabric.hosts();
  const FlatNetwork network = network_of(hosts);
  const Discovery found = discover(network, fabric.probe(network));
  std::vector<Host*> pointers;
  for (Host& host : hosts) pointers.push_back(&host);
  mark_rails(found, pointers);
  const std::vector<Rail> rails = form_rails(hosts);
  ASSERT_EQ(rails.size(), 2u);
  EXPECT_EQ(hosts[0].nics[0].rail, 0);
  EXPECT_EQ(hosts[1].nics[1].rail, 0);
  EXPECT_EQ(hosts[1].nics[0].rail, 1);
  EXPECT_EQ(rails[0].reason.find("probed rail 0 (25 MB/s and 0.04 ms inside, "), 0u)
      << rails[0].reason;
  EXPECT_THAT(rails[0].reason, HasSubstr("to others) joins eth0, eth1 of 3 hosts"));
  EXPECT_FALSE(flat_network(hosts).has_value()) << "known now";
  Discovery wrong = found;  // another cluster's: what does not exist is passed over
  wrong.rails[0].push_back({9, 0});
  wrong.rails[0].push_back({0, 9});
  mark_rails(wrong, pointers);
}

}  // namespace
}  // namespace railccl::topology
