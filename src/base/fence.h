// full_fence: orders everything before it before everything after it, for all cores.
//
// What two threads need when each first stores and then loads what the other stored (flag and
// data): without it both loads may come before both stores, and both miss the other's news.
#pragma once

#include <atomic>

namespace railccl {

inline void full_fence() {
#if defined(__SANITIZE_THREAD__)
  // ThreadSanitizer knows no fences. A read-modify-write of one common word is as good: the later
  // of two synchronises with the earlier.
  static std::atomic<unsigned> common{0};
  common.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace railccl
