// Patience: how a waiting thread passes its time, learned from how its last waits ended.
//
// Where every rank has a core to itself, news comes within microseconds: spinning is right. Where
// ranks share cores, the peer cannot run while we spin: the core is to be handed over at once, by
// yielding. Nobody can tell beforehand which it is (counting ranks and cores misses the other
// programs), so each wait teaches the next: one that ended while spinning doubles the spins
// allowed, one that outlasted them halves them. A look costs nanoseconds in memory and a system
// call at a socket, so there is a limit in time as well, which then says how many spins were
// enough.
//
// Yielding goes on until it has cost this core about as much as a sleep and its wake-up; who sleeps
// after that has at most doubled what the wait costs (Karlin, Manasse, McGeoch & Owicki 1994). Time
// in which another thread ran does not count: it was put to use, most likely by the very ranks that
// are waited for, which a sleep would only burden with waking us. Nor would a mere count of yields
// do: it is over in no time when nobody else wants the core, and then everyone sleeps for no other
// reason than that everyone else does. But beside programs that keep the core busy each yield costs
// a whole time slice, while a sleeper that is woken goes first: after such a yield, waits sleep
// without yielding for a while.
//
//   Wait wait(patience);
//   while (!look()) {
//     if (wait.will_yield()) ...        // others may run now: let go of what they need
//     if (!wait.stay_awake()) sleep();  // spins a little or yields once, as long as that is right
//   }
//   wait.over();
#pragma once

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

#include "base/clock.h"

namespace railccl::runtime {

/// What to do between two looks at memory that another core will write.
inline void relax_core() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// What the waits of a communicator have learned. Any thread: what two threads learn at the same
/// time may be lost, which does no harm.
class Patience {
 public:
  /// `crowded`: there are more ranks than cores. Then waits begin impatient, and never spin for
  /// longer than a yield takes: whoever spins keeps a rank from the core.
  explicit Patience(bool crowded = false) { begin(crowded); }
  void begin(bool crowded) {
    set(&spins_most_, crowded ? kSpinsCrowded : kSpinsMax);
    set(&spins_, crowded ? kSpinsMin : kSpinsMax);
  }

  /// Fruitless looks before the first yield.
  int spins() const { return spins_.load(std::memory_order_relaxed); }
  /// Are yields worth trying?
  bool yields() const { return sleepers_.load(std::memory_order_relaxed) == 0; }

  /// A wait is over after so many fruitless looks; `spun` is how many of them it could have spun,
  /// where its time for that ran out.
  void learn(int looks, int spun = std::numeric_limits<int>::max()) {
    const int spins = std::min(this->spins(), spun);
    if (looks > spins) {
      set(&spins_, std::max(kSpinsMin, spins / 2));
      const int left = sleepers_.load(std::memory_order_relaxed);
      if (left > 0) set(&sleepers_, left - 1);
    } else if (looks > spins / 8) {  // only a wait worth the name says something
      set(&spins_, std::min(spins_most_.load(std::memory_order_relaxed), 2 * spins));
    }
  }
  /// A yield took so long.
  void yielded(int64_t ns) {
    const int last = backoff_.load(std::memory_order_relaxed);
    if (ns < kSliceNs) {
      if (last > 0) set(&backoff_, last - 1);
      return;
    }
    const int next = std::clamp(2 * last, kBackoffMin, kBackoffMax);
    set(&backoff_, next);
    set(&sleepers_, next);
  }

  /// How long a wait spins at most.
  static constexpr int64_t kSpinNs = 60'000;
  /// What a wait may spend on yields, about what a sleep and its wake-up take both sides; and the
  /// most that one yield costs, whoever ran meanwhile: two changes of threads.
  static constexpr int64_t kYieldNs = 50'000, kSwitchNs = 1000;
  /// A yield that takes longer met a program that used up its time slice, not ranks that wait too.
  static constexpr int64_t kSliceNs = 700'000;

 private:
  static constexpr int kSpinsMax = 2000, kSpinsCrowded = 64, kSpinsMin = 4;
  static constexpr int kBackoffMin = 16, kBackoffMax = 1024;
  // Relaxed: nothing else depends on them.
  static void set(std::atomic<int>* value, int to) { value->store(to, std::memory_order_relaxed); }
  std::atomic<int> spins_{0};
  std::atomic<int> spins_most_{0};
  std::atomic<int> sleepers_{0};  // waits to come that sleep without yielding
  std::atomic<int> backoff_{0};   // of these, how many it were the last time
};

/// The real world, for Wait.
struct Core {
  static int64_t now() { return now_ns(); }
  static void relax() { relax_core(); }
  static void yield() { sched_yield(); }
};

/// One wait after the other, each until over(). One thread.
template <typename World = Core>
class WaitIn {
 public:
  explicit WaitIn(Patience& patience) : patience_(patience) {}

  /// Fruitless looks of this wait so far.
  int looks() const { return looks_; }
  /// Will the next stay_awake() let other threads have the core, or say that it is time to sleep?
  bool will_yield() const { return looks_ >= std::min(patience_.spins(), spun_); }
  /// A look brought nothing. Spins once or yields once; false: sleep instead.
  bool stay_awake() {
    looks_++;
    if (looks_ <= std::min(patience_.spins(), spun_) && !spun_enough()) {
      // A pause also where the answer is close: looking at a line takes it from its writer.
      World::relax();
      return true;
    }
    if (!patience_.yields()) return false;
    if (spent_ns_ >= Patience::kYieldNs) return false;
    const int64_t before = World::now();
    World::yield();
    const int64_t took = World::now() - before;
    spent_ns_ += std::min(took, Patience::kSwitchNs);
    patience_.yielded(took);
    return true;
  }
  /// News has come, or nobody waits any more.
  void over() {
    if (looks_ == 0) return;
    patience_.learn(looks_, spun_);
    looks_ = 0;
    spun_ = kNoLimit;
    spinning_since_ns_ = 0;
    spent_ns_ = 0;
  }

 private:
  static constexpr int kNoLimit = std::numeric_limits<int>::max();
  static constexpr int kClockEvery = 64;  // looks

  /// Has it spun as long as it may? The clock is read now and then only.
  bool spun_enough() {
    if (looks_ % kClockEvery != 0) return false;
    const int64_t now = World::now();
    if (spinning_since_ns_ == 0) spinning_since_ns_ = now;
    if (now - spinning_since_ns_ < Patience::kSpinNs) return false;
    spun_ = looks_ - 1;
    return true;
  }

  Patience& patience_;
  int looks_ = 0;
  int spun_ = kNoLimit;  // looks after which its time to spin was over
  int64_t spinning_since_ns_ = 0;
  int64_t spent_ns_ = 0;  // on yields
};
using Wait = WaitIn<>;

}  // namespace railccl::runtime
