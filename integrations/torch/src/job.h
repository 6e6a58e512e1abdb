// Job: one operation of a process group, from its call to its result; what PyTorch calls a Work.
//
// It is run once, by its Lane's thread or by a thread that waits for it, whichever comes first.
// Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "compat.h"
#include "nccl.h"

namespace railccl_torch {

class Lane;

class Job : public c10d::Work {
 public:
  using Body = std::function<void(ncclComm_t)>;
  struct Facts {
    c10d::OpType type = c10d::OpType::UNKNOWN;
    const char* title = nullptr;  // "railccl:allreduce", for the profiler
    std::vector<at::Tensor> inputs;
    std::vector<at::Tensor> outputs;  // the results, in the caller's order
    std::chrono::milliseconds timeout{0};
    int source = -1;          // of a receive
    bool waited_for = false;  // the caller is about to wait()
  };

  Job(int rank, Facts facts, Body body, std::shared_ptr<Lane> lane);

  bool wait(std::chrono::milliseconds timeout = kNoTimeout) override;
  std::vector<at::Tensor> result() override;
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  /// Ends all that runs or waits on the same lane.
  void abort() override;
  int sourceRank() const override;

  /// "allreduce"
  const char* name() const { return facts_.title + sizeof("railccl:") - 1; }
  std::chrono::milliseconds timeout() const { return facts_.timeout; }
  bool waited_for() const { return facts_.waited_for; }

  /// By its Lane, once.
  void run(ncclComm_t comm) { body_(comm); }
  void settle(std::exception_ptr error);

 private:
  void mark(c10::ivalue::Future& future);

  Facts facts_;
  Body body_;  // keeps the operands until it has run
  const std::shared_ptr<Lane> lane_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;  // made when somebody asks
  bool marked_ = false;
};

}  // namespace railccl_torch
