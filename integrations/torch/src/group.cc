// Group: meeting, messages, barriers. The collectives are in collectives.cc.
#include "group.h"

#include <Python.h>

#include <algorithm>

#include "meeting.h"
#include "operands.h"
#include "queue.h"

namespace railccl_torch {

c10::intrusive_ptr<Base> Group::create(const c10::intrusive_ptr<c10d::Store>& store, int rank,
                                       int size, Milliseconds timeout) {
  auto group = c10::make_intrusive<Group>(store, rank, size, timeout);
  group->collectives_->connect();
  return group;
}

Group::Group(c10::intrusive_ptr<c10d::Store> store, int rank, int size, Milliseconds timeout)
    : Base(rank, size), store_(std::move(store)), timeout_(timeout), watch_(timeout) {
  collectives_ = std::make_shared<Lane>(
      c10::str("rank ", rank, " of ", size),
      [this](const std::function<void()>& wanted) { return meet_all(wanted); }, watch_);
}

Group::~Group() {
  // Lanes' threads may be about to free tensors that Python knows, for which they need the
  // interpreter: who destroys a group often holds it.
  PyThreadState* held = nullptr;
  if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) held = PyEval_SaveThread();
  collectives_->stop();
  for (auto& [key, lane] : lanes_) lane->stop();
  if (held != nullptr) PyEval_RestoreThread(held);
}

Milliseconds Group::or_usual(Milliseconds timeout) const {
  return timeout <= Milliseconds(0) ? timeout_ : timeout;
}

ncclComm_t Group::meet_all(const std::function<void()>& wanted) {
  const auto deadline = Clock::now() + timeout_;
  ncclUniqueId id;
  if (rank_ == 0) {
    // Only when all have come: so that whoever is missing is named, and in good time.
    TORCH_CHECK(await_keys(*store_, keys_of_ranks("railccl/here/", size_), deadline, wanted),
                "railccl: after ", timeout_.count(), " ms these ranks have not come: ",
                missing_ranks(*store_, "railccl/here/", size_, true));
    check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    if (size_ > 1) put(*store_, "railccl/id", as_text(id));
  } else {
    put(*store_, "railccl/here/" + std::to_string(rank_), "1");
    TORCH_CHECK(await_keys(*store_, {"railccl/id"}, deadline, wanted), "railccl: after ",
                timeout_.count(), " ms rank 0 has not called all ranks together");
    id = as_id(get(*store_, "railccl/id"));
  }
  ncclComm_t comm = nullptr;
  check(ncclCommInitRank(&comm, size_, id, rank_), "ncclCommInitRank");
  return comm;
}

ncclComm_t Group::meet_peer(int peer, bool sends, const std::function<void()>& wanted) {
  const std::string key = sends ? c10::str("railccl/", rank_, "to", peer, "/")
                                : c10::str("railccl/", peer, "to", rank_, "/");
  // Each side waits here, where it can be stopped, until the other is about to join.
  const auto for_ever = Clock::time_point::max();
  ncclUniqueId id;
  if (sends) {
    (void)await_keys(*store_, {key + "ready"}, for_ever, wanted);
    check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    put(*store_, key + "id", as_text(id));
  } else {
    put(*store_, key + "ready", "1");
    (void)await_keys(*store_, {key + "id"}, for_ever, wanted);
    id = as_id(get(*store_, key + "id"));
  }
  ncclComm_t comm = nullptr;
  check(ncclCommInitRank(&comm, 2, id, sends ? 0 : 1), "ncclCommInitRank");
  return comm;
}

std::shared_ptr<Lane> Group::lane_to(int peer, bool sends) {
  std::lock_guard<std::mutex> lock(lanes_mutex_);
  std::shared_ptr<Lane>& lane = lanes_[{peer, sends}];
  if (lane == nullptr)
    lane = std::make_shared<Lane>(
        c10::str("rank ", rank_, sends ? " to rank " : " from rank ", peer),
        [this, peer, sends](const std::function<void()>& wanted) {
          return meet_peer(peer, sends, wanted);
        },
        watch_);
  return lane;
}

