// The functions of nccl.h that make, question and end communicators, and those about the library.
#include <algorithm>
#include <cstring>
#include <set>

#include "api/config.h"
#include "api/errors.h"
#include "api/jobs.h"
#include "api/making.h"
#include "base/log.h"

using namespace railccl;
using namespace railccl::api;

namespace {

ncclResult_t init(const char* function, ncclComm_t* comm, int ranks, const ncclUniqueId* id,
                  int rank, const ncclConfig_t* given) {
  bool blocking = true;
  const ncclResult_t result = api::call(function, [&]() -> Status {
    const auto begin = [&]() -> Status {
      RAILCCL_CHECK(not_null(comm, "comm"));
      *comm = nullptr;
      RAILCCL_CHECK(not_null(id, "commIds"));
      if (ranks < 1)
        return Status(Code::invalid_argument, "nranks is {}; it must be above 0", ranks);
      if (rank < 0 || rank >= ranks)
        return Status(Code::invalid_argument, "rank is {}; it must be from 0 to {}", rank,
                      ranks - 1);
      RAILCCL_TRY(runtime::Config config, config_from(given, {}));
      config.gpu = runtime::GpuPlace::here();  // not the thread's that a group's end starts
      blocking = config.blocking;
      return make_into(comm, [bytes = id_from(*id), rank, ranks, config] {
        return runtime::Communicator::join(bytes, rank, ranks, config);
      });
    };
    const Status status = begin();
    if (!status.is_ok()) refuse_group(status);
    return status;
  });
  return result == ncclSuccess && !blocking ? ncclInProgress : result;
}

/// What ncclCommGetAsyncError says.
ncclResult_t state_of(ncclComm& handle) {
  const Status error = handle.communicator->async_error();
  if (!error.is_ok() && !handle.revoked.load(std::memory_order_relaxed)) return code_of(error);
  return handle.communicator->in_progress() ? ncclInProgress : ncclSuccess;
}

}  // namespace

extern "C" {

ncclResult_t pncclGetVersion(int* version) {
  return api::call("ncclGetVersion", [&]() -> Status {
    RAILCCL_CHECK(not_null(version, "version"));
    log::init();
    RAILCCL_TRY(const Settings settings, Settings::load());
    *version = static_cast<int>(settings.nccl_version);
    return ok();
  });
}

const char* pncclGetErrorString(ncclResult_t result) {
  int code = 0;
  std::memcpy(&code, &result, sizeof code);  // C programs may give any number
  switch (code) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclSystemError:
      return "system error: a call to the operating system failed (see ncclGetLastError)";
    case ncclInternalError:
      return "internal error: a bug in railccl (see ncclGetLastError)";
    case ncclInvalidArgument:
      return "invalid argument (see ncclGetLastError)";
    case ncclInvalidUsage:
      return "invalid usage (see ncclGetLastError)";
    case ncclRemoteError:
      return "remote error: another rank failed or is not reachable (see ncclGetLastError)";
    case ncclInProgress:
      return "operation in progress";
    default:
      return "unknown result code";
  }
}

const char* pncclGetLastError(ncclComm_t comm) {
  if (comm != nullptr) {
    try {
      auto use = Use::of(comm);
      if (use.is_ok()) {
        const Status error = use->communicator().async_error();
        if (!error.is_ok()) set_last_error(error.text());
      }
    } catch (const std::exception&) {
      return "";  // no memory for the text
    }
  }
  return last_error().c_str();
}

void pncclResetDebugInit(void) { log::init(); }

ncclResult_t pncclGetUniqueId(ncclUniqueId* uniqueId) {
  return api::call("ncclGetUniqueId", [&]() -> Status {
    RAILCCL_CHECK(not_null(uniqueId, "uniqueId"));
    log::init();
    RAILCCL_TRY(const Settings settings, Settings::load());
    RAILCCL_TRY(const runtime::UniqueId id, runtime::make_unique_id(settings));
    std::memcpy(uniqueId, id.data(), id.size());
    return ok();
  });
}

ncclResult_t pncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank) {
  return init("ncclCommInitRank", comm, nranks, &commId, rank, nullptr);
}

ncclResult_t pncclCommInitRankConfig(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank,
                                     ncclConfig_t* config) {
  return init("ncclCommInitRankConfig", comm, nranks, &commId, rank, config);
}

