// Watch: the thread of a process group that ends what takes longer than it may.
//
// Whoever runs something that can block has a Post, arms it before and disarms it after; when the
// deadline comes first, the Post's alarm is called, once. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace railccl_torch {

using Clock = std::chrono::steady_clock;

class Watch {
 public:
  class Post;

  /// `period`: the usual time that things may take. Shorter ones wake the thread when they begin.
  explicit Watch(std::chrono::milliseconds period);
  ~Watch();
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

 private:
  void run();

  const std::chrono::milliseconds period_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Post*> posts_;
  Clock::time_point next_;  // when the thread looks again
  bool stop_ = false;
  std::thread thread_;
};

/// Must not outlive its Watch. The alarm is called without locks of the Watch held, and not any
/// more once the Post's end has returned.
class Watch::Post {
 public:
  Post(Watch& watch, std::function<void()> alarm);
  ~Post();
  Post(const Post&) = delete;
  Post& operator=(const Post&) = delete;

  void arm(Clock::time_point deadline);
  void disarm();

 private:
  friend class Watch;
  Watch& watch_;
  const std::function<void()> alarm_;
  Clock::time_point deadline_ = Clock::time_point::max();
  bool ringing_ = false;
};

}  // namespace railccl_torch
