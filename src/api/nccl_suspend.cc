// The functions of nccl.h about the memory that a communicator holds.
#include <cstring>

#include "api/errors.h"
#include "api/handle.h"

using namespace railccl;
using namespace railccl::api;

extern "C" {

ncclResult_t pncclCommSuspend(ncclComm_t comm, int flags) {
  return api::call("ncclCommSuspend", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    if (flags != NCCL_SUSPEND_MEM)
      return Status(Code::invalid_argument, "flags is {:#x}; only NCCL_SUSPEND_MEM exists", flags);
    if (runtime::group_depth() > 0)
      return Status(Code::invalid_usage, "not inside a group: it waits for what was called before");
    return use.communicator().suspend();
  });
}

ncclResult_t pncclCommResume(ncclComm_t comm) {
  return api::call("ncclCommResume", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    return use.communicator().resume();
  });
}

ncclResult_t pncclCommMemStats(ncclComm_t comm, ncclCommMemStat_t stat, uint64_t* value) {
  return api::call("ncclCommMemStats", [&]() -> Status {
    RAILCCL_CHECK(not_null(value, "value"));
    RAILCCL_TRY(Use use, Use::of(comm));
    int which = 0;
    std::memcpy(&which, &stat, sizeof which);  // C programs may give any number
    if (which < ncclStatGpuMemSuspend || which > ncclStatGpuMemTotal)
      return Status(Code::invalid_argument, "{} is no statistic of memory", which);
    RAILCCL_TRY(const runtime::Memory memory, use.communicator().memory());
    switch (which) {
      case ncclStatGpuMemSuspend:
        *value = memory.releasable;
        break;
      case ncclStatGpuMemSuspended:
        *value = memory.suspended ? 1 : 0;
        break;
      case ncclStatGpuMemPersist:
        *value = memory.persistent;
        break;
      case ncclStatGpuMemTotal:
        *value = memory.releasable + memory.persistent;
        break;
    }
    return ok();
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclCommSuspend);
RAILCCL_EXPORT(ncclCommResume);
RAILCCL_EXPORT(ncclCommMemStats);