WorkPointer Group::message(const char* what, Tensors& tensors, int peer, bool sends) {
  const at::Tensor tensor = only(tensors, what);
  TORCH_CHECK_VALUE(peer >= 0 && peer < size_, "railccl: ", what, ": there is no rank ", peer);
  TORCH_CHECK_VALUE(peer != rank_, "railccl: ", what, ": rank ", peer, " is this one");
  const std::shared_ptr<Lane> lane = lane_to(peer, sends);
  Job::Facts facts;
  facts.type = sends ? c10d::OpType::SEND : c10d::OpType::RECV;
  facts.title = sends ? "railccl:send" : "railccl:recv";
  facts.inputs = {tensor};
  if (!sends) facts.outputs = {tensor};
  facts.timeout = timeout_;
  facts.source = sends ? -1 : peer;
  Job::Body body = [tensor, sends](ncclComm_t comm) {
    const at::NoGradGuard plain;
    const Target memory(tensor, sends);
    if (sends) {
      check(ncclSend(memory.data(), bytes_of(tensor), ncclUint8, 1, comm, nullptr), "ncclSend",
            comm);
    } else {
      check(ncclRecv(memory.data(), bytes_of(tensor), ncclUint8, 0, comm, nullptr), "ncclRecv",
            comm);
      memory.land();
    }
  };
  auto job = c10::make_intrusive<Job>(rank_, std::move(facts), std::move(body), lane);
  lane->add(job);
  return job;
}

WorkPointer Group::send(Tensors& tensors, int peer, int) {
  return message("send", tensors, peer, true);
}

WorkPointer Group::recv(Tensors& tensors, int peer, int) {
  return message("recv", tensors, peer, false);
}

WorkPointer Group::recvAnysource(Tensors&, int) {
  TORCH_CHECK(false, "railccl: recv from any rank is not supported: name the source");
}

WorkPointer Group::barrier(const c10d::BarrierOptions& options) {
  Job::Facts facts;
  facts.type = c10d::OpType::BARRIER;
  facts.title = "railccl:barrier";
  return queue(options, std::move(facts), [](ncclComm_t comm) {
    char token = 0;
    check(ncclAllReduce(&token, &token, 1, ncclUint8, ncclMax, comm, nullptr), "ncclAllReduce",
          comm);
  });
}

void Group::monitoredBarrier(const c10d::BarrierOptions& options, bool wait_for_all) {
  const Milliseconds timeout = or_usual(options.timeout);
  const auto deadline = Clock::now() + timeout;
  const std::string key = c10::str("railccl/barrier/", barriers_++, "/");
  if (rank_ == 0) {
    const bool all_came = await_keys(*store_, keys_of_ranks(key, size_), deadline, nullptr);
    std::string verdict;
    if (!all_came)
      verdict =
          c10::str("ranks that have not come to the monitored barrier after ", timeout.count(),
                   " ms: ", missing_ranks(*store_, key, size_, wait_for_all));
    // '.': a store may hold no empty values.
    put(*store_, key + "verdict", "." + verdict);
    TORCH_CHECK(verdict.empty(), "railccl: ", verdict);
    return;
  }
  put(*store_, key + std::to_string(rank_), "1");
  // Rank 0 may have begun a little later: it is to have the word.
  const auto patience = std::max<Clock::duration>(timeout / 4, std::chrono::seconds(1));
  TORCH_CHECK(await_keys(*store_, {key + "verdict"}, deadline + patience, nullptr),
              "railccl: rank 0 has not come to the monitored barrier after ", timeout.count(),
              " ms");
  const std::string verdict = get(*store_, key + "verdict").substr(1);
  TORCH_CHECK(verdict.empty(), "railccl: ", verdict);
}

}  // namespace railccl_torch
