// AbortFlag: how a transport remembers that it was told to stop, and why.
//
// raised() is one load, for hot paths; raise() and why() take a lock. The first reason wins. Any
// thread may call anything.
#pragma once

#include <atomic>
#include <mutex>

#include "base/status.h"

namespace railccl::transport {

class AbortFlag {
 public:
  void raise(const Status& why) {
    std::lock_guard lock(mutex_);
    if (raised_.load(std::memory_order_relaxed)) return;
    why_ = why.is_ok() ? Status(Code::aborted, Scope::communicator, "aborted") : why;
    // Release, with the acquire in raised(): who sees the flag finds the reason in place.
    raised_.store(true, std::memory_order_release);
  }
  bool raised() const { return raised_.load(std::memory_order_acquire); }
  Status why() const {
    std::lock_guard lock(mutex_);
    return why_;
  }

 private:
  std::atomic<bool> raised_{false};
  mutable std::mutex mutex_;
  Status why_;
};

}  // namespace railccl::transport
