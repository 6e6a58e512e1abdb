// PathLog: what a transport's paths do and what happened to them, for whoever asks, from any
// thread: the transport's thread writes, others read copies.
#pragma once

#include <chrono>
#include <deque>
#include <mutex>
#include <string>
#include <utility>

#include "transport/link.h"

namespace railccl::transport {

class PathLog {
 public:
  void set(std::vector<PathState> paths) {
    std::lock_guard lock(mutex_);
    report_.paths = std::move(paths);
  }
  /// An event of this moment; the oldest go when there are many.
  void add(std::string text) {
    const auto since = std::chrono::system_clock::now().time_since_epoch();
    const int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
    std::lock_guard lock(mutex_);
    if (report_.events.size() == kEventsMax) report_.events.pop_front();
    report_.events.push_back({ms, std::move(text)});
  }
  PathReport report() const {
    std::lock_guard lock(mutex_);
    return report_;
  }

 private:
  static constexpr size_t kEventsMax = 64;
  mutable std::mutex mutex_;
  PathReport report_;
};

}  // namespace railccl::transport
