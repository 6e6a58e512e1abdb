// Shows that the rail compositions are right and keep to their rails on any shape of cluster: every
// plan is proven by the checker over a corpus of shapes (unequal hosts, shared and missing NICs,
// ranks dealt out over hosts), and its counted bytes meet the bounds stated in its file.
#include <bit>

#include "algorithms/compose.h"
#include "base/random.h"
#include "shapes.h"

namespace railccl::algorithms {
namespace {

std::vector<Shape> corpus() {
  return {
      regular(2, 2, 2),
      regular(2, 2, 1),
      regular(3, 2, 2),
      regular(3, 4, 4),
      regular(4, 4, 2),
      regular(5, 3, 3),
      regular(3, 4, 3),
      regular(2, 4, 4, true),
      regular(3, 3, 3, true),
      regular(3, 5, 2, true),
      {"4+2 ranks", {4, 2}, {{0, 1}, {0, 1}}},
      {"4+2+1 ranks", {4, 2, 1}, {{0, 1, 2, 3}, {0, 1, 2, 3}, {0, 1, 2, 3}}},
      {"1+3+2 dealt", {1, 3, 2}, {{0}, {0}, {0}}, true},
      {"a rail missing", {4, 4, 4}, {{0, 1, 2, 3}, {0, 1, 3}, {0, 1, 2, 3}}},
      {"one rail in common", {3, 3}, {{0, 1, 2}, {2, 3, 4}}},
      {"no rail in common", {3, 2, 2}, {{0, 1, 2}, {3, 4}, {5}}},
      {"rails in another order", {3, 3}, {{0, 1, 2}, {2, 0, 1}}},
      {"no NICs at all", {3, 2}, {{}, {}}},
      {"one rank beside many", {1, 6}, {{0}, {0, 1, 2}}, true},
  };
}

std::vector<const Algorithm*> rail_algorithms() {
  std::vector<const Algorithm*> rows;
  for (const Algorithm* algorithm : all()) {
    const std::string_view name = algorithm->name;
    if (name == "rail" || name == "leader") rows.push_back(algorithm);
  }
  return rows;
}

std::string text(const Algorithm& algorithm, const Shape& shape, const plan::Request& request,
                 const plan::Tuning& tuning) {
  return std::string(name_of(algorithm.collective)) + " on " + shape.name + ": " +
         plan::text_of(request) + (request.in_place ? " in place" : "") + " root " +
         std::to_string(request.root) + " channels " + std::to_string(tuning.channels) + " chunk " +
         std::to_string(tuning.chunk_elements);
}

bool in_place_allowed(Collective collective) { return collective != Collective::all_to_all; }

TEST(Rail, EveryCollectiveIsRegistered) {
  for (const Collective collective :
       {Collective::all_reduce, Collective::reduce_scatter, Collective::all_gather,
        Collective::broadcast, Collective::reduce, Collective::all_to_all})
    EXPECT_NE(find(collective, "rail"), nullptr) << name_of(collective);
  EXPECT_NE(find(Collective::all_reduce, "leader"), nullptr);
}

TEST(Rail, IsRightAndStaysOnItsRailsOnEveryShape) {
  for (const Shape& shape : corpus()) {
    const topology::Topology topology = topology_of(shape);
    const auto p = static_cast<uint64_t>(topology.size());
    for (const Algorithm* algorithm : rail_algorithms()) {
      for (const uint64_t count : {uint64_t{0}, uint64_t{1}, p - 1, 2 * p + 3, uint64_t{251}}) {
        for (const plan::Tuning& tuning :
             {plan::Tuning{1, 1 << 16}, plan::Tuning{1, 7}, plan::Tuning{6, 16}}) {
          for (const bool in_place : {false, true}) {
            if (in_place && !in_place_allowed(algorithm->collective)) continue;
            const int root = static_cast<int>(count % p);
            const plan::Request request = request_of(algorithm->collective, count, in_place, root);
            ASSERT_TRUE(algorithm->supports(request, topology));
            const auto report = check_on(*algorithm, request, topology, tuning);
            ASSERT_TRUE(report.is_ok())
                << text(*algorithm, shape, request, tuning) << ": " << report.status().text();
            if (!shape.common_rails().empty()) {
              EXPECT_EQ(report->cross_rail_bytes, 0u) << text(*algorithm, shape, request, tuning);
            }
          }
        }
      }
    }
  }
}

TEST(Rail, EveryRootOnEveryShape) {
  for (const Shape& shape : corpus()) {
    const topology::Topology topology = topology_of(shape);
    for (const Collective collective : {Collective::broadcast, Collective::reduce}) {
      const Algorithm* algorithm = find(collective, "rail");
      for (int root = 0; root < topology.size(); root++) {
        const plan::Request request = request_of(collective, 41, root % 2 == 1, root);
        const auto report = check_on(*algorithm, request, topology, {1, 5});
        ASSERT_TRUE(report.is_ok())
            << text(*algorithm, shape, request, {1, 5}) << ": " << report.status().text();
      }
    }
  }
}

// Random clusters: any mixture of hosts, ranks, NICs, placement, counts and tunings.
TEST(Rail, IsRightOnRandomClusters) {
  constexpr uint64_t kSeed = 20251124;
  Random random(kSeed);
  int never_crossed = 0;
  for (int round = 0; round < test::by_build(150, 50, 50); round++) {
    Shape shape{"random " + std::to_string(round), {}, {}, random.chance(0.5)};
    const int hosts = 2 + static_cast<int>(random.below(4));
    for (int h = 0; h < hosts; h++) {
      shape.ranks.push_back(1 + static_cast<int>(random.below(5)) + (h == 0 ? 1 : 0));
      std::vector<int> rails;
      for (int rail = 0; rail < 4; rail++) {
        if (random.chance(0.6)) rails.push_back(rail);
      }
      shape.rails.push_back(rails);
    }
    const topology::Topology topology = topology_of(shape);
    const plan::Tuning tuning{1 + static_cast<int>(random.below(6)), 1 + random.below(80)};
    for (const Algorithm* algorithm : rail_algorithms()) {
      const plan::Request request =
          request_of(algorithm->collective, random.below(200),
                     in_place_allowed(algorithm->collective) && random.chance(0.5),
                     static_cast<int>(random.below(static_cast<uint64_t>(topology.size()))));
      const auto report = check_on(*algorithm, request, topology, tuning);
      ASSERT_TRUE(report.is_ok()) << text(*algorithm, shape, request, tuning) << ", seed " << kSeed
                                  << ": " << report.status().text();
      if (!shape.common_rails().empty()) {
        EXPECT_EQ(report->cross_rail_bytes, 0u) << text(*algorithm, shape, request, tuning);
        never_crossed++;
      }
    }
  }
  EXPECT_GT(never_crossed, test::by_build(100, 33, 33));
}

TEST(Rail, SupportsNeedsSeveralHostsAndSeveralRanksOnOne) {
  for (const Algorithm* algorithm : rail_algorithms()) {
    const plan::Request request = request_of(algorithm->collective, 8);
    EXPECT_FALSE(algorithm->supports(request, topology_of(regular(1, 4, 4))));
    EXPECT_FALSE(algorithm->supports(request, topology_of(regular(4, 1, 1))));
    EXPECT_TRUE(algorithm->supports(request, topology_of(regular(2, 2, 2))));
    plan::Request other = request;
    other.collective =
        algorithm->collective == Collective::gather ? Collective::scatter : Collective::gather;
    EXPECT_FALSE(algorithm->supports(other, topology_of(regular(2, 2, 2))));
  }
}

// Equal hosts with a NIC per rank: the cut bounds, to the byte, for sizes that divide evenly.
TEST(Rail, BytesMeetTheBoundsOnEqualHosts) {
  for (const auto& [hosts, per_host] : {std::pair{2, 4}, {4, 4}, {3, 2}, {4, 3}, {7, 2}}) {
    const topology::Topology topology = topology_of(regular(hosts, per_host, per_host));
    const auto N = static_cast<uint64_t>(hosts), G = static_cast<uint64_t>(per_host);
    const uint64_t n = N * N * G * G * 240, bytes = n * 4;  // float elements
    const plan::Tuning tuning{1, n};
    const auto measure = [&](Collective collective, uint64_t count) {
      const Algorithm* algorithm = find(collective, "rail");
      const plan::Request request = request_of(collective, count);
      const auto report = check_on(*algorithm, request, topology, tuning);
      EXPECT_TRUE(report.is_ok()) << report.status().text();
      // The cost model must not promise less than the plan moves.
      const plan::Cost cost = algorithm->cost(request, topology, tuning);
      EXPECT_NEAR(cost.outer_bytes, static_cast<double>(nic_bytes(*report, topology)), 1.0)
          << name_of(collective);
      EXPECT_GE(cost.inner_bytes + 1, static_cast<double>(port_bytes(*report, topology)))
          << name_of(collective);
      EXPECT_EQ(cost.spine_bytes, 0);
      return std::pair(nic_bytes(*report, topology), port_bytes(*report, topology));
    };
    EXPECT_EQ(measure(Collective::all_reduce, n),
              std::pair(2 * (N - 1) * bytes / N / G, 2 * (G - 1) * bytes / G));
    const uint64_t block = bytes / (N * G);
    EXPECT_EQ(measure(Collective::all_gather, n / (N * G)),
              std::pair((N - 1) * block, (G - 1) * N * block));
    EXPECT_EQ(measure(Collective::reduce_scatter, n / (N * G)),
              std::pair((N - 1) * block, (G - 1) * N * block));
    EXPECT_EQ(measure(Collective::all_to_all, n / (N * G)).first, (N - 1) * G * block);
    // A chain between hosts; a tree where shards are small, in which a NIC may serve two children.
    const uint64_t shard = bytes / G, most = hosts > 4 && shard <= 64 << 10 ? 2 * shard : shard;
    EXPECT_EQ(measure(Collective::broadcast, n).first, most);
    EXPECT_EQ(measure(Collective::reduce, n).first, most);
    const uint64_t small = measure(Collective::broadcast, n / 64).first;
    EXPECT_NEAR(static_cast<double>(small), static_cast<double>(shard) / (hosts > 4 ? 32 : 64), 8);
  }
}

// NICs shared by several ranks: the bound per NIC is that of the host's cut divided by its NICs.
TEST(Rail, SharedNicsCarryEqualShares) {
  const topology::Topology topology = topology_of(regular(3, 5, 2));
  const uint64_t n = 3 * 2 * 3 * 2 * 1000;
  const auto report = check_on(*find(Collective::all_reduce, "rail"),
                               request_of(Collective::all_reduce, n), topology, {1, n});
  ASSERT_TRUE(report.is_ok()) << report.status().text();
  // 2 (N-1)/N n over R = 2 NICs per host, although three ranks share one and two the other.
  EXPECT_EQ(nic_bytes(*report, topology), 2 * 2 * n * 4 / 3 / 2);
}

// Tiny messages: as few rounds as there can be for any number of hosts, and one message from each
// host in each round between hosts.
TEST(Rail, LeadersExchangeInLogarithmicRounds) {
  for (int hosts = 2; hosts <= 33; hosts++) {
    const topology::Topology topology = topology_of(regular(hosts, 3, 3));
    const Algorithm& leader = *find(Collective::all_reduce, "leader");
    const plan::Request request = request_of(Collective::all_reduce, 2);
    const auto report = check_on(leader, request, topology, {1, 1 << 16});
    ASSERT_TRUE(report.is_ok()) << report.status().text();
    const auto between = static_cast<uint64_t>(std::bit_width(static_cast<unsigned>(hosts - 1)));
    EXPECT_EQ(report->rounds, between + 2) << hosts << " hosts";
    uint64_t messages = 0;
    for (const auto& [pair, count] : report->messages)
      if (topology.rank(pair.first).host != topology.rank(pair.second).host) messages += count;
    EXPECT_EQ(messages, between * static_cast<uint64_t>(hosts)) << hosts << " hosts";
    EXPECT_EQ(report->cross_rail_bytes, 0u);
    const plan::Cost cost = leader.cost(request, topology, {1, 1 << 16});
    EXPECT_EQ(cost.outer_rounds, static_cast<double>(between));
    EXPECT_EQ(cost.outer_bytes, static_cast<double>(nic_bytes(*report, topology)));
  }
}

TEST(Rail, AnyInnerAndAnyOuterPattern) {
  for (const Shape& shape : {regular(3, 4, 4), regular(5, 3, 2, true), corpus()[11]}) {
    const topology::Topology topology = topology_of(shape);
    for (const SpreadPattern& inner : spread_patterns()) {
      for (const AllReducePattern& outer : all_reduce_patterns()) {
        for (const uint64_t count : {1, 13, 300}) {
          for (const uint64_t chunk : {3, 1000}) {
            const plan::Request request = request_of(Collective::all_reduce, count, count % 2 == 1);
            const plan::Tuning tuning{1, chunk};
            const auto report = plan::check(
                request, topology.size(),
                [&](int rank) {
                  return compose_all_reduce(request, topology, tuning, rank, {host_parts(topology)},
                                            {&inner, &outer}, "rail");
                },
                options_of(topology));
            ASSERT_TRUE(report.is_ok()) << shape.name << " " << inner.name << " in " << outer.name
                                        << ": " << report.status().text();
          }
        }
      }
    }
  }
}

// Two NUMA nodes per host below the hosts, and pairs of hosts (racks) above them.
TEST(Rail, AllReduceComposesToAnyDepth) {
  const Shape shape = regular(4, 8, 8);
  const topology::Topology topology = topology_of(shape);
  Parts numa, racks;
  for (const topology::Rank& rank : topology.ranks()) {
    numa.push_back(2 * rank.host + rank.local / 4);
    racks.push_back(rank.host / 2);
  }
  const Parts hosts = host_parts(topology);
  for (const std::vector<Parts>& levels : std::vector<std::vector<Parts>>{
           {}, {hosts}, {numa, hosts}, {hosts, racks}, {numa, hosts, racks}}) {
    for (const uint64_t count : {1, 100, 1003}) {
      const plan::Request request = request_of(Collective::all_reduce, count, count == 100);
      const auto report = plan::check(
          request, topology.size(),
          [&](int rank) {
            return compose_all_reduce(request, topology, {1, 9}, rank, levels, {}, "rail");
          },
          options_of(topology));
      ASSERT_TRUE(report.is_ok()) << levels.size() << " levels: " << report.status().text();
      if (!levels.empty()) {
        EXPECT_EQ(report->cross_rail_bytes, 0u) << levels.size() << " levels";
      }
    }
  }
}

// Stages overlap: of a long run's chunks, each costs no more than its slowest stage.
TEST(Rail, StagesOverlapChunkByChunk) {
  const topology::Topology topology = topology_of(regular(4, 4, 4));
  const SpreadPattern& inner = spread_patterns()[0];         // rings: 3 rounds in the host,
  const AllReducePattern& outer = all_reduce_patterns()[0];  // 6 between hosts
  const auto rounds = [&](uint64_t chunks) {
    const plan::Request request = request_of(Collective::all_reduce, chunks * 4 * 16);
    const auto report = plan::check(
        request, topology.size(),
        [&](int rank) {
          return compose_all_reduce(request, topology, {1, 16}, rank, {host_parts(topology)},
                                    {&inner, &outer}, "rail");
        },
        options_of(topology));
    EXPECT_TRUE(report.is_ok()) << report.status().text();
    return report->rounds;
  };
  EXPECT_EQ(rounds(1), 12u);
  EXPECT_EQ(rounds(20), 12u + 19 * 6);
}

TEST(Rail, ProgramLengthDoesNotGrowWithTheData) {
  const topology::Topology topology = topology_of(regular(4, 4, 4));
  for (const Algorithm* algorithm : rail_algorithms()) {
    EXPECT_EQ(program_length(*algorithm, topology, 40'001, {1, 1000}),
              program_length(*algorithm, topology, 400'000'001, {1, 1000}))
        << name_of(algorithm->collective);
  }
}

}  // namespace
}  // namespace railccl::algorithms
