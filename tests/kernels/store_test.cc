// Shows that streaming is chosen by the size of what a machine's ranks touch together, and that
// what was streamed is seen by another core before a flag that was set after it: a writer streams
// numbered pieces and publishes each number, a reader looks at the piece's end first, which leaves
// the processor last. Without the fence it fails now and then: once in 30 runs on a busy Zen 4.
#include <sched.h>

#include <atomic>
#include <thread>

#include "kernels/kernels.h"
#include "kernels_util.h"

namespace railccl::kernels {
namespace {

/// The least size per rank that streams.
size_t threshold(int ranks) {
  size_t low = 0, high = size_t{1} << 40;
  while (high - low > 1) {
    const size_t middle = low + (high - low) / 2;
    (store_for(middle, ranks) == Store::streaming ? high : low) = middle;
  }
  return high;
}

/// Mostly by spinning: what is late is late by a few hundred nanoseconds.
void wait_for(const std::atomic<uint64_t>& flag, uint64_t value) {
  // Acquire: partners are the two releases in the test.
  for (int spins = 0; flag.load(std::memory_order_acquire) != value; spins++)
    if (spins >= 2000) sched_yield();
}

TEST(Store, MoreRanksHaveLessCacheEach) {
  const size_t alone = threshold(1);
  EXPECT_GE(alone, size_t{64} << 10);
  EXPECT_LE(alone, size_t{4} << 30);
  for (int ranks = 2; ranks <= 1024; ranks *= 2) {
    const size_t each = threshold(ranks);
    EXPECT_LE(each, alone);
    // Together they have the caches of one rank at least, but for rounding.
    EXPECT_GE((each + 1) * static_cast<size_t>(ranks), alone);
    EXPECT_LE(each, threshold(ranks / 2));
  }
  const auto many = static_cast<int>(std::thread::hardware_concurrency()) * 1000;
  EXPECT_LT(threshold(many), alone);
}

TEST(Store, StreamedBytesComeBeforeTheFlag) {
  constexpr size_t kCount = 2048;
  constexpr uint64_t kRounds = 3000;
  std::vector<uint64_t> first(kCount), second(kCount);
  std::atomic<uint64_t> published{0}, taken{0};
  std::atomic<uint64_t> wrong{0};
  std::thread reader([&] {
    for (uint64_t round = 1; round <= kRounds; round++) {
      wait_for(published, round);
      for (size_t i = kCount; i-- > 0;)
        if (first[i] != round || second[i] != round) wrong.fetch_add(1, std::memory_order_relaxed);
      taken.store(round, std::memory_order_release);
    }
  });
  const std::vector<uint64_t> zeros(kCount);
  for (uint64_t round = 1; round <= kRounds; round++) {
    const std::vector<uint64_t> number(kCount, round);
    const void* srcs[2] = {number.data(), zeros.data()};
    void* dsts[2] = {first.data(), second.data()};
    switch (round % 3) {
      case 0:
        reduce_to(dsts, 2, srcs, 2, kCount, Datatype::uint64, Reduction::sum, {}, {},
                  Store::streaming);
        break;
      case 1:
        copy_to(dsts, 2, srcs[0], kCount * sizeof(uint64_t), Store::streaming);
        break;
      default:
        reduce(dsts[0], srcs, 2, kCount, Datatype::uint64, Reduction::sum, {}, {},
               Store::streaming);
        copy(dsts[1], srcs[0], kCount * sizeof(uint64_t), Store::streaming);
    }
    published.store(round, std::memory_order_release);
    wait_for(taken, round);
  }
  reader.join();
  EXPECT_EQ(wrong.load(std::memory_order_relaxed), 0u);
}

}  // namespace
}  // namespace railccl::kernels
