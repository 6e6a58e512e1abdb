// Shows that every registered algorithm is right for every number of ranks to 64 and on clusters of
// uneven shape: walks the registry and has the checker prove each plan, over counts around the
// number of ranks, odd ones and none, in and out of place, all roots, several channels and chunks.
#include <set>

#include "harness.h"

namespace railccl::algorithms {
namespace {

constexpr uint64_t kLarge = 1 << 16;

Shape flat(int p) { return regular(1, p, 1); }

TEST(Sweep, FewRanks) {
  for (int p = 1; p <= 9; p++) {
    const auto n = static_cast<uint64_t>(p);
    std::set<uint64_t> counts = {0, 1, 2, n - 1, n, n + 1, 101};
    EXPECT_GT(
        prove_all(
            {{flat(p)}, {counts.begin(), counts.end()}, {{1, kLarge}, {2, 7}, {4, 13}}, false}),
        0);
  }
}

TEST(Sweep, SingleElementChunks) {
  for (const int p : {1, 2, 3, 5, 8})
    EXPECT_GT(prove_all({{flat(p)}, {5, 24}, {{1, 1}, {2, 1}}, false}), 0);
}

TEST(Sweep, EveryRoot) {
  for (int p = 1; p <= 8; p++) EXPECT_GT(prove_all({{flat(p)}, {0, 37}, {{2, 5}}, true}), 0);
}

TEST(Sweep, LargeCounts) {
  for (const int p : {2, 3, 4, 7})
    EXPECT_GT(prove_all({{flat(p)}, {1000, 1003}, {{1, kLarge}, {4, 64}}, false}), 0);
}

TEST(Sweep, ManyRanks) {
  for (int p = 10; p <= 64; p += test::by_build(1, 9, 9)) {
    const auto n = static_cast<uint64_t>(p);
    // Channels and chunks make plans of many ranks slow to prove; 33 fill a send window twice.
    const bool splits = p % 2 == 1 && p <= 33;
    const plan::Tuning tuning = splits ? plan::Tuning{2, n / 2 + 1} : plan::Tuning{1, kLarge};
    EXPECT_GT(prove_all({{flat(p)}, {p % 3 == 0 ? n - 1 : 2 * n + 5}, {tuning}, false, false}), 0);
  }
}

TEST(Sweep, Clusters) {
  const std::vector<Shape> shapes = {
      regular(2, 1, 1),
      regular(3, 2, 2),
      regular(2, 4, 1),
      regular(3, 3, 3, true),
      regular(5, 2, 2, true),
      {"3+1+2 ranks, one rail", {3, 1, 2}, {{0}, {0}, {0}}},
      {"1+4 dealt, fewer NICs than ranks", {1, 4}, {{0}, {0, 1}}, true},
      {"a host without ranks", {2, 0, 3}, {{0, 1}, {0}, {0, 1}}},
  };
  EXPECT_GT(prove_all({shapes, {0, 1, 5, 67}, {{1, kLarge}, {2, 7}, {4, 2}}, false}), 0);
}

TEST(Sweep, NamesAreUniquePerCollective) {
  std::set<std::string> names;
  for (const Algorithm* algorithm : all()) {
    EXPECT_TRUE(
        names.insert(std::string(railccl::name_of(algorithm->collective)) + algorithm->name).second)
        << algorithm->name;
    EXPECT_EQ(find(algorithm->collective, algorithm->name), algorithm);
  }
}

}  // namespace
}  // namespace railccl::algorithms
