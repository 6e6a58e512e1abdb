// Shows how waiting learns: what pays is done longer, what does not is given up, within limits, and
// a wait of one kind after many of the other brings it back step by step.
#include "runtime/patience.h"

#include <gtest/gtest.h>

namespace railccl::runtime {
namespace {

TEST(Patience, StartsByTheNumberOfRanks) {
  EXPECT_GT(Patience().spins(), 1000);
  EXPECT_GT(Patience(false).spins(), 1000);
  EXPECT_LT(Patience(true).spins(), 10);
  EXPECT_GT(Patience(true).spins(), 0);
}

TEST(Patience, SpinsLessWhenWaitsOutlastTheSpinning) {
  Patience patience;
  for (int spins = patience.spins(); spins >= 8; spins = patience.spins()) {
    patience.learn(spins + 1);
    EXPECT_EQ(patience.spins(), spins / 2);
  }
  const int least = patience.spins();
  for (int i = 0; i < 100; i++) patience.learn(least + 1);
  EXPECT_GT(patience.spins(), 0) << "a look or two always come before a yield";
  EXPECT_LT(patience.spins(), 8);
}

TEST(Patience, SpinsMoreWhenWaitsEndWhileSpinning) {
  Patience patience(true);
  const int most = Patience().spins();
  for (int waits = 0; patience.spins() < most; waits++) {
    ASSERT_LT(waits, 12) << "it takes too long to come back";
    const int spins = patience.spins();
    patience.learn(spins);
    EXPECT_EQ(patience.spins(), std::min(most, 2 * spins));
  }
  patience.learn(most);
  EXPECT_EQ(patience.spins(), most);
}

TEST(Patience, LearnsNothingFromWaitsThatWereNone) {
  Patience patience(true);
  for (int i = 0; i < 8; i++) patience.learn(patience.spins());
  while (patience.spins() > 100) patience.learn(patience.spins() + 1);
  const int spins = patience.spins();
  const int yields = patience.yields();
  for (int i = 0; i < 100; i++) patience.learn(spins / 8);
  EXPECT_EQ(patience.spins(), spins);
  EXPECT_EQ(patience.yields(), yields);
  patience.learn(spins / 8 + 1);
  EXPECT_EQ(patience.spins(), 2 * spins);
}

TEST(Patience, YieldsAsLongAsYieldsBringTheNews) {
  Patience patience(true);
  const auto yielded = [&] { return patience.spins() + patience.yields(); };
  const int most = patience.yields();
  for (int i = 0; i < 50; i++) patience.learn(yielded() + 1);  // slept
  const int least = patience.yields();
  EXPECT_GT(least, 0);
  EXPECT_LT(least, most);
  patience.learn(yielded());
  EXPECT_EQ(patience.yields(), 2 * least);
  for (int i = 0; i < 50; i++) patience.learn(yielded());
  EXPECT_EQ(patience.yields(), most);
  patience.learn(yielded() + 1);
  EXPECT_EQ(patience.yields(), most / 2);
}

TEST(Patience, EndedSpinsLeaveTheYieldsAlone) {
  Patience patience;
  for (int i = 0; i < 5; i++) patience.learn(100'000);  // slept
  const int yields = patience.yields();
  for (int i = 0; i < 20; i++) patience.learn(patience.spins());
  EXPECT_EQ(patience.yields(), yields);
}

}  // namespace
}  // namespace railccl::runtime
