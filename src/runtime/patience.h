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
// One thread at a time.
#pragma once

#include <algorithm>

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
  Patience() = default;
  /// `crowded`: there are more ranks than cores; start out impatient.
  explicit Patience(bool crowded) : spins_(crowded ? kSpinsMin : kSpinsMax) {}

  /// Fruitless rounds before the first yield, and yields before the first sleep.
  int spins() const { return spins_; }
  int yields() const { return yields_; }

  /// A wait is over after so many fruitless rounds in all.
  void learn(int rounds) {
    if (rounds <= spins_) {
      // Only a wait worth the name says something.
      if (rounds > spins_ / 8) spins_ = std::min(kSpinsMax, 2 * spins_);
    } else if (rounds <= spins_ + yields_) {
      spins_ = std::max(kSpinsMin, spins_ / 2);
      yields_ = std::min(kYieldsMax, 2 * yields_);
    } else {
      spins_ = std::max(kSpinsMin, spins_ / 2);
      yields_ = std::max(kYieldsMin, yields_ / 2);
    }
  }

 private:
  static constexpr int kSpinsMax = 2000, kSpinsMin = 4;
  static constexpr int kYieldsMax = 16, kYieldsMin = 2;
  int spins_ = kSpinsMax;
  int yields_ = kYieldsMax;
};

}  // namespace railccl::runtime
