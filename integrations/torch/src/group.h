// Group: the c10d backend "railccl", which makes jobs of PyTorch's collective calls.
//
// Every call checks its tensors, and queues a job that hands their memory to railccl. Collectives
// run one after the other on one communicator, in the order of their calls; messages on one more
// for each pair and direction, made when it is first used. Thread-safe.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "compat.h"
#include "lane.h"
#include "watch.h"

namespace railccl_torch {

using Milliseconds = std::chrono::milliseconds;
using Tensors = std::vector<at::Tensor>;
using TensorLists = std::vector<std::vector<at::Tensor>>;
using WorkPointer = c10::intrusive_ptr<c10d::Work>;

class Group : public Base {
 public:
  /// Meets the other ranks by way of the store; returns when all are there.
  static c10::intrusive_ptr<Base> create(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                         int size, Milliseconds timeout);
  Group(c10::intrusive_ptr<c10d::Store> store, int rank, int size, Milliseconds timeout);
  ~Group() override;

  const std::string getBackendName() const override { return "railccl"; }

  WorkPointer broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override;
  WorkPointer allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override;
  WorkPointer allreduce_coalesced(Tensors& tensors,
                                  const c10d::AllreduceCoalescedOptions& options) override;
  WorkPointer reduce(Tensors& tensors, const c10d::ReduceOptions& options) override;
  WorkPointer allgather(TensorLists& outputs, Tensors& inputs,
                        const c10d::AllgatherOptions& options) override;
  WorkPointer _allgather_base(at::Tensor& output, at::Tensor& input,
                              const c10d::AllgatherOptions& options) override;
  WorkPointer allgather_coalesced(TensorLists& outputs, Tensors& inputs,
                                  const c10d::AllgatherOptions& options) override;
  WorkPointer gather(TensorLists& outputs, Tensors& inputs,
                     const c10d::GatherOptions& options) override;
  WorkPointer scatter(Tensors& outputs, TensorLists& inputs,
                      const c10d::ScatterOptions& options) override;
  WorkPointer reduce_scatter(Tensors& outputs, TensorLists& inputs,
                             const c10d::ReduceScatterOptions& options) override;
  WorkPointer _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                   const c10d::ReduceScatterOptions& options) override;
  WorkPointer alltoall_base(at::Tensor& output, at::Tensor& input,
                            std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
                            const c10d::AllToAllOptions& options) override;
  WorkPointer alltoall(Tensors& outputs, Tensors& inputs,
                       const c10d::AllToAllOptions& options) override;
  WorkPointer send(Tensors& tensors, int peer, int tag) override;
  WorkPointer recv(Tensors& tensors, int peer, int tag) override;
  WorkPointer recvAnysource(Tensors& tensors, int tag) override;
  WorkPointer barrier(const c10d::BarrierOptions& options) override;
#ifdef RAILCCL_TORCH_INTO_TENSOR_COALESCED
  WorkPointer allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                              const c10d::AllgatherOptions& options) override;
  WorkPointer reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                              const c10d::ReduceScatterOptions& options) override;
  /// Calls between the two are jobs like any others; the end is a job behind them.
  void startCoalescing() override {}
  WorkPointer endCoalescing() override;
#endif

  /// Fails on all ranks when one does not come in time; rank 0 says which.
  void monitoredBarrier(const c10d::BarrierOptions& options, bool wait_for_all) override;
  /// Collectives are counted from 0 on every rank.
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return calls_; }

 private:
  template <typename CallOptions>
  WorkPointer queue(const CallOptions& options, Job::Facts facts, Job::Body body);
  WorkPointer message(const char* what, Tensors& tensors, int peer, bool sends);
  WorkPointer gather_into(const char* title, Tensors outputs, Tensors inputs,
                          const c10d::AllgatherOptions& options);
  WorkPointer reduce_scatter_from(const char* title, Tensors outputs, Tensors inputs,
                                  const c10d::ReduceScatterOptions& options);
  ncclComm_t meet_all(const std::function<void()>& still_wanted);
  ncclComm_t meet_peer(int peer, bool sends, const std::function<void()>& still_wanted);
  std::shared_ptr<Lane> lane_to(int peer, bool sends);
  void check_root(int64_t root, int64_t root_tensor, const char* what) const;
  Milliseconds or_usual(Milliseconds timeout) const;

  const c10::intrusive_ptr<c10d::Store> store_;
  const Milliseconds timeout_;
  Watch watch_;
  std::shared_ptr<Lane> collectives_;
  std::mutex lanes_mutex_;
  std::map<std::pair<int, bool>, std::shared_ptr<Lane>> lanes_;  // (peer, it is sent to)
  std::atomic<uint64_t> calls_{0};
  std::atomic<uint64_t> barriers_{0};  // monitored ones
};

}  // namespace railccl_torch
