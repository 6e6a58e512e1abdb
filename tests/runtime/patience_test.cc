// Shows how waiting learns, in a world with a clock of its own: what pays is done longer, what does
// not is given up, within limits, and a wait of one kind after many of the other brings it back.
#include "runtime/patience.h"

#include <gtest/gtest.h>

namespace railccl::runtime {
namespace {

/// Time passes by what is done in it.
struct World {
  static inline int64_t time = 0, yield_ns = 0, look_ns = 0;
  static inline int relaxed = 0, yielded = 0;
  static int64_t now() { return time; }
  static void relax() {
    relaxed++;
    time += look_ns;
  }
  static void yield() {
    yielded++;
    time += yield_ns;
  }
  static void begin(int64_t ns) {
    time = 1;
    yield_ns = ns;
    look_ns = 30;
    relaxed = yielded = 0;
  }
};
using TestWait = WaitIn<World>;

/// Waits until it is time to sleep; the looks it took.
int wait_in_vain(TestWait& wait) {
  while (wait.stay_awake()) {
    EXPECT_LT(wait.looks(), 1'000'000);
    if (wait.looks() >= 1'000'000) break;
  }
  return wait.looks();
}

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
  Patience patience;
  const int most = patience.spins();
  while (patience.spins() > 8) patience.learn(patience.spins() + 1);
  for (int waits = 0; patience.spins() < most; waits++) {
    ASSERT_LT(waits, 12) << "it takes too long to come back";
    const int spins = patience.spins();
    patience.learn(spins);
    EXPECT_EQ(patience.spins(), std::min(most, 2 * spins));
  }
  patience.learn(most);
  EXPECT_EQ(patience.spins(), most);
}

TEST(Patience, WithMoreRanksThanCoresSpinningStaysShort) {
  Patience patience(true);
  for (int i = 0; i < 100; i++) patience.learn(patience.spins());
  EXPECT_LE(patience.spins(), 64);
  EXPECT_GE(patience.spins(), 16);
}

TEST(Patience, LearnsNothingFromWaitsThatWereNone) {
  Patience patience;
  while (patience.spins() > 100) patience.learn(patience.spins() + 1);
  const int spins = patience.spins();
  for (int i = 0; i < 100; i++) patience.learn(spins / 8);
  EXPECT_EQ(patience.spins(), spins);
  patience.learn(spins / 8 + 1);
  EXPECT_EQ(patience.spins(), 2 * spins);
}

TEST(Patience, SpinsThenYieldsThenSleeps) {
  Patience patience(true);
  World::begin(1000);
  TestWait wait(patience);
  const int spins = patience.spins();
  for (int i = 0; i < spins; i++) {
    EXPECT_FALSE(wait.will_yield());
    EXPECT_TRUE(wait.stay_awake());
  }
  EXPECT_EQ(World::relaxed, spins);
  EXPECT_EQ(World::yielded, 0);
  EXPECT_TRUE(wait.will_yield());
  wait_in_vain(wait);
  EXPECT_EQ(World::yielded, Patience::kYieldNs / 1000);
  // It sleeps on until the wait is over; the next one begins anew.
  EXPECT_FALSE(wait.stay_awake());
  wait.over();
  EXPECT_EQ(wait.looks(), 0);
  EXPECT_TRUE(wait.stay_awake());
}

TEST(Patience, YieldsByWhatTheyCostNotByNumber) {
  Patience patience(true);
  for (const int64_t ns : {100, 500, 1000, 10'000, 200'000}) {
    World::begin(ns);
    TestWait wait(patience);
    wait_in_vain(wait);
    // What others used is not counted.
    EXPECT_EQ(World::yielded, Patience::kYieldNs / std::min<int64_t>(ns, 1000));
  }
  // However many waits ended in sleep before, the next one yields as long.
  for (int i = 0; i < 100; i++) patience.learn(100'000);
  World::begin(1000);
  TestWait wait(patience);
  wait_in_vain(wait);
  EXPECT_EQ(World::yielded, Patience::kYieldNs / 1000);
}

TEST(Patience, BesideABusyProgramItSleepsAtOnceAndTriesEverMoreRarely) {
  Patience patience(true);
  int waits = 0, last = 0, gap = 0, most = 0;
  World::begin(3'000'000);
  for (; waits < 10'000; waits++) {
    const int before = World::yielded;
    TestWait wait(patience);
    wait_in_vain(wait);
    wait.over();
    ASSERT_LE(World::yielded - before, 1) << "one slice is lost at a time";
    if (World::yielded == before) continue;
    EXPECT_GE(waits - last, gap) << "at wait " << waits;
    gap = waits - last;
    last = waits;
    most = std::max(most, gap);
  }
  EXPECT_LT(World::yielded, 30);
  EXPECT_GT(World::yielded, 10) << "it must look again whether the program is gone";
  // It is: the first wait that tries learns of it.
  World::begin(1000);
  for (waits = 0; World::yielded == 0; waits++) {
    ASSERT_LE(waits, most);
    TestWait wait(patience);
    wait_in_vain(wait);
    wait.over();
  }
  TestWait wait(patience);
  EXPECT_TRUE(patience.yields());
}

// A look at a socket is a system call: a number of looks that is right for memory would be a long
// time there.
TEST(Patience, SpinsByTimeWhereLooksAreSlow) {
  Patience patience;
  World::begin(1000);
  TestWait wait(patience);
  World::look_ns = 500;
  int spun = 0;
  for (; World::yielded == 0; spun++) ASSERT_TRUE(wait.stay_awake());
  EXPECT_LE(spun * World::look_ns, Patience::kSpinNs + 2 * 64 * World::look_ns);
  EXPECT_GE(spun * World::look_ns, Patience::kSpinNs);
  // Having outlasted its time, it teaches to spin less, whatever the number of looks.
  wait.over();
  EXPECT_LE(patience.spins(), spun / 2);
  EXPECT_GE(patience.spins(), spun / 4);
  // One that ends in time teaches to spin more.
  World::begin(1000);
  const int before = patience.spins();
  for (int i = 0; i < before; i++) ASSERT_TRUE(wait.stay_awake());
  EXPECT_EQ(World::yielded, 0);
  wait.over();
  EXPECT_EQ(patience.spins(), 2 * before);
}

}  // namespace
}  // namespace railccl::runtime
