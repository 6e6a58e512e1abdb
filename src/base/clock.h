// Monotonic time: the only clock the library reads, and deadlines on it.
#pragma once

#include <time.h>

#include <cstdint>
#include <limits>

namespace railccl {

/// Nanoseconds of CLOCK_MONOTONIC.
inline int64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

/// A point in time after which a wait gives up.
class Deadline {
 public:
  static Deadline after_ms(int64_t ms) { return Deadline(now_ns() + ms * 1'000'000); }
  static Deadline never() { return Deadline(std::numeric_limits<int64_t>::max()); }
  bool passed() const {
    return at_ns_ != std::numeric_limits<int64_t>::max() && now_ns() >= at_ns_;
  }
  /// Milliseconds left, at least 0, at most `cap_ms` (the form poll and epoll take).
  int left_ms(int cap_ms) const {
    const int64_t left = (at_ns_ - now_ns() + 999'999) / 1'000'000;
    if (left <= 0) return 0;
    return left < cap_ms ? static_cast<int>(left) : cap_ms;
  }

 private:
  explicit Deadline(int64_t at_ns) : at_ns_(at_ns) {}
  int64_t at_ns_;
};

}  // namespace railccl
