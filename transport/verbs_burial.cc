// The thread that waits for the kernel.
#include "transport/verbs_burial.h"

#include <utility>

namespace railccl::transport {

VerbsBurial::~VerbsBurial() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  more_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void VerbsBurial::add(VerbsRemains remains) {
  {
    std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(remains));
  }
  more_.notify_one();
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
}

std::optional<size_t> VerbsBurial::take_done() {
  if (!any_done_.load(std::memory_order_relaxed)) return std::nullopt;
  std::lock_guard lock(mutex_);
  if (done_.empty()) return std::nullopt;
  const size_t place = done_.front();
  done_.pop_front();
  any_done_.store(!done_.empty(), std::memory_order_relaxed);
  return place;
}

void VerbsBurial::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    more_.wait(lock, [&] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    size_t place = 0;
    {
      VerbsRemains remains = std::move(waiting_.front());
      waiting_.pop_front();
      place = remains.place;
      lock.unlock();
    }  // here
    lock.lock();
    done_.push_back(place);
    any_done_.store(true, std::memory_order_relaxed);
  }
}

}  // namespace railccl::transport