ncclResult_t pncclCommInitRankScalable(ncclComm_t* newcomm, int nranks, int myrank, int nId,
                                       ncclUniqueId* commIds, ncclConfig_t* config) {
  if (nId < 1 || nId > nranks)
    return finish(
        "ncclCommInitRankScalable",
        Status(Code::invalid_argument, "nId is {}; it must be from 1 to nranks ({})", nId, nranks));
  // One meeting place serves: it handles one short message per rank, the rest goes along a tree.
  return init("ncclCommInitRankScalable", newcomm, nranks, commIds, myrank, config);
}

ncclResult_t pncclCommInitAll(ncclComm_t* comm, int ndev, const int* devlist) {
  return api::call("ncclCommInitAll", [&]() -> Status {
    RAILCCL_CHECK(not_null(comm, "comm"));
    if (ndev < 1) return Status(Code::invalid_argument, "ndev is {}; it must be above 0", ndev);
    std::set<int> devices;
    for (int i = 0; devlist != nullptr && i < ndev; i++)
      if (devlist[i] < 0 || !devices.insert(devlist[i]).second)
        return Status(Code::invalid_argument, "devlist[{}] is {}: {}", i, devlist[i],
                      devlist[i] < 0 ? "not a device" : "given twice");
    if (runtime::group_depth() > 0)
      return Status(Code::invalid_usage, "not inside a group: it is one by itself");
    log::init();
    RAILCCL_TRY(const Settings settings, Settings::load());
    RAILCCL_TRY(const runtime::UniqueId id, runtime::make_unique_id(settings));
    begin_group();
    for (int rank = 0; rank < ndev; rank++) {
      const int device = devlist != nullptr ? devlist[rank] : rank;
      const Status made =
          make_into(&comm[rank],
                    [id, rank, ndev, device]() -> Result<std::shared_ptr<runtime::Communicator>> {
                      runtime::Config config;
                      RAILCCL_TRY(config.gpu, runtime::GpuPlace::of(device));
                      return runtime::Communicator::join(id, rank, ndev, config);
                    });
      if (!made.is_ok()) refuse_group(made);
    }
    bool in_progress = false;
    const Status status = end_group(&in_progress);
    if (status.is_ok()) return ok();
    for (int rank = 0; rank < ndev; rank++) {
      if (comm[rank] != nullptr) end_handle(comm[rank], [] {});
      comm[rank] = nullptr;
    }
    return status;
  });
}

ncclResult_t pncclCommFinalize(ncclComm_t comm) {
  bool in_progress = false;
  const ncclResult_t result = api::call("ncclCommFinalize", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    if (use->finalized.exchange(true))
      return Status(Code::invalid_usage, "the communicator was finalized before");
    RAILCCL_CHECK(use.communicator().finalize());
    in_progress = !use.communicator().config().blocking && use.communicator().in_progress();
    return ok();
  });
  return result == ncclSuccess && in_progress ? ncclInProgress : result;
}

ncclResult_t pncclCommDestroy(ncclComm_t comm) {
  if (comm == nullptr) return ncclSuccess;
  return api::call("ncclCommDestroy", [&]() -> Status {
    Status status;
    const bool ended = end_handle(comm, [&] {
      runtime::Communicator* communicator = comm->communicator.get();
      // What failed before was told before; here it is only cleared away.
      if (communicator == nullptr || comm->finalized || !communicator->async_error().is_ok())
        return;
      status = communicator->finalize();
      // Still being made: there is nothing to flush, and those it waits for may never come.
      if (!status.is_ok() && communicator->in_progress()) {
        communicator->abort("destroyed while it was being made");
        status = ok();
      }
    });
    if (!ended)
      return Status(Code::invalid_argument,
                    "the communicator handle is not valid: destroyed, aborted or never made");
    return status;
  });
}

ncclResult_t pncclCommAbort(ncclComm_t comm) {
  if (comm == nullptr) return ncclSuccess;
  return api::call("ncclCommAbort", [&]() -> Status {
    const bool ended = end_handle(comm, [&] {
      if (comm->communicator != nullptr) comm->communicator->abort("ncclCommAbort");
    });
    if (ended) return ok();
    return Status(Code::invalid_argument,
                  "the communicator handle is not valid: destroyed, aborted or never made");
  });
}

