// Shows that all-to-all, gather and scatter are right for any number of ranks, and that their
// messages and bytes are those stated in their files; proven and counted by the checker.
#include "shapes.h"

namespace railccl::algorithms {
namespace {

uint64_t messages_from(const plan::CheckReport& report, int rank) {
  uint64_t sum = 0;
  for (const auto& [edge, messages] : report.messages) sum += edge.first == rank ? messages : 0;
  return sum;
}

uint64_t messages_to(const plan::CheckReport& report, int rank) {
  uint64_t sum = 0;
  for (const auto& [edge, messages] : report.messages) sum += edge.second == rank ? messages : 0;
  return sum;
}

uint64_t log2_ceil_of(int p) {
  uint64_t log = 0;
  while ((1 << log) < p) log++;
  return log;
}

TEST(AllToAll, IsRightForAnyNumberOfRanks) {
  for (int p = 1; p <= 64; p++) {
    const topology::Topology topology = topology_of(regular(1, p, 1));
    const bool all_cases = p <= 16 || p == 33 || p == 64;
    for (const char* name : {"pairwise", "bruck"}) {
      const Algorithm* algorithm = find(Collective::all_to_all, name);
      for (const uint64_t count : {0, 1, 7}) {
        for (const plan::Tuning& tuning : {plan::Tuning{1, 1000}, plan::Tuning{3, 24}}) {
          if (!all_cases && (count != 1 || tuning.channels != 1)) continue;
          const plan::Request request = request_of(Collective::all_to_all, count);
          const auto report = check_on(*algorithm, request, topology, tuning);
          ASSERT_TRUE(report.is_ok())
              << name << " " << p << " ranks " << plan::text_of(request) << " chunk "
              << tuning.chunk_elements << ": " << report.status().text();
        }
      }
    }
  }
}

TEST(AllToAll, PairwiseMovesEachBlockOnceAndBruckIsLogarithmic) {
  for (const int p : {2, 3, 8, 13, 32}) {
    const topology::Topology topology = topology_of(regular(1, p, 1));
    const plan::Request request = request_of(Collective::all_to_all, 3);
    const auto pairwise =
        check_on(*find(Collective::all_to_all, "pairwise"), request, topology, {1, 1000});
    const auto bruck =
        check_on(*find(Collective::all_to_all, "bruck"), request, topology, {1, 1000});
    ASSERT_TRUE(pairwise.is_ok() && bruck.is_ok());
    uint64_t moved = 0;  // blocks times the bits of their offsets
    for (int j = 1; j < p; j++) {
      for (int bit = 1; bit < p; bit *= 2) moved += (j & bit) != 0 ? 1 : 0;
    }
    for (int r = 0; r < p; r++) {
      EXPECT_EQ(pairwise->sent_by(r), static_cast<uint64_t>(p - 1) * 12);
      EXPECT_EQ(pairwise->received_by(r), static_cast<uint64_t>(p - 1) * 12);
      EXPECT_EQ(messages_from(*bruck, r), log2_ceil_of(p));
      EXPECT_EQ(bruck->sent_by(r), moved * 12);
    }
    EXPECT_EQ(bruck->rounds, log2_ceil_of(p));
  }
}

// Between hosts: N-1 messages per rank instead of p-G, each leaving and arriving on one rail.
TEST(AllToAll, RailBundlesWhatGoesToOneHost) {
  const topology::Topology topology = topology_of(regular(4, 8, 8));
  const plan::Request request = request_of(Collective::all_to_all, 5);
  const auto report = check_on(*find(Collective::all_to_all, "rail"), request, topology, {1, 1000});
  ASSERT_TRUE(report.is_ok()) << report.status().text();
  uint64_t between_hosts = 0;
  for (const auto& [edge, messages] : report->messages) {
    if (topology.rank(edge.first).host != topology.rank(edge.second).host)
      between_hosts += messages;
  }
  EXPECT_EQ(between_hosts, 32u * 3);
  EXPECT_EQ(report->inter_host_bytes, 32u * 24 * 5 * 4);
  EXPECT_EQ(report->cross_rail_bytes, 0u);
}

TEST(AllToAll, CostMatchesCountedBytes) {
  for (const Shape& shape :
       {regular(4, 4, 2), regular(3, 5, 5), Shape{"4+2", {4, 2}, {{0, 1}, {0, 1}}}}) {
    const topology::Topology topology = topology_of(shape);
    for (const char* name : {"pairwise", "bruck", "rail"}) {
      const Algorithm* algorithm = find(Collective::all_to_all, name);
      const plan::Request request = request_of(Collective::all_to_all, 10);
      for (const uint64_t chunk : {4, 1000}) {
        const auto report = check_on(*algorithm, request, topology, {1, chunk});
        ASSERT_TRUE(report.is_ok()) << report.status().text();
        const plan::Cost cost = algorithm->cost(request, topology, {1, chunk});
        EXPECT_GE(cost.outer_bytes, static_cast<double>(nic_bytes(*report, topology)))
            << name << " on " << shape.name;
        EXPECT_LE(cost.outer_bytes, 2.0 * static_cast<double>(nic_bytes(*report, topology)))
            << name << " on " << shape.name;
        if (std::string_view(name) != "rail") {
          EXPECT_EQ(cost.spine_bytes > 0, report->cross_rail_bytes > 0);
        } else {
          EXPECT_EQ(report->cross_rail_bytes, 0u);
        }
      }
    }
  }
}

TEST(GatherScatter, AreRightForAnyRootAndNumberOfRanks) {
  for (int p = 1; p <= 64; p++) {
    const topology::Topology topology = topology_of(regular(1, p, 1));
    for (const Collective collective : {Collective::gather, Collective::scatter}) {
      for (const char* name : {"direct", "tree"}) {
        const Algorithm* algorithm = find(collective, name);
        for (int root = 0; root < p; root += p <= 18 ? 1 : p / 3) {
          for (const uint64_t count : {0, 1, 6}) {
            if (p > 18 && count == 6) continue;
            const plan::Request request =
                request_of(collective, count, (count + static_cast<uint64_t>(root)) % 2 == 0, root);
            const auto report = check_on(*algorithm, request, topology, {2, 1000});
            ASSERT_TRUE(report.is_ok()) << name << " " << p << " ranks root " << root << " "
                                        << plan::text_of(request) << ": " << report.status().text();
            const uint64_t blocks = static_cast<uint64_t>(p - 1) * count * 4;
            EXPECT_EQ(collective == Collective::gather ? report->received_by(root)
                                                       : report->sent_by(root),
                      blocks);
          }
        }
      }
    }
  }
}

TEST(GatherScatter, TreesNeedLogarithmicallyManyMessages) {
  for (const int p : {2, 5, 16, 37}) {
    const topology::Topology topology = topology_of(regular(1, p, 1));
    for (const int root : {0, p / 2}) {
      const auto gather = check_on(*find(Collective::gather, "tree"),
                                   request_of(Collective::gather, 2, false, root), topology, {});
      const auto scatter = check_on(*find(Collective::scatter, "tree"),
                                    request_of(Collective::scatter, 2, false, root), topology, {});
      ASSERT_TRUE(gather.is_ok() && scatter.is_ok());
      // One more where a subtree passes the last rank.
      EXPECT_LE(messages_to(*gather, root), log2_ceil_of(p) + (root == 0 ? 0 : 1));
      EXPECT_LE(messages_from(*scatter, root), log2_ceil_of(p) + (root == 0 ? 0 : 1));
    }
  }
}

}  // namespace
}  // namespace railccl::algorithms
