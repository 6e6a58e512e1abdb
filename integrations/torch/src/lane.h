// Lane: jobs that run one after the other on one communicator.
//
// A process group has one for its collectives and, for each peer and direction that is used, one
// for messages, so that a send never keeps a receive waiting. A lane that has failed fails all
// later jobs with the first reason. Any thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "job.h"
#include "watch.h"

namespace railccl_torch {

/// Throws what a call of nccl.h has answered, unless that is success.
void check(ncclResult_t result, const char* function, ncclComm_t comm = nullptr);

class Lane {
 public:
  /// Makes the communicator, in bounded time; calls what it gets now and then, which throws when
  /// there is no use in going on.
  using Meet = std::function<ncclComm_t(const std::function<void()>& still_wanted)>;

  Lane(std::string name, Meet meet, Watch& watch);
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  /// Makes the communicator now instead of before the first job.
  void connect();
  void add(c10::intrusive_ptr<Job> job);
  /// Runs jobs in the caller, up to `job`, unless another thread does already.
  void help(Job& job);
  /// Ends what runs and all later jobs.
  void fail(const std::string& reason);
  /// As fail(), and waits for the end; the Watch is not used after. Once.
  void stop();

 private:
  void run();
  bool can_take() const { return !running_ && !queue_.empty(); }
  void take_one(std::unique_lock<std::mutex>& lock);
  void still_wanted() const;

  const std::string name_;
  const Meet meet_;
  std::unique_ptr<Watch::Post> post_;  // until stop()
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<c10::intrusive_ptr<Job>> queue_;
  c10::intrusive_ptr<Job> running_;
  ncclComm_t comm_ = nullptr;
  std::string failure_;  // why later jobs fail; empty: they do not
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace railccl_torch
