// Shows that the faster of two ways becomes the habit, that a slow run does not change it, and that
// a change of the world does.
#include "runtime/habit.h"

#include <gtest/gtest.h>

namespace railccl::runtime {
namespace {

/// Runs `times` rounds in which the ways take `ns`; how often way 1 was taken.
int ones(Habit& habit, int times, int64_t zero_ns, int64_t one_ns) {
  int taken = 0;
  for (int i = 0; i < times; i++) {
    const int way = habit.way();
    taken += way;
    habit.learn(way, way == 0 ? zero_ns : one_ns);
  }
  return taken;
}

TEST(Habit, TriesBothThenTakesTheFaster) {
  Habit first, second;
  EXPECT_EQ(ones(first, 6, 100, 200), 3);
  EXPECT_EQ(ones(second, 6, 200, 100), 3);
  EXPECT_LE(ones(first, 320, 100, 200), 11);
  EXPECT_GE(ones(second, 320, 200, 100), 309);
}

TEST(Habit, OneSlowRunChangesNothing) {
  Habit habit;
  ones(habit, 40, 100, 200);
  habit.learn(0, 500);
  EXPECT_EQ(ones(habit, 20, 100, 200), 0);
}

TEST(Habit, FollowsAChange) {
  Habit habit;
  ones(habit, 64, 100, 200);
  EXPECT_GE(ones(habit, 640, 300, 200), 500);
}

}  // namespace
}  // namespace railccl::runtime
