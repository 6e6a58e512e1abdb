// Shows that flows share links max-min fairly: cases solved by hand, and random networks in which
// following every change gives what progressive filling from nothing gives.
#include "simulator/sharing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace railccl::simulator {
namespace {

void settle(Sharing& sharing) {
  sharing.settle([](int, double) {});
}

int start(Sharing& sharing, const std::vector<Use>& uses) { return sharing.start(uses); }

TEST(Sharing, OneLinkIsSharedEqually) {
  Sharing sharing;
  const int link = sharing.add_link(12);
  const int a = start(sharing, {{link, 1}}), b = start(sharing, {{link, 1}});
  const int c = start(sharing, {{link, 1}});
  settle(sharing);
  for (const int flow : {a, b, c}) EXPECT_DOUBLE_EQ(sharing.rate(flow), 4);
  sharing.finish(b);
  settle(sharing);
  EXPECT_DOUBLE_EQ(sharing.rate(a), 6);
  EXPECT_DOUBLE_EQ(sharing.rate(c), 6);
}

// Three links in a row, of 10, 4 and 6. One flow takes all of them, each link has one of its own.
// The link of 4 is full first, at 2 and 2; so 8 are left on the first and 4 on the third.
TEST(Sharing, ParkingLot) {
  Sharing sharing;
  const int x = sharing.add_link(10), y = sharing.add_link(4), z = sharing.add_link(6);
  const int all = start(sharing, {{x, 1}, {y, 1}, {z, 1}});
  const int first = start(sharing, {{x, 1}}), second = start(sharing, {{y, 1}}),
            third = start(sharing, {{z, 1}});
  settle(sharing);
  EXPECT_DOUBLE_EQ(sharing.rate(all), 2);
  EXPECT_DOUBLE_EQ(sharing.rate(first), 8);
  EXPECT_DOUBLE_EQ(sharing.rate(second), 2);
  EXPECT_DOUBLE_EQ(sharing.rate(third), 4);
  // Twice as much in the middle: now the third link is full first, at 3 and 3; 7 and 5 are left.
  sharing.set_capacity(y, 8);
  settle(sharing);
  EXPECT_DOUBLE_EQ(sharing.rate(all), 3);
  EXPECT_DOUBLE_EQ(sharing.rate(first), 7);
  EXPECT_DOUBLE_EQ(sharing.rate(second), 5);
  EXPECT_DOUBLE_EQ(sharing.rate(third), 3);
  sharing.set_capacity(y, 0);
  settle(sharing);
  EXPECT_DOUBLE_EQ(sharing.rate(all), 0);
  EXPECT_DOUBLE_EQ(sharing.rate(first), 10);
  EXPECT_DOUBLE_EQ(sharing.rate(second), 0);
  EXPECT_DOUBLE_EQ(sharing.rate(third), 6);
}

// A memory of 26 is read at 4 and written at 4 by two flows that other links hold there; a
// reduction that reads two and writes one byte for each of its own gets (26 - 8) / 3.
TEST(Sharing, WeightsCountAgainstTheCapacity) {
  Sharing sharing;
  const int memory = sharing.add_link(26), in = sharing.add_link(4), out = sharing.add_link(4);
  const int arriving = start(sharing, {{in, 1}, {memory, 1}});
  const int leaving = start(sharing, {{out, 1}, {memory, 1}});
  const int reduction = start(sharing, {{memory, 3}});
  settle(sharing);
  EXPECT_DOUBLE_EQ(sharing.rate(arriving), 4);
  EXPECT_DOUBLE_EQ(sharing.rate(leaving), 4);
  EXPECT_DOUBLE_EQ(sharing.rate(reduction), 6);
}

TEST(Sharing, OnlyFlowsWhoseRatesChangeAreTold) {
  Sharing sharing;
  const int x = sharing.add_link(10), y = sharing.add_link(10);
  start(sharing, {{x, 1}});
  settle(sharing);
  std::vector<int> told;
  const int other = start(sharing, {{y, 1}});
  sharing.settle([&](int flow, double rate) {
    told.push_back(flow);
    EXPECT_DOUBLE_EQ(rate, 10);
  });
  EXPECT_EQ(told, std::vector<int>{other});
}

// Max-min fair is what progressive filling gives, and nothing else.
TEST(Sharing, FollowingChangesAgreesWithProgressiveFilling) {
  for (uint64_t seed = 1; seed <= 60; seed++) {
    Random random(seed);
    Sharing sharing;
    const int links = 2 + static_cast<int>(random.below(12));
    for (int l = 0; l < links; l++)
      sharing.add_link(static_cast<double>(1 + random.below(20)) * (random.chance(0.1) ? 0.1 : 1));
    std::vector<int> flows;
    std::vector<double> weights_of_link(static_cast<size_t>(links));
    for (int change = 0; change < 80; change++) {
      if (!flows.empty() && random.chance(0.4)) {
        const size_t which = random.below(flows.size());
        sharing.finish(flows[which]);
        flows.erase(flows.begin() + static_cast<std::ptrdiff_t>(which));
      } else if (random.chance(0.1)) {
        sharing.set_capacity(static_cast<int>(random.below(static_cast<uint64_t>(links))),
                             static_cast<double>(random.below(20)));
      } else {
        std::vector<Use> uses;
        for (int l = 0; l < links; l++)
          if (random.chance(0.3)) uses.push_back({l, static_cast<double>(1 + random.below(3))});
        if (uses.empty()) uses.push_back({0, 1});
        flows.push_back(sharing.start(uses));
      }
      if (random.chance(0.5)) continue;
      settle(sharing);
      std::vector<double> rates;
      for (const int flow : flows) rates.push_back(sharing.rate(flow));
      sharing.fill();
      settle(sharing);
      for (size_t f = 0; f < flows.size(); f++)
        ASSERT_NEAR(sharing.rate(flows[f]), rates[f], 1e-9 * std::max(1.0, rates[f]))
            << "seed " << seed << " change " << change << " flow " << f;
    }
  }
}

}  // namespace
}  // namespace railccl::simulator
