// Stream: the thread that runs a queue of host work in order.
#include "runtime/stream.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace railccl::runtime {

namespace {

// Handles that are ours: a cudaStream_t is an opaque pointer, so only membership tells.
struct Known {
  std::mutex mutex;
  std::vector<const Stream*> streams;
};

Known& known() {
  static Known* instance = new Known;  // never destroyed: streams may outlive static destruction
  return *instance;
}

}  // namespace

Stream::Stream() {
  {
    std::lock_guard lock(known().mutex);
    known().streams.push_back(this);
  }
  thread_ = std::thread([this] { run(); });
}

Stream::~Stream() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
  std::lock_guard lock(known().mutex);
  std::erase(known().streams, this);
}

void Stream::enqueue(std::function<Status()> work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    enqueued_++;
  }
  changed_.notify_all();
}

Status Stream::synchronize() {
  std::unique_lock lock(mutex_);
  const uint64_t until = enqueued_;
  changed_.wait(lock, [&] { return finished_ >= until; });
  return std::exchange(first_failure_, Status());
}

bool Stream::idle() const {
  std::lock_guard lock(mutex_);
  return finished_ == enqueued_;
}

Stream* Stream::from_handle(const void* handle) {
  std::lock_guard lock(known().mutex);
  for (const Stream* stream : known().streams)
    if (stream == handle) return const_cast<Stream*>(stream);
  return nullptr;
}

void Stream::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;  // stopped, and everything that was enqueued is done
    std::function<Status()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Status status = work();
    work = nullptr;  // what the work owns is released before it counts as finished
    lock.lock();
    if (!status.is_ok() && first_failure_.is_ok()) first_failure_ = std::move(status);
    finished_++;
    changed_.notify_all();
  }
}

}  // namespace railccl::runtime
