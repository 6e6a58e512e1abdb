// Lane: the queue, its thread, and those who help it.
#include "lane.h"

#include <pthread.h>

namespace railccl_torch {

void check(ncclResult_t result, const char* function, ncclComm_t comm) {
  if (result == ncclSuccess) return;
  const char* detail = ncclGetLastError(comm);
  TORCH_CHECK(false, "railccl: ", function, ": ", ncclGetErrorString(result),
              detail != nullptr && *detail != 0 ? ": " : "", detail != nullptr ? detail : "");
}

Lane::Lane(std::string name, Meet meet, Watch& watch)
    : name_(std::move(name)), meet_(std::move(meet)) {
  post_ = std::make_unique<Watch::Post>(watch, [this] {
    std::string text;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!running_) return;
      text = c10::str(running_->name(), " has timed out after ", running_->timeout().count(),
                      " ms (", name_, ")");
    }
    fail(text);
  });
  thread_ = std::thread([this] { run(); });
  pthread_setname_np(thread_.native_handle(), "railccl-torch");
}

Lane::~Lane() {
  if (post_ != nullptr) stop();
}

void Lane::connect() {
  const ncclComm_t comm = meet_([this] { still_wanted(); });
  {
    std::lock_guard<std::mutex> lock(mutex_);
    comm_ = comm;
  }
  still_wanted();  // who failed the lane before this had nothing to revoke
}

void Lane::still_wanted() const {
  std::lock_guard<std::mutex> lock(mutex_);
  TORCH_CHECK(failure_.empty(), "railccl: ", failure_);
}

void Lane::add(c10::intrusive_ptr<Job> job) {
  const bool wake = !job->waited_for();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(job));
  }
  if (wake) changed_.notify_one();
}

void Lane::help(Job& job) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (can_take() && !job.isCompleted()) take_one(lock);
  if (can_take()) changed_.notify_one();
}

void Lane::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return can_take() || (stop_ && !running_ && queue_.empty()); });
    if (!can_take()) return;
    take_one(lock);
  }
}

void Lane::take_one(std::unique_lock<std::mutex>& lock) {
  const c10::intrusive_ptr<Job> job = running_ = std::move(queue_.front());
  queue_.pop_front();
  const bool useless = !failure_.empty();
  const bool connected = comm_ != nullptr;
  lock.unlock();
  std::exception_ptr error;
  if (!useless) {
    post_->arm(Clock::now() + job->timeout());
    try {
      if (!connected) connect();
      job->run(comm_);
    } catch (...) {
      error = std::current_exception();
    }
    post_->disarm();
  }
  lock.lock();
  running_.reset();
  // Of a call that was ended because of something, that is the reason to tell.
  if (!failure_.empty() && (useless || error))
    error = std::make_exception_ptr(std::runtime_error("railccl: " + failure_));
  if (stop_) changed_.notify_all();
  lock.unlock();
  job->settle(error);
  lock.lock();
}

void Lane::fail(const std::string& reason) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (failure_.empty()) failure_ = reason;
  // From this process alone nothing else would end a call that waits for others.
  if (running_ && comm_ != nullptr) (void)ncclCommRevoke(comm_, NCCL_REVOKE_DEFAULT);
}

void Lane::stop() {
  bool busy = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    busy = running_ || !queue_.empty();
  }
  if (busy) fail("the process group was destroyed before this was done");
  changed_.notify_all();
  thread_.join();
  post_ = nullptr;
  if (comm_ == nullptr) return;
  if (failure_.empty()) {
    (void)ncclCommDestroy(comm_);
  } else {
    (void)ncclCommAbort(comm_);
  }
}

}  // namespace railccl_torch
