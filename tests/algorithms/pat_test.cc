// Shows that PAT's rounds are logarithmic with bounded buffers for any number of ranks, and that
// the plans made of them are right: the rounds' arithmetic by itself, then the checker.
#include "algorithms/pat.h"

#include <set>

#include "shapes.h"

namespace railccl::algorithms {
namespace {

topology::Topology flat(int ranks) { return topology_of(regular(1, ranks, 1)); }

TEST(Pat, EachOffsetArrivesOnceAfterItsParent) {
  for (int p = 1; p <= 130; p++) {
    for (int aggregation = 1; aggregation == 1 || aggregation < p; aggregation *= 2) {
      std::set<int> held = {0};
      for (const PatRound& round : pat_rounds(p, aggregation)) {
        EXPECT_LE(round.offsets.size(), static_cast<size_t>(aggregation));
        for (const int k : round.offsets) {
          EXPECT_EQ(round.distance, k & -k);
          EXPECT_TRUE(held.contains(k - round.distance)) << p << " " << aggregation << " " << k;
          EXPECT_TRUE(held.insert(k).second) << p << " " << aggregation << " " << k;
        }
      }
      EXPECT_EQ(held.size(), static_cast<size_t>(p));
    }
  }
}

TEST(Pat, RoundsAreLogarithmicUntilMessagesAreFull) {
  EXPECT_EQ(pat_rounds(64, 32).size(), 6u);  // log2 p
  EXPECT_EQ(pat_rounds(64, 8).size(), 10u);  // log2 A + p / A - 1
  EXPECT_EQ(pat_rounds(64, 1).size(), 63u);  // p - 1
  EXPECT_EQ(pat_rounds(33, 32).size(), 6u);
  EXPECT_EQ(pat_aggregation(64, 10, 100), 8);
  EXPECT_EQ(pat_aggregation(64, 1000, 100), 1);
  EXPECT_EQ(pat_aggregation(64, 0, 100), 32);
  EXPECT_EQ(pat_aggregation(2, 1, 100), 1);
}

TEST(Pat, IsRightForAnyNumberOfRanks) {
  for (int p = 1; p <= 64; p += test::by_build(1, 7, 7)) {
    const topology::Topology topology = flat(p);
    const bool all_cases = p <= 20 || p == 32 || p == 33 || p == 63 || p == 64;
    for (const Collective collective : {Collective::all_gather, Collective::reduce_scatter}) {
      const Algorithm* algorithm = find(collective, "pat");
      for (const uint64_t count : {0, 1, 5, 23}) {
        for (const plan::Tuning& tuning :
             {plan::Tuning{1, 1000}, plan::Tuning{1, 20}, plan::Tuning{2, 5}}) {
          if (!all_cases && count != 5) continue;
          const plan::Request request = request_of(collective, count, (count + p) % 2 == 1);
          const auto report = check_on(*algorithm, request, topology, tuning);
          ASSERT_TRUE(report.is_ok()) << p << " ranks, " << plan::text_of(request) << ", chunk "
                                      << tuning.chunk_elements << ": " << report.status().text();
          // The bound: each block in once, and out once per rank that it passes.
          for (int r = 0; r < p; r++) {
            EXPECT_EQ(report->received_by(r), static_cast<uint64_t>(p - 1) * count * 4);
            EXPECT_EQ(report->sent_by(r), static_cast<uint64_t>(p - 1) * count * 4);
          }
        }
      }
    }
  }
}

TEST(Pat, ScratchIsBoundedByChunksTimesLogarithm) {
  for (const int p : {2, 7, 16, 33, 64}) {
    int log = 1;
    while ((1 << log) < p) log++;
    for (const uint64_t count : {1, 3, 10, 100, 100000}) {
      for (const uint64_t chunk : {16, 1000}) {
        for (const Collective collective : {Collective::all_gather, Collective::reduce_scatter}) {
          const auto program =
              find(collective, "pat")->build(request_of(collective, count), flat(p), {1, chunk}, 0);
          ASSERT_TRUE(program.is_ok());
          const uint64_t chunks = collective == Collective::all_gather ? 3 : 2 * (log + 1) + 3;
          EXPECT_LE(program->scratch_elements, chunks * chunk) << p << " ranks, count " << count;
        }
      }
    }
  }
}

TEST(Pat, CostMatchesCountedBytesOnSeveralHosts) {
  for (const Shape& shape : {regular(4, 4, 2), regular(3, 5, 5), regular(1, 9, 1)}) {
    const topology::Topology topology = topology_of(shape);
    for (const Collective collective : {Collective::all_gather, Collective::reduce_scatter}) {
      const Algorithm* algorithm = find(collective, "pat");
      const plan::Request request = request_of(collective, 30);
      const auto report = check_on(*algorithm, request, topology, {1, 64});
      ASSERT_TRUE(report.is_ok()) << report.status().text();
      const plan::Cost cost = algorithm->cost(request, topology, {1, 64});
      EXPECT_EQ(cost.outer_bytes, static_cast<double>(nic_bytes(*report, topology))) << shape.name;
      EXPECT_EQ(cost.inner_bytes, static_cast<double>(port_bytes(*report, topology))) << shape.name;
    }
  }
}

}  // namespace
}  // namespace railccl::algorithms
