// The functions of nccl.h that make communicators of other sizes out of one: shrink and grow.
#include <set>

#include "api/config.h"
#include "api/errors.h"
#include "api/making.h"

using namespace railccl;
using namespace railccl::api;

extern "C" {

ncclResult_t pncclCommShrink(ncclComm_t comm, int* excludeRanksList, int excludeRanksCount,
                             ncclComm_t* newcomm, ncclConfig_t* config, int shrinkFlags) {
  bool blocking = true;
  const ncclResult_t result = api::call("ncclCommShrink", [&]() -> Status {
    const auto begin = [&]() -> Status {
      RAILCCL_CHECK(not_null(newcomm, "newcomm"));
      RAILCCL_TRY(Use use, Use::of(comm));
      const int ranks = use.communicator().size();
      if (excludeRanksCount < 1 || excludeRanksCount >= ranks)
        return Status(Code::invalid_argument,
                      "excludeRanksCount is {}; at least one rank must go and one stay of {}",
                      excludeRanksCount, ranks);
      RAILCCL_CHECK(not_null(excludeRanksList, "excludeRanksList"));
      std::set<int> excluded;
      for (int i = 0; i < excludeRanksCount; i++)
        if (excludeRanksList[i] < 0 || excludeRanksList[i] >= ranks ||
            !excluded.insert(excludeRanksList[i]).second)
          return Status(Code::invalid_argument, "excludeRanksList[{}] is {}: {}", i,
                        excludeRanksList[i],
                        excluded.contains(excludeRanksList[i]) ? "given twice" : "not a rank");
      if (excluded.contains(use.communicator().rank()))
        return Status(Code::invalid_usage, "rank {} is among the excluded ones and must not call",
                      use.communicator().rank());
      if (shrinkFlags != NCCL_SHRINK_DEFAULT && shrinkFlags != NCCL_SHRINK_ABORT)
        return Status(Code::invalid_argument, "shrinkFlags is {:#x}", shrinkFlags);
      const bool abort = shrinkFlags == NCCL_SHRINK_ABORT;
      if (const Status error = use.communicator().async_error(); !error.is_ok() && !abort)
        return Status(Code::invalid_usage,
                      "the communicator has failed: that needs NCCL_SHRINK_ABORT ({})",
                      error.text());
      RAILCCL_TRY(const runtime::Config chosen, config_from(config, use.communicator().config()));
      blocking = chosen.blocking;
      std::vector<int> survivors;
      for (int rank = 0; rank < ranks; rank++)
        if (!excluded.contains(rank)) survivors.push_back(rank);
      return make_into(newcomm, [old = use.shared(), survivors, chosen, abort] {
        return old->shrink(survivors, chosen, abort);
      });
    };
    const Status status = begin();
    if (!status.is_ok()) refuse_group(status);
    return status;
  });
  return result == ncclSuccess && !blocking ? ncclInProgress : result;
}

ncclResult_t pncclCommGetUniqueId(ncclComm_t comm, ncclUniqueId* uniqueId) {
  return api::call("ncclCommGetUniqueId", [&]() -> Status {
    RAILCCL_CHECK(not_null(uniqueId, "uniqueId"));
    RAILCCL_TRY(Use use, Use::of(comm));
    RAILCCL_CHECK(use.communicator().async_error());
    RAILCCL_TRY(const Settings settings, Settings::load());
    RAILCCL_TRY(const runtime::UniqueId id, runtime::make_unique_id(settings));
    std::memcpy(uniqueId, id.data(), id.size());
    return ok();
  });
}

ncclResult_t pncclCommGrow(ncclComm_t comm, int nRanks, const ncclUniqueId* uniqueId, int rank,
                           ncclComm_t* newcomm, ncclConfig_t* config) {
  bool blocking = true;
  const ncclResult_t result = api::call("ncclCommGrow", [&]() -> Status {
    /// Of a rank that has no communicator yet.
    const auto enter = [&]() -> Status {
      RAILCCL_CHECK(not_null(uniqueId, "uniqueId of a rank that joins"));
      if (rank < 0 || rank >= nRanks)
        return Status(Code::invalid_argument, "rank is {}; a rank that joins is from 0 to {}", rank,
                      nRanks - 1);
      RAILCCL_TRY(runtime::Config chosen, config_from(config, {}));
      chosen.gpu = runtime::GpuPlace::here();
      blocking = chosen.blocking;
      return make_into(newcomm, [id = id_from(*uniqueId), rank, nRanks, chosen] {
        return runtime::Communicator::join(id, rank, nRanks, chosen);
      });
    };
    /// Of a rank of the old communicator.
    const auto stay = [&]() -> Status {
      RAILCCL_TRY(Use use, Use::of(comm));
      if (rank != -1)
        return Status(Code::invalid_argument,
                      "rank is {}; a rank of the communicator keeps its number and gives -1", rank);
      RAILCCL_TRY(const runtime::Config chosen, config_from(config, use.communicator().config()));
      blocking = chosen.blocking;
      const bool holder = uniqueId != nullptr;
      const runtime::UniqueId id = holder ? id_from(*uniqueId) : runtime::UniqueId{};
      return make_into(newcomm, [old = use.shared(), holder, id, nRanks, chosen] {
        return old->grow(holder ? &id : nullptr, nRanks, chosen);
      });
    };
    const auto begin = [&]() -> Status {
      RAILCCL_CHECK(not_null(newcomm, "newcomm"));
      *newcomm = nullptr;
      return comm == nullptr ? enter() : stay();
    };
    const Status status = begin();
    if (!status.is_ok()) refuse_group(status);
    return status;
  });
  return result == ncclSuccess && !blocking ? ncclInProgress : result;
}

}  // extern "C"

RAILCCL_EXPORT(ncclCommShrink);
RAILCCL_EXPORT(ncclCommGetUniqueId);
RAILCCL_EXPORT(ncclCommGrow);
