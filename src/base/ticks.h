// Ticks: stamps that cost a few nanoseconds, for what happens millions of times per second and is
// rarely looked at. Only who looks at them turns them into the time that now_ns() gives.
//
// On x86-64 with a counter that runs at one rate in all states of the core (the processor says
// whether), a stamp is the counter; on 64-bit ARM its generic timer; elsewhere now_ns().
#pragma once

#include <cstdint>

#include "base/clock.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace railccl {

/// Does the processor have a counter that can be a clock?
inline bool has_steady_counter() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  // "Invariant TSC", in the leaf on power management.
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d >> 8 & 1) != 0;
#elif defined(__aarch64__)
  return true;
#else
  return false;
#endif
}

/// `steady`: has_steady_counter(), which is to be asked once.
inline uint64_t ticks(bool steady) {
#if defined(__x86_64__)
  if (steady) [[likely]]
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  if (steady) {
    uint64_t value;
    asm volatile("mrs %0, cntvct_el0" : "=r"(value));
    return value;
  }
#endif
  return static_cast<uint64_t>(now_ns());
}

/// About how many ticks a microsecond has: for what need not be exact.
inline uint64_t ticks_per_us(bool steady) {
#if defined(__x86_64__)
  if (steady) return 2500;  // they count at 2 to 4 GHz
#elif defined(__aarch64__)
  if (steady) {
    uint64_t per_s;
    asm volatile("mrs %0, cntfrq_el0" : "=r"(per_s));
    return per_s < 1'000'000 ? 1 : per_s / 1'000'000;
  }
#endif
  static_cast<void>(steady);
  return 1000;
}

/// Ticks and nanoseconds at one moment. Two of them, some time apart, tell how they relate.
struct TickMoment {
  uint64_t ticks = 0;
  int64_t ns = 0;

  static TickMoment now(bool steady) {
    // What comes between the two reads is no longer than half of the shortest of some.
    TickMoment best;
    uint64_t shortest = ~uint64_t{0};
    for (int i = 0; i < 3; i++) {
      const uint64_t before = railccl::ticks(steady);
      const int64_t ns = now_ns();
      const uint64_t after = railccl::ticks(steady);
      if (after - before >= shortest) continue;
      shortest = after - before;
      best = {before + (after - before) / 2, ns};
    }
    return best;
  }
  /// The time of a stamp that is not far from these moments; `later` is the later of them.
  static int64_t ns_of(uint64_t stamp, const TickMoment& earlier, const TickMoment& later) {
    const auto ticks = static_cast<double>(later.ticks - earlier.ticks);
    const double rate = ticks > 0 ? static_cast<double>(later.ns - earlier.ns) / ticks : 1;
    return later.ns - static_cast<int64_t>(
                          static_cast<double>(static_cast<int64_t>(later.ticks - stamp)) * rate);
  }
};

}  // namespace railccl
