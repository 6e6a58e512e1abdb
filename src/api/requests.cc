// Requests of railccl/railccl.h: collectives that are checked and planned once and started often.
#include <deque>
#include <memory>
#include <mutex>

#include "api/start.h"
#include "railccl/railccl.h"

using namespace railccl;
using namespace railccl::api;

/// Lives in a pool that never shrinks, so that a stale handle is recognised instead of followed.
struct railcclRequest {
  bool alive = false;
  ncclComm_t comm = nullptr;
  // Handles of communicators are used again: this tells whose the request is.
  std::weak_ptr<runtime::Communicator> owner;
  const runtime::Communicator* communicator = nullptr;
  Arguments arguments;
  bool made_operator = false;  // its factor may change from start to start: check each time
  runtime::Call call;
};

namespace {

struct Pool {
  std::mutex mutex;
  std::deque<std::unique_ptr<railcclRequest>> all;
  std::deque<railcclRequest_t> free;  // the longest unused first
};
constexpr size_t kIdleMin = 256;

Pool& pool() {
  static Pool* instance = new Pool;  // never destroyed, as the pool of communicators
  return *instance;
}

railcclRequest_t new_request() {
  std::lock_guard lock(pool().mutex);
  if (pool().free.size() > kIdleMin) {
    railcclRequest_t request = pool().free.front();
    pool().free.pop_front();
    return request;
  }
  pool().all.push_back(std::make_unique<railcclRequest>());
  return pool().all.back().get();
}

void recycle(railcclRequest_t request) {
  request->alive = false;
  request->owner.reset();
  std::lock_guard lock(pool().mutex);
  pool().free.push_back(request);
}

Status check_alive(railcclRequest_t request) {
  RAILCCL_CHECK(not_null(request, "request"));
  if (request->alive) return ok();
  return Status(Code::invalid_argument, "the request was destroyed");
}

}  // namespace

extern "C" {

ncclResult_t railcclRequestCreate(railcclCollective_t collective, const void* sendbuff,
                                  void* recvbuff, size_t count, ncclDataType_t datatype,
                                  ncclRedOp_t op, int root, ncclComm_t comm,
                                  railcclRequest_t* request) {
  return api::call("railcclRequestCreate", [&]() -> Status {
    RAILCCL_CHECK(not_null(request, "request"));
    *request = nullptr;
    RAILCCL_TRY(const Collective kind, collective_from(collective));
    RAILCCL_TRY(Use use, Use::of(comm));
    const Arguments arguments{kind, sendbuff, recvbuff, count, datatype, op, root};
    runtime::Call call;
    RAILCCL_CHECK(collective_call(arguments, *use.operator->(), &call));
    RAILCCL_CHECK(use.communicator().prepare(call));
    railcclRequest_t made = new_request();
    made->comm = comm;
    made->owner = use.shared();
    made->communicator = &use.communicator();
    made->arguments = arguments;
    made->made_operator = op >= ncclNumOps;
    made->call = call;
    made->alive = true;
    *request = made;
    return ok();
  });
}

ncclResult_t railcclRequestStart(railcclRequest_t request, cudaStream_t stream) {
  const Status alive = check_alive(request);
  if (!alive.is_ok()) {
    refuse_group(alive);
    return finish("railcclRequestStart", alive);
  }
  return start(
      "railcclRequestStart", request->comm, stream, [&](Use& use, runtime::Queue queue) -> Status {
        if (&use.communicator() != request->communicator || request->owner.expired())
          return Status(Code::invalid_usage, "the communicator of the request was destroyed");
        if (!request->made_operator) return use.communicator().start_prepared(request->call, queue);
        runtime::Call call;
        RAILCCL_CHECK(collective_call(request->arguments, *use.operator->(), &call));
        return use.communicator().start(call, queue);
      });
}

ncclResult_t railcclRequestDestroy(railcclRequest_t request) {
  if (request == nullptr) return ncclSuccess;
  return api::call("railcclRequestDestroy", [&]() -> Status {
    RAILCCL_CHECK(check_alive(request));
    recycle(request);
    return ok();
  });
}

}  // extern "C"
