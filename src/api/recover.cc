// Recovery of railccl/railccl.h.
#include <algorithm>
#include <cstring>

#include "api/config.h"
#include "api/errors.h"
#include "api/making.h"
#include "base/clock.h"
#include "railccl/railccl.h"

using namespace railccl;
using namespace railccl::api;

namespace {

railcclCalls_t calls_of(runtime::CallsFate fate) {
  switch (fate) {
    case runtime::CallsFate::none:
      return railcclCallsNone;
    case runtime::CallsFate::finished:
      return railcclCallsFinished;
    case runtime::CallsFate::torn:
      return railcclCallsTorn;
    case runtime::CallsFate::spoiled:
      return railcclCallsSpoiled;
  }
  return railcclCallsNone;
}

void tell(const runtime::Recovery& from, double seconds, railcclRecovery_t* to) {
  to->calls = calls_of(from.fate);
  to->kept = from.kept;
  to->repeated = from.repeated;
  const bool torn = from.fate == runtime::CallsFate::torn;
  to->tornBegin = torn ? from.from : 0;
  to->tornEnd = torn ? from.until : 0;
  to->ranks = from.communicator->size();
  to->rank = from.communicator->rank();
  to->seconds = seconds;
  const size_t length = std::min(from.why.size(), sizeof to->why - 1);
  std::memcpy(to->why, from.why.data(), length);
  to->why[length] = '\0';
}

}  // namespace

extern "C" {

ncclResult_t railcclCommProtect(ncclComm_t comm, size_t saveBytesMax) {
  return api::call("railcclCommProtect", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    return use.communicator().protect(saveBytesMax);
  });
}

ncclResult_t railcclCommRecover(ncclComm_t* comm, int flags, railcclRecovery_t* recovery) {
  return api::call("railcclCommRecover", [&]() -> Status {
    RAILCCL_CHECK(not_null(comm, "comm"));
    if (flags != RAILCCL_RECOVER_CALLS && flags != RAILCCL_RECOVER_WITHOUT_CALLS)
      return Status(Code::invalid_argument, "flags is {:#x}", flags);
    if (recovery != nullptr && recovery->size != sizeof *recovery)
      return Status(Code::invalid_argument, "recovery was not set to its initializer (size {})",
                    recovery->size);
    if (runtime::group_depth() > 0) return Status(Code::invalid_usage, "not inside a group");
    const int64_t start = now_ns();
    const ncclComm_t old = *comm;
    runtime::Recovery made;
    {
      RAILCCL_TRY(Use use, Use::of(old));
      RAILCCL_TRY(made, use.communicator().recover(use.communicator().config(),
                                                   flags == RAILCCL_RECOVER_CALLS));
    }
    const ncclComm_t fresh = new_handle();
    set_communicator(fresh, made.communicator);
    *comm = fresh;
    end_handle(old, [] {});
    if (recovery != nullptr) tell(made, static_cast<double>(now_ns() - start) * 1e-9, recovery);
    return ok();
  });
}

ncclResult_t railcclCommLost(ncclComm_t comm, int* ranks, int size, int* count) {
  return api::call("railcclCommLost", [&]() -> Status {
    RAILCCL_CHECK(not_null(count, "count"));
    if (size < 0) return Status(Code::invalid_argument, "size is {}", size);
    if (size > 0) RAILCCL_CHECK(not_null(ranks, "ranks"));
    RAILCCL_TRY(Use use, Use::of(comm));
    const std::vector<int> lost = use.communicator().lost();
    *count = static_cast<int>(lost.size());
    std::copy_n(lost.begin(), std::min(lost.size(), static_cast<size_t>(size)), ranks);
    return ok();
  });
}

}  // extern "C"
