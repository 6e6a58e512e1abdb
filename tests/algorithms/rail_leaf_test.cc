// Shows that a rail which some hosts lack costs little: who becomes a leaf, how data is divided,
// that plans with leaves are right, stay on their rails and off NICs that are down, and that their
// busiest NIC carries what the cut bound says, within a few per cent.
#include <set>

#include "algorithms/leaves.h"
#include "base/random.h"
#include "rail_speeds.h"
#include "shapes.h"

namespace railccl::algorithms {
namespace {

using topology::Topology;
using Downs = std::vector<std::pair<int, int>>;  // (host, rail)

/// `shape` where these NICs are down.
Topology without(const Shape& shape, const Downs& downs) {
  const Topology whole = topology_of(shape);
  std::vector<topology::Host> hosts = whole.hosts();
  for (const auto& [host, rail] : downs)
    for (topology::Nic& nic : hosts[static_cast<size_t>(host)].nics)
      if (nic.rail == rail) nic.up = false;
  return Topology(hosts, whole.rails(), whole.ranks());
}

/// `shape` where host 0 has ranks on all rails but the last.
Shape never_there(int hosts, int rails) {
  Shape shape = regular(hosts, rails, rails);
  shape.rails[0].pop_back();
  return shape;
}

const Algorithm& algorithm() { return *find(Collective::all_reduce, "rail_leaf"); }

/// The least time of the busiest NIC, in times of the data through one NIC: all are alike.
double bound(const Topology& topology) {
  std::map<int, std::set<int>> up;
  for (int r = 0; r < topology.size(); r++) {
    const topology::Rank& rank = topology.rank(r);
    if (topology.host_of(r).nics[static_cast<size_t>(rank.nic)].up) up[rank.host].insert(rank.nic);
  }
  double least = 1e9, all = 0;
  for (const auto& [host, nics] : up) {
    least = std::min(least, static_cast<double>(nics.size()));
    all += static_cast<double>(nics.size());
  }
  return std::max(1 / least, 2 * (static_cast<double>(up.size()) - 1) / all);
}

TEST(RailLeaf, WeakHostsAreLeavesWhereThatGains) {
  const Leaves four = leaves_of(without(regular(4, 4, 4), {{2, 1}}));
  EXPECT_EQ(four.hosts, std::vector<int>{2});
  EXPECT_EQ(four.others, (std::vector<int>{0, 1, 3}));
  EXPECT_EQ(four.without, Leaves::kUnits * 2 / 5);
  EXPECT_NEAR(four.gain, 1.25, 1e-9);
  // Half of the data with leaves goes by the rail that the leaf lacks.
  EXPECT_EQ(four.rings, (Leaves::Weights{85, 256, 85, 85}));
  EXPECT_EQ(four.passes, std::vector<Leaves::Weights>({{256, 0, 256, 256}}));

  EXPECT_NEAR(leaves_of(topology_of(never_there(8, 8))).gain, 1.75 / 7 * 63 / 14, 1e-9);
  EXPECT_NEAR(leaves_of(topology_of(never_there(3, 2))).gain, 4.0 / 3, 1e-9);
  const Leaves two = leaves_of(without(regular(5, 4, 4), {{0, 3}, {4, 2}}));
  EXPECT_EQ(two.hosts, (std::vector<int>{0, 4}));
  EXPECT_GT(two.gain, 1.3);
}

TEST(RailLeaf, ElsewhereItDoesNotServe) {
  const plan::Request request = request_of(Collective::all_reduce, 1 << 20);
  const auto serves = [&](const Topology& topology) {
    return algorithm().supports(request, topology);
  };
  EXPECT_TRUE(serves(without(regular(4, 4, 4), {{0, 0}})));
  EXPECT_FALSE(serves(topology_of(regular(4, 4, 4)))) << "all is well";
  EXPECT_FALSE(serves(topology_of(never_there(2, 4)))) << "two hosts: its NICs are the bound";
  EXPECT_FALSE(serves(without(regular(3, 2, 2), {{0, 1}, {1, 1}, {2, 1}}))) << "down for all";
  EXPECT_FALSE(serves(without(regular(3, 2, 2), {{0, 0}, {0, 1}}))) << "a host with nothing left";
  EXPECT_FALSE(serves(with_rail_speeds(topology_of(regular(4, 4, 4)), {4e9, 4e9, 4e9, 1e9})))
      << "slow for all";
}

TEST(RailLeaf, TheBusiestNicIsNearTheBound) {
  const plan::Request request = request_of(Collective::all_reduce, 16 << 20);
  const auto n = static_cast<double>(plan::bytes_of(request));
  for (const auto& [hosts, rails] : {std::pair{4, 4}, {8, 8}, {2, 4}, {3, 2}, {16, 4}}) {
    for (const Topology& topology : {without(regular(hosts, rails, rails), {{hosts / 2, 1}}),
                                     topology_of(never_there(hosts, rails))}) {
      const Algorithm& best = hosts > 2 ? algorithm() : *find(Collective::all_reduce, "rail");
      ASSERT_TRUE(best.supports(request, topology)) << hosts << " hosts, " << rails << " rails";
      const double slowest = topology.slowest_nic_bytes_per_s() / 10e9;
      const double price = best.cost(request, topology, {1, 1 << 12}).outer_bytes / n / slowest;
      EXPECT_GT(price, bound(topology) * 0.999) << hosts << " hosts, " << rails << " rails";
      EXPECT_LT(price, bound(topology) * 1.03) << hosts << " hosts, " << rails << " rails";
    }
  }
}

/// Seconds of the busiest NIC by the checker's count, and that no NIC that is down carries any.
double busiest(const plan::CheckReport& report, const Topology& topology) {
  std::map<std::pair<int, int>, double> out, in;
  double longest = 0;
  for (const auto& [edge, bytes] : report.bytes) {
    const topology::Rank &from = topology.rank(edge.first), &to = topology.rank(edge.second);
    if (from.host == to.host || bytes == 0) continue;
    for (const int r : {edge.first, edge.second})
      EXPECT_TRUE(topology.host_of(r).nics[static_cast<size_t>(topology.rank(r).nic)].up)
          << "rank " << r << " has no NIC that works";
    longest = std::max(longest, out[{from.host, from.nic}] +=
                                static_cast<double>(bytes) / topology.nic_bytes_per_s(edge.first));
    longest = std::max(longest, in[{to.host, to.nic}] +=
                                static_cast<double>(bytes) / topology.nic_bytes_per_s(edge.second));
  }
  return longest;
}

std::vector<std::pair<Shape, Topology>> fabrics() {
  const std::vector<std::pair<Shape, Downs>> rows = {
      {regular(4, 4, 4), {{1, 3}}},
      {regular(3, 2, 2), {{0, 0}}},
      {regular(3, 4, 4), {{2, 0}, {2, 1}}},
      {regular(4, 4, 4), {{1, 3}, {2, 0}}},
      {regular(5, 4, 4), {{0, 3}, {4, 3}}},
      {regular(3, 4, 2, true), {{1, 1}}},
      {regular(11, 2, 2), {{5, 1}}},
      {regular(3, 10, 2), {{0, 0}}},
      {never_there(4, 4), {}},
      {{"4+2+5 ranks", {4, 2, 5}, {{0, 1}, {0, 1}, {1, 0}}}, {{1, 0}}},
      {{"1+4+3+3 ranks", {1, 4, 3, 3}, {{1}, {0, 1}, {0, 1}, {1, 0}}}, {}},
      {{"no rail in common", {2, 2, 2, 2}, {{0, 1}, {1, 2}, {0, 1, 2}, {0, 1, 2}}}, {{0, 1}}},
  };
  std::vector<std::pair<Shape, Topology>> fabrics;
  for (const auto& [shape, downs] : rows) fabrics.emplace_back(shape, without(shape, downs));
  return fabrics;
}

TEST(RailLeaf, IsRightAndStaysOnRailsThatWork) {
  for (const auto& [shape, topology] : fabrics()) {
    const auto p = static_cast<uint64_t>(topology.size());
    for (const uint64_t count : {uint64_t{0}, uint64_t{1}, p - 1, uint64_t{997}, uint64_t{4160}}) {
      for (const plan::Tuning& tuning :
           {plan::Tuning{1, 1 << 16}, plan::Tuning{1, 1 + count / 20}, plan::Tuning{12, 64}}) {
        const plan::Request request =
            request_of(Collective::all_reduce, count, (count + tuning.chunk_elements) % 2 == 1);
        const std::string text = shape.name + ": " + plan::text_of(request);
        ASSERT_TRUE(algorithm().supports(request, topology)) << text;
        const auto report = check_on(algorithm(), request, topology, tuning);
        ASSERT_TRUE(report.is_ok()) << text << ": " << report.status().text();
        EXPECT_EQ(report->cross_rail_bytes, 0u) << text;
        busiest(*report, topology);
      }
    }
  }
}

TEST(RailLeaf, CostsNameTheTimeOfTheNicThatTakesLongest) {
  for (const auto& [shape, topology] : fabrics()) {
    const plan::Request request = request_of(Collective::all_reduce, 100 << 10);
    const plan::Tuning tuning{1, request.count};
    const auto report = check_on(algorithm(), request, topology, tuning);
    ASSERT_TRUE(report.is_ok()) << report.status().text();
    // Of a single chunk nothing overlaps: its ways to the rings and from them take as long again.
    const double seconds = 2 * busiest(*report, topology);
    EXPECT_NEAR(algorithm().cost(request, topology, tuning).outer_bytes /
                    topology.slowest_nic_bytes_per_s(),
                seconds, seconds * 2e-3)
        << shape.name;
  }
}

// Random fabrics with NICs down and of unequal speed, host by host.
TEST(RailLeaf, IsRightOnRandomFabrics) {
  constexpr uint64_t kSeed = 20261124;
  Random random(kSeed);
  int served = 0;
  for (int round = 0; round < 150; round++) {
    Shape shape{"random " + std::to_string(round), {}, {}, random.chance(0.5)};
    const int hosts = 3 + static_cast<int>(random.below(4));
    for (int h = 0; h < hosts; h++) {
      shape.ranks.push_back(1 + static_cast<int>(random.below(5)) + (h == 0 ? 1 : 0));
      std::vector<int> rails;
      for (int rail = 0; rail < 4; rail++)
        if (random.chance(0.85)) rails.push_back(rail);
      shape.rails.push_back(rails);
    }
    const Topology whole = topology_of(shape);
    std::vector<topology::Host> changed = whole.hosts();
    for (topology::Host& host : changed)
      for (topology::Nic& nic : host.nics) {
        nic.up = !random.chance(0.1);
        nic.bytes_per_s = random.chance(0.2) ? random.chance(0.3) ? 0 : 5e9 : 10e9;
      }
    const Topology topology(changed, whole.rails(), whole.ranks());
    const plan::Tuning tuning{1 + static_cast<int>(random.below(6)), 1 + random.below(80)};
    const plan::Request request =
        request_of(Collective::all_reduce, random.below(300), random.chance(0.5));
    if (!algorithm().supports(request, topology)) continue;
    served++;
    const auto report = check_on(algorithm(), request, topology, tuning);
    ASSERT_TRUE(report.is_ok()) << shape.name << ", seed " << kSeed << ": "
                                << report.status().text();
    EXPECT_EQ(report->cross_rail_bytes, 0u) << shape.name;
    busiest(*report, topology);
  }
  EXPECT_GT(served, 50);
}

}  // namespace
}  // namespace railccl::algorithms
