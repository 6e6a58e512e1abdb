// Habit: which of two ways of doing the same thing is the faster here, learned by doing it.
//
// For choices that change no result and concern nobody else, whose better side depends on what a
// program cannot see (which cores share a cache, what else runs). Both ways are tried in turn a few
// times; after that the faster one is taken, and the other one tried now and then, because the
// answer may change. One thread at a time.
#pragma once

#include <cstdint>

namespace railccl::runtime {

class Habit {
 public:
  /// The way to take this time: 0 or 1.
  int way() const {
    if (runs_ < kTrials) return static_cast<int>(runs_ % 2);
    const int better = took_[1] < took_[0] ? 1 : 0;
    return runs_ % kCurious == 0 ? 1 - better : better;
  }
  /// It took that long. One slow run says little: a way's figure rises slowly and falls at once.
  void learn(int way, int64_t ns) {
    int64_t& took = took_[way];
    took = took == 0 || ns < took ? ns : took + (ns - took) / kSlowness;
    runs_++;
  }

 private:
  static constexpr uint32_t kTrials = 6, kCurious = 32;
  static constexpr int64_t kSlowness = 8;
  uint32_t runs_ = 0;
  int64_t took_[2] = {0, 0};
};

}  // namespace railccl::runtime
