// Shows that writes are ordinary until several in a row were slow, then streaming with ever rarer
// trials of ordinary ones, until one of these is fast.
#include "transport/store_habit.h"

#include <gtest/gtest.h>

namespace railccl::transport {
namespace {

constexpr size_t kBytes = 16 << 10;

struct Count {
  int streaming = 0, timed = 0;
};
Count write(StoreHabit& habit, int times, int64_t ordinary_ns) {
  Count count;
  for (int i = 0; i < times; i++) {
    const StoreHabit::Way way = habit.next();
    EXPECT_FALSE(way.streaming && way.timed) << "only ordinary writes say something";
    count.streaming += way.streaming ? 1 : 0;
    count.timed += way.timed ? 1 : 0;
    if (way.timed) habit.took(kBytes, ordinary_ns);
  }
  return count;
}
constexpr int64_t kFast = 800, kSlow = 8000;

TEST(StoreHabit, FastWritesStayOrdinaryAndAreSeldomTimed) {
  StoreHabit habit;
  const Count count = write(habit, 800, kFast);
  EXPECT_EQ(count.streaming, 0);
  EXPECT_GE(count.timed, 80);
  EXPECT_LE(count.timed, 110);
}

TEST(StoreHabit, SlowWritesSoonStreamAndTrialsBecomeRare) {
  StoreHabit habit;
  EXPECT_GE(write(habit, 100, kSlow).streaming, 90);
  write(habit, 1000, kSlow);
  const Count count = write(habit, 10'000, kSlow);
  EXPECT_GE(count.timed, 10) << "it must notice when the cores have changed";
  EXPECT_LE(count.timed, 25);
  EXPECT_EQ(count.streaming, 10'000 - count.timed);
}

TEST(StoreHabit, AnInterruptionChangesNothing) {
  StoreHabit habit;
  for (int i = 0; i < 100; i++) {
    write(habit, 20, kFast);
    EXPECT_EQ(write(habit, 2, kSlow).streaming, 0);
    write(habit, 2, kFast);
    EXPECT_FALSE(habit.streaming());
  }
}

TEST(StoreHabit, FollowsTheCores) {
  StoreHabit habit;
  for (int i = 0; i < 5; i++) {
    write(habit, 2000, kSlow);
    EXPECT_TRUE(habit.streaming());
    write(habit, 600, kFast);
    EXPECT_FALSE(habit.streaming());
  }
}

}  // namespace
}  // namespace railccl::transport
