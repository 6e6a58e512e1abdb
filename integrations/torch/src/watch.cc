// Watch: looks at all deadlines when the earliest may have come.
#include "watch.h"

#include <algorithm>

namespace railccl_torch {

Watch::Watch(std::chrono::milliseconds period) : period_(period), next_(Clock::now() + period) {
  thread_ = std::thread([this] { run(); });
}

Watch::~Watch() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Watch::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stop_) {
    const auto now = Clock::now();
    Post* late = nullptr;
    // Whatever begins later and may take the usual time ends after this.
    next_ = now + period_;
    for (Post* post : posts_) {
      if (post->deadline_ <= now) late = post;
      next_ = std::min(next_, post->deadline_);
    }
    if (late == nullptr) {
      changed_.wait_until(lock, next_);
      continue;
    }
    late->deadline_ = Clock::time_point::max();
    late->ringing_ = true;
    lock.unlock();
    late->alarm_();
    lock.lock();
    late->ringing_ = false;
    changed_.notify_all();
  }
}

Watch::Post::Post(Watch& watch, std::function<void()> alarm)
    : watch_(watch), alarm_(std::move(alarm)) {
  std::lock_guard<std::mutex> lock(watch_.mutex_);
  watch_.posts_.push_back(this);
}

Watch::Post::~Post() {
  std::unique_lock<std::mutex> lock(watch_.mutex_);
  watch_.changed_.wait(lock, [this] { return !ringing_; });
  auto& posts = watch_.posts_;
  posts.erase(std::find(posts.begin(), posts.end(), this));
}

void Watch::Post::arm(Clock::time_point deadline) {
  std::lock_guard<std::mutex> lock(watch_.mutex_);
  deadline_ = deadline;
  if (deadline >= watch_.next_) return;
  watch_.next_ = deadline;
  watch_.changed_.notify_all();
}

void Watch::Post::disarm() {
  std::lock_guard<std::mutex> lock(watch_.mutex_);
  deadline_ = Clock::time_point::max();
}

}  // namespace railccl_torch