ncclResult_t pncclCommRevoke(ncclComm_t comm, int revokeFlags) {
  return api::call("ncclCommRevoke", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    if (revokeFlags != NCCL_REVOKE_DEFAULT)
      return Status(Code::invalid_argument, "revokeFlags is {:#x}; only NCCL_REVOKE_DEFAULT exists",
                    revokeFlags);
    use->revoked.store(true, std::memory_order_relaxed);
    use.communicator().abort("ncclCommRevoke");
    return ok();
  });
}

ncclResult_t pncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* newcomm,
                            ncclConfig_t* config) {
  bool blocking = true;
  const ncclResult_t result = api::call("ncclCommSplit", [&]() -> Status {
    const auto begin = [&]() -> Status {
      RAILCCL_CHECK(not_null(newcomm, "newcomm"));
      RAILCCL_TRY(Use use, Use::of(comm));
      if (color < 0 && color != NCCL_SPLIT_NOCOLOR)
        return Status(Code::invalid_argument,
                      "color is {}; it must not be negative unless NCCL_SPLIT_NOCOLOR", color);
      RAILCCL_TRY(const runtime::Config chosen, config_from(config, use.communicator().config()));
      blocking = chosen.blocking;
      return make_into(newcomm, [old = use.shared(), color, key, chosen] {
        return old->split(color, key, chosen);
      });
    };
    const Status status = begin();
    if (!status.is_ok()) refuse_group(status);
    return status;
  });
  return result == ncclSuccess && !blocking ? ncclInProgress : result;
}

ncclResult_t pncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* asyncError) {
  return api::call("ncclCommGetAsyncError", [&]() -> Status {
    RAILCCL_CHECK(not_null(asyncError, "asyncError"));
    RAILCCL_TRY(Use use, Use::of(comm));
    *asyncError = state_of(*use.operator->());
    return ok();
  });
}

ncclResult_t pncclCommCount(const ncclComm_t comm, int* count) {
  return api::call("ncclCommCount", [&]() -> Status {
    RAILCCL_CHECK(not_null(count, "count"));
    RAILCCL_TRY(Use use, Use::of(comm));
    if (use.communicator().size() == 0)
      return Status(Code::invalid_usage, "the communicator is still being made");
    *count = use.communicator().size();
    return ok();
  });
}

ncclResult_t pncclCommCuDevice(const ncclComm_t comm, int* device) {
  return api::call("ncclCommCuDevice", [&]() -> Status {
    RAILCCL_CHECK(not_null(device, "device"));
    RAILCCL_TRY(Use use, Use::of(comm));
    *device = use.communicator().config().gpu.device;
    return ok();
  });
}

ncclResult_t pncclCommUserRank(const ncclComm_t comm, int* rank) {
  return api::call("ncclCommUserRank", [&]() -> Status {
    RAILCCL_CHECK(not_null(rank, "rank"));
    RAILCCL_TRY(Use use, Use::of(comm));
    if (use.communicator().size() == 0)
      return Status(Code::invalid_usage, "the communicator is still being made");
    *rank = use.communicator().rank();
    return ok();
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclGetVersion);
RAILCCL_EXPORT(ncclGetErrorString);
RAILCCL_EXPORT(ncclGetLastError);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
RAILCCL_EXPORT(ncclResetDebugInit);
#pragma GCC diagnostic pop
RAILCCL_EXPORT(ncclGetUniqueId);
RAILCCL_EXPORT(ncclCommInitRank);
RAILCCL_EXPORT(ncclCommInitRankConfig);
RAILCCL_EXPORT(ncclCommInitRankScalable);
RAILCCL_EXPORT(ncclCommInitAll);
RAILCCL_EXPORT(ncclCommFinalize);
RAILCCL_EXPORT(ncclCommDestroy);
RAILCCL_EXPORT(ncclCommAbort);
RAILCCL_EXPORT(ncclCommRevoke);
RAILCCL_EXPORT(ncclCommSplit);
RAILCCL_EXPORT(ncclCommGetAsyncError);
RAILCCL_EXPORT(ncclCommCount);
RAILCCL_EXPORT(ncclCommCuDevice);
RAILCCL_EXPORT(ncclCommUserRank);
