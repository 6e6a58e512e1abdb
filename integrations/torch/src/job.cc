// Job: waiting, results and futures.
#include "job.h"

#include "lane.h"

namespace railccl_torch {

Job::Job(int rank, Facts facts, Body body, std::shared_ptr<Lane> lane)
    : Work(rank, facts.type, facts.title, facts.inputs),
      facts_(std::move(facts)),
      body_(std::move(body)),
      lane_(std::move(lane)) {
  facts_.inputs.clear();
}

bool Job::wait(std::chrono::milliseconds timeout) {
  const bool for_ever = timeout <= kNoTimeout;
  // Who may wait as long as it takes can do the work, which saves the way to another thread.
  if (for_ever) lane_->help(*this);
  std::unique_lock<std::mutex> lock(mutex_);
  if (for_ever) {
    cv_.wait(lock, [this] { return completed_; });
  } else {
    TORCH_CHECK(cv_.wait_for(lock, timeout, [this] { return completed_; }), "railccl: ", name(),
                " is not done after ", timeout.count(), " ms (it goes on)");
  }
  if (exception_) std::rethrow_exception(exception_);
  return true;
}

std::vector<at::Tensor> Job::result() {
  std::lock_guard<std::mutex> lock(mutex_);
  TORCH_CHECK(completed_, "railccl: ", name(), " has no result yet: wait() first");
  return facts_.outputs;
}

int Job::sourceRank() const { return facts_.source >= 0 ? facts_.source : Work::sourceRank(); }

void Job::abort() { lane_->fail("aborted by the program"); }

c10::intrusive_ptr<c10::ivalue::Future> Job::getFuture() {
  c10::intrusive_ptr<c10::ivalue::Future> future;
  bool mine = false;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!future_)
      future_ =
          c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    future = future_;
    mine = completed_ && !marked_;
    marked_ |= mine;
  }
  if (mine) mark(*future);
  return future;
}

void Job::settle(std::exception_ptr error) {
  body_ = nullptr;
  finish(std::move(error));
  c10::intrusive_ptr<c10::ivalue::Future> future;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!future_ || marked_) return;
    marked_ = true;
    future = future_;
  }
  mark(*future);
}

void Job::mark(c10::ivalue::Future& future) {
  if (exception_) {
    future.setError(exception_);
  } else {
    future.markCompleted(c10::IValue(facts_.outputs));
  }
}

}  // namespace railccl_torch
