// Seconds of a clock that never goes back.
#pragma once

#include <chrono>

namespace railccl::train {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace railccl::train
