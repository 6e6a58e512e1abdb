// The one-sided functions of nccl.h: puts, signals, waits, and whose window it is.
#include "api/start.h"
#include "runtime/one_sided.h"

using namespace railccl;
using namespace railccl::api;

namespace {

Status check_flags(unsigned flags) {
  if (flags == 0) return ok();
  return Status(Code::invalid_argument, "flags is {:#x}; none is defined", flags);
}

Result<std::shared_ptr<runtime::Window>> window_of(Use& use, ncclWindow_t handle) {
  const auto found = use->windows.find(handle);
  if (found != use->windows.end()) return found->second;
  return Status(Code::invalid_argument, "{} is no window of this communicator, or was given back",
                static_cast<const void*>(handle));
}

/// Puts now, or at the group's end.
Status put(const Use& use, const runtime::Put& what, runtime::Queue queue) {
  if (runtime::group_depth() == 0) return use.communicator().put(what, queue);
  run_at_group_end(
      false, [communicator = use.shared(), what, queue] { return communicator->put(what, queue); });
  return ok();
}

}  // namespace

extern "C" {

ncclResult_t pncclWinGetUserPtr(ncclComm_t comm, ncclWindow_t win, void** outUserPtr) {
  return api::call("ncclWinGetUserPtr", [&]() -> Status {
    RAILCCL_CHECK(not_null(outUserPtr, "outUserPtr"));
    RAILCCL_TRY(Use use, Use::of(comm));
    RAILCCL_TRY(const auto window, window_of(use, win));
    *outUserPtr = window->own;
    return ok();
  });
}

ncclResult_t pncclPutSignal(const void* localbuff, size_t count, ncclDataType_t datatype, int peer,
                            ncclWindow_t peerWin, size_t peerWinOffset, int sigIdx, int ctx,
                            unsigned int flags, ncclComm_t comm, cudaStream_t stream) {
  return start("ncclPutSignal", comm, stream, [&](Use& use, runtime::Queue queue) -> Status {
    RAILCCL_CHECK(check_flags(flags));
    RAILCCL_TRY(const Datatype type, datatype_from(datatype));
    RAILCCL_TRY(const auto window, window_of(use, peerWin));
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(uint64_t{count}, size_of(type), &bytes))
      return Status(Code::invalid_argument, "count {} is too large", count);
    runtime::Put what;
    what.window = window;
    what.data = localbuff;
    what.bytes = bytes;
    what.offset = peerWinOffset;
    what.peer = peer;
    what.context = ctx;
    what.signal = sigIdx;
    return put(use, what, queue);
  });
}

ncclResult_t pncclSignal(int peer, int sigIdx, int ctx, unsigned int flags, ncclComm_t comm,
                         cudaStream_t stream) {
  return start("ncclSignal", comm, stream, [&](Use& use, runtime::Queue queue) -> Status {
    RAILCCL_CHECK(check_flags(flags));
    runtime::Put what;
    what.peer = peer;
    what.context = ctx;
    what.signal = sigIdx;
    return put(use, what, queue);
  });
}

ncclResult_t pncclWaitSignal(int nDesc, ncclWaitSignalDesc_t* signalDescs, ncclComm_t comm,
                             cudaStream_t stream) {
  return start("ncclWaitSignal", comm, stream, [&](Use& use, runtime::Queue queue) -> Status {
    if (nDesc < 0) return Status(Code::invalid_argument, "nDesc is {}", nDesc);
    if (nDesc > 0) RAILCCL_CHECK(not_null(signalDescs, "signalDescs"));
    std::vector<runtime::SignalWait> waits;
    for (int i = 0; i < nDesc; i++)
      waits.push_back(
          {signalDescs[i].opCnt, signalDescs[i].peer, signalDescs[i].ctx, signalDescs[i].sigIdx});
    if (runtime::group_depth() == 0) return use.communicator().wait_signals(waits, queue);
    run_at_group_end(true, [communicator = use.shared(), waits, queue] {
      return communicator->wait_signals(waits, queue);
    });
    return ok();
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclWinGetUserPtr);
RAILCCL_EXPORT(ncclPutSignal);
RAILCCL_EXPORT(ncclSignal);
RAILCCL_EXPORT(ncclWaitSignal);
