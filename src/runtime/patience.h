// Patience: how long a waiting thread stays awake, learned from how its last waits ended.
//
// Where every rank has a core to itself, news comes within microseconds: spinning is right, and a
// sleep with its wake-up (5-10 us) would cost more. Where ranks share cores, or other programs keep
// the cores busy, the peer cannot run while we spin: the core is to be handed over at once. Nobody
// can tell beforehand which it is (counting ranks and cores misses the other programs), so each
// wait teaches the next: one that ended while spinning doubles the spins allowed, one that
// outlasted them halves them, and likewise for yields. Yields have their own limit, because beside
// busy programs each one costs a whole time slice while a woken sleeper goes first.
//
// Any thread: what two threads learn at the same time may be lost, which does no harm.
#pragma once

#include <algorithm>
#include <atomic>

namespace railccl::runtime {

/// What to do between two looks at memory that another core will write.
inline void relax_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Patience {
 public:
  /// `crowded`: there are more ranks than cores; be impatient to begin with.
  explicit Patience(bool crowded = false) { begin(crowded); }
  void begin(bool crowded) {
    set(&spins_, crowded ? kSpinsMin : kSpinsMax);
    set(&yields_, kYieldsMax);
  }

  /// Fruitless rounds before the first yield, and yields before the first sleep.
  int spins() const { return spins_.load(std::memory_order_relaxed); }
  int yields() const { return yields_.load(std::memory_order_relaxed); }

  /// A wait is over after so many fruitless rounds in all.
  void learn(int rounds) {
    const int spins = this->spins(), yields = this->yields();
    if (rounds <= spins) {
      // Only a wait worth the name says something.
      if (rounds > spins / 8) set(&spins_, std::min(kSpinsMax, 2 * spins));
      return;
    }
    set(&spins_, std::max(kSpinsMin, spins / 2));
    set(&yields_, rounds <= spins + yields ? std::min(kYieldsMax, 2 * yields)
                                           : std::max(kYieldsMin, yields / 2));
  }

 private:
  static constexpr int kSpinsMax = 2000, kSpinsMin = 4;
  static constexpr int kYieldsMax = 16, kYieldsMin = 2;
  // Relaxed: nothing else depends on them.
  static void set(std::atomic<int>* limit, int value) {
    limit->store(value, std::memory_order_relaxed);
  }
  std::atomic<int> spins_;
  std::atomic<int> yields_;
};

}  // namespace railccl::runtime
