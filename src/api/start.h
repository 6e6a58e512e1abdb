// The way of every call that moves data: hold the handle, find the stream, start, translate.
// Private to this room.
#pragma once

#include "api/calls.h"
#include "api/jobs.h"

namespace railccl::api {

/// Runs `begin` (Use&, runtime::Queue -> Status), which starts something on `comm`.
template <typename Begin>
ncclResult_t start(const char* function, ncclComm_t comm, cudaStream_t stream, const Begin& begin) {
  bool in_progress = false;
  const ncclResult_t result = api::call(function, [&]() -> Status {
    const auto attempt = [&]() -> Status {
      RAILCCL_TRY(Use use, Use::of(comm));
      runtime::Queue queue = nullptr;
      if (stream != nullptr) {
        RAILCCL_TRY(queue, queue_from(stream));
      }
      RAILCCL_CHECK(begin(use, queue));
      if (!use.communicator().config().blocking) {
        note_nonblocking(use.shared());
        in_progress = runtime::group_depth() == 0 && use.communicator().in_progress();
      }
      return ok();
    };
    const Status status = attempt();
    if (!status.is_ok()) refuse_group(status);
    return status;
  });
  return result == ncclSuccess && in_progress ? ncclInProgress : result;
}

}  // namespace railccl::api
