// Shows what rails of unequal speed carry: shares in proportion, none for rails that are down, the
// plans of equal rails where measured speeds hardly differ; that every rail algorithm stays right
// and on its rails then; and that costs name the time of the NIC that takes longest.
#include <set>

#include "algorithms/rails.h"
#include "rail_speeds.h"
#include "shapes.h"

namespace railccl::algorithms {
namespace {

using topology::Topology;

/// `shape` with rails of these speeds: 0 is down.
Topology with_speeds(const Shape& shape, const std::vector<double>& speeds) {
  return with_rail_speeds(topology_of(shape), speeds);
}

/// `shape` where one host's NIC on one rail is down.
Topology one_host_lacks(const Shape& shape, size_t host, size_t rail) {
  const Topology whole = topology_of(shape);
  std::vector<std::vector<double>> speeds(whole.hosts().size(),
                                          std::vector<double>(whole.rails().size(), 4e9));
  speeds[host][rail] = 0;
  return whole.with_nic_speeds(speeds);
}

Shards shards_of(const Topology& topology) {
  std::vector<int> everyone;
  for (int r = 0; r < topology.size(); r++) everyone.push_back(r);
  return Shards(topology, everyone, host_parts(topology));
}

/// Elements of a region of `count` that travel on each rail.
std::map<int, uint64_t> shares(const Topology& topology, uint64_t count) {
  const Shards shards = shards_of(topology);
  const plan::Region whole{plan::Buffer::output, plan::kHere, 7, count};
  std::map<int, uint64_t> of_rail;
  uint64_t next = whole.offset;
  for (int s = 0; s < shards.count(); s++) {
    const plan::Region shard = shards.of(whole, s);
    EXPECT_EQ(shard.offset, next) << "shards follow each other without a gap";
    next += shard.count;
    of_rail[topology.rank(shards.across(s)[0]).rail] += shard.count;
  }
  EXPECT_EQ(next, whole.offset + count);
  return of_rail;
}

using Shares = std::map<int, uint64_t>;

TEST(UnequalRails, SharesFollowTheSpeeds) {
  const Shape shape = regular(2, 4, 4);
  EXPECT_EQ(shares(with_speeds(shape, {4e9, 4e9, 4e9, 1e9}), 1300),
            (Shares{{0, 400}, {1, 400}, {2, 400}, {3, 100}}));
  EXPECT_EQ(shares(with_speeds(shape, {4e9, 0, 4e9, 4e9}), 1300),
            (Shares{{0, 434}, {2, 433}, {3, 433}}));
  EXPECT_EQ(shares(with_speeds(shape, {1e9, 0, 2e9, 0}), 1200), (Shares{{0, 400}, {2, 800}}));
  // A tenth, in sixty-fourths, is no more than a tenth.
  const Shares tenth = shares(with_speeds(shape, {10e6, 1e6, 10e6, 10e6}), 1'000'000);
  EXPECT_LE(tenth.at(1), 1'000'000 / 31);
  EXPECT_GE(tenth.at(1), 1'000'000 / 34);
  // Hardly anything is nothing, and all rails down are as good as none.
  EXPECT_EQ(shares(with_speeds(shape, {4e9, 4e9, 4e9, 5e7}), 900),
            (Shares{{0, 300}, {1, 300}, {2, 300}}));
  EXPECT_EQ(shares(with_speeds(shape, {0, 0, 0, 0}), 400),
            (Shares{{0, 100}, {1, 100}, {2, 100}, {3, 100}}));
}

TEST(UnequalRails, RanksThatShareARailShareItsPart) {
  const Topology topology = with_speeds(regular(3, 5, 2), {4e9, 1e9});
  EXPECT_EQ(shares(topology, 1500), (Shares{{0, 1200}, {1, 300}}));
  const Shards shards = shards_of(topology);
  const plan::Region whole{plan::Buffer::output, plan::kHere, 0, 1500};
  std::vector<uint64_t> counts;
  for (const plan::Region& piece : shards.pieces(whole, 1)) counts.push_back(piece.count);
  EXPECT_EQ(counts, (std::vector<uint64_t>{400, 150, 400, 150, 400}));
}

TEST(UnequalRails, TheSlowestHostDecidesAndUnknownCountsAsTheBest) {
  std::vector<topology::Host> hosts = topology_of(regular(2, 2, 2)).hosts();
  const std::vector<topology::Rank> ranks = topology_of(regular(2, 2, 2)).ranks();
  hosts[1].nics[0].bytes_per_s = 5e9;
  EXPECT_EQ(shares(Topology(hosts, {{}, {}}, ranks), 300), (Shares{{0, 100}, {1, 200}}));
  hosts[0].nics[1].bytes_per_s = hosts[1].nics[1].bytes_per_s = 0;
  EXPECT_EQ(shares(Topology(hosts, {{}, {}}, ranks), 300), (Shares{{0, 150}, {1, 150}}));
  for (topology::Host& host : hosts)
    for (topology::Nic& nic : host.nics) nic.bytes_per_s = 0;
  EXPECT_EQ(shares(Topology(hosts, {{}, {}}, ranks), 300), (Shares{{0, 150}, {1, 150}}));
  hosts[0].nics[0].up = false;
  EXPECT_EQ(shares(Topology(hosts, {{}, {}}, ranks), 300), (Shares{{1, 300}}));
}

std::vector<const Algorithm*> rail_algorithms() {
  std::vector<const Algorithm*> rows;
  for (const Algorithm* algorithm : all())
    if (std::string_view(algorithm->name) == "rail") rows.push_back(algorithm);
  return rows;
}

TEST(UnequalRails, WhatMeasuresAlikeIsPlannedAlike) {
  const Shape shape = regular(3, 4, 4);
  const Topology nominal = topology_of(shape);
  const Topology measured = with_speeds(shape, {24.9e6, 25e6, 23.6e6, 24e6});
  for (const Algorithm* algorithm : rail_algorithms()) {
    const plan::Request request = request_of(algorithm->collective, 1003);
    for (int r = 0; r < nominal.size(); r++)
      EXPECT_EQ(*algorithm->build(request, nominal, {1, 100}, r),
                *algorithm->build(request, measured, {1, 100}, r));
  }
}

/// Bytes between hosts that enter or leave by a NIC of each rail.
std::map<int, uint64_t> rail_bytes(const plan::CheckReport& report, const Topology& topology) {
  std::map<int, uint64_t> of_rail;
  for (const auto& [edge, bytes] : report.bytes) {
    const topology::Rank &from = topology.rank(edge.first), &to = topology.rank(edge.second);
    if (from.host == to.host) continue;
    of_rail[from.rail] += bytes;
    of_rail[to.rail] += bytes;
  }
  return of_rail;
}

TEST(UnequalRails, EveryRailAlgorithmIsRightAndStaysOnRailsThatWork) {
  const std::vector<std::pair<Shape, std::vector<double>>> fabrics = {
      {regular(2, 4, 4), {4e9, 4e9, 4e9, 1e9}},
      {regular(4, 4, 4), {4e9, 0, 4e9, 4e9}},
      {regular(3, 4, 4), {0, 0, 4e9, 0}},
      {regular(3, 4, 4, true), {0, 1e9, 4e9, 3e9}},
      {regular(3, 5, 2), {4e9, 0}},
      {regular(2, 2, 2), {0, 0}},
      {{"4+2+5 ranks", {4, 2, 5}, {{0, 1}, {0, 1}, {1, 0}}}, {1e9, 3e9}},
      {{"4+2+5 ranks, one down", {4, 2, 5}, {{0, 1}, {0, 1}, {1, 0}}}, {0, 3e9}},
      {{"a rail missing", {4, 4, 4}, {{0, 1, 2, 3}, {0, 1, 3}, {0, 1, 2, 3}}}, {0, 2e9, 2e9, 1e9}},
      {{"two ranks beside five", {2, 5}, {{0, 1}, {0, 1, 2}}}, {1e9, 0, 1e9}},
  };
  for (const auto& [shape, speeds] : fabrics) {
    const Topology topology = with_speeds(shape, speeds);
    const bool any_up = *std::max_element(speeds.begin(), speeds.end()) > 0;
    const int p = topology.size();
    for (const Algorithm* algorithm : rail_algorithms()) {
      for (const uint64_t count : {uint64_t{0}, uint64_t{3}, uint64_t{997}, uint64_t{4160}}) {
        for (const plan::Tuning& tuning :
             {plan::Tuning{1, 1 << 16}, plan::Tuning{1, 1 + count / 20}, plan::Tuning{6, 64}}) {
          const bool in_place = algorithm->collective != Collective::all_to_all && count % 2 == 1;
          const plan::Request request =
              request_of(algorithm->collective, count, in_place, static_cast<int>(count) % p);
          const auto report = check_on(*algorithm, request, topology, tuning);
          const std::string text = std::string(name_of(algorithm->collective)) + " on " +
                                   shape.name + ": " + plan::text_of(request);
          ASSERT_TRUE(report.is_ok()) << text << ": " << report.status().text();
          EXPECT_EQ(report->cross_rail_bytes, 0u) << text;
          for (const auto& [rail, bytes] : rail_bytes(*report, topology))
            EXPECT_TRUE(bytes == 0 || !any_up || speeds[static_cast<size_t>(rail)] > 0)
                << text << ": " << bytes << " bytes on rail " << rail << ", which is down";
        }
      }
    }
  }
}

TEST(UnequalRails, ANicThatOneHostLostCarriesNothing) {
  for (const auto& [shape, host, rail] :
       {std::tuple{regular(3, 4, 4), 1, 2}, {regular(2, 2, 2), 0, 0}, {regular(4, 4, 2), 3, 1}}) {
    const Topology topology =
        one_host_lacks(shape, static_cast<size_t>(host), static_cast<size_t>(rail));
    for (const Algorithm* algorithm : rail_algorithms()) {
      const plan::Request request = request_of(algorithm->collective, 997);
      const auto report = check_on(*algorithm, request, topology, {1, 64});
      const std::string text = std::string(name_of(algorithm->collective)) + " on " + shape.name;
      ASSERT_TRUE(report.is_ok()) << text << ": " << report.status().text();
      EXPECT_EQ(report->cross_rail_bytes, 0u) << text;
      for (const auto& [edge, bytes] : report->bytes) {
        const topology::Rank &from = topology.rank(edge.first), &to = topology.rank(edge.second);
        if (from.host == to.host) continue;
        for (const topology::Rank& rank : {from, to})
          EXPECT_FALSE(bytes > 0 && rank.host == host && rank.rail == rail) << text;
      }
    }
  }
}

/// Seconds that the NIC needs which needs longest, by the checker's count.
double nic_seconds(const plan::CheckReport& report, const Topology& topology) {
  std::map<std::pair<int, int>, double> out, in;
  double longest = 0;
  for (const auto& [edge, bytes] : report.bytes) {
    const topology::Rank &from = topology.rank(edge.first), &to = topology.rank(edge.second);
    if (from.host == to.host) continue;
    const double sent = static_cast<double>(bytes) / topology.nic_bytes_per_s(edge.first);
    const double received = static_cast<double>(bytes) / topology.nic_bytes_per_s(edge.second);
    longest = std::max(longest, out[{from.host, from.nic}] += sent);
    longest = std::max(longest, in[{to.host, to.nic}] += received);
  }
  return longest;
}

TEST(UnequalRails, CostsNameTheTimeOfTheNicThatTakesLongest) {
  std::vector<Topology> fabrics = {one_host_lacks(regular(3, 4, 4), 1, 2),
                                   one_host_lacks(regular(4, 4, 2), 0, 0)};
  for (const std::vector<double>& speeds :
       {std::vector<double>{4e9, 4e9, 4e9, 1e9}, {4e9, 0, 4e9, 4e9}, {1e9, 2e9, 3e9, 4e9}})
    fabrics.push_back(with_speeds(regular(2, 4, 4), speeds));
  for (const Topology& topology : fabrics) {
    for (const Algorithm* algorithm : all()) {
      const std::set<std::string> exact = {"rail", "direct", "pairwise"};
      const plan::Request request = request_of(algorithm->collective, 83200);
      if (!exact.contains(algorithm->name) || !algorithm->supports(request, topology)) continue;
      const plan::Tuning tuning{1, request.count};
      const auto report = check_on(*algorithm, request, topology, tuning);
      ASSERT_TRUE(report.is_ok()) << report.status().text();
      const double seconds = nic_seconds(*report, topology);
      EXPECT_NEAR(algorithm->cost(request, topology, tuning).outer_bytes /
                      topology.slowest_nic_bytes_per_s(),
                  seconds, seconds * 1e-3)
          << name_of(algorithm->collective) << " " << algorithm->name;
    }
  }
}

}  // namespace
}  // namespace railccl::algorithms
