// The collectives of nccl.h with options for one call: check the options, then call as usual.
#include <algorithm>
#include <cstring>

#include "api/config.h"
#include "api/errors.h"
#include "api/jobs.h"

using namespace railccl;
using namespace railccl::api;

namespace {

Status check_config(const ncclCollConfig_t* given) {
  if (given == nullptr) return ok();
  size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  RAILCCL_CHECK(check_layout("config", size, sizeof(ncclCollConfig_t), given->magic, 0xcafebeef));
  const auto channels = [](const char* field, int value) {
    return within(field, value, 1, kChannelsMax);
  };
  RAILCCL_CHECK(channels("minCTAs", given->minCTAs));
  RAILCCL_CHECK(channels("maxCTAs", given->maxCTAs));
  RAILCCL_CHECK(channels("nvlsCTAs", given->nvlsCTAs));
  RAILCCL_CHECK(within("cgaClusterSize", given->cgaClusterSize, 0, 8));
  RAILCCL_CHECK(within("CTAPolicy", given->CTAPolicy, NCCL_CTA_POLICY_DEFAULT,
                       NCCL_CTA_POLICY_EFFICIENCY | NCCL_CTA_POLICY_ZERO));
  if (given->forceAlgSelection != 0 && given->forceAlgSelection != 1)
    return Status(Code::invalid_argument, "config.forceAlgSelection is {}; it must be 0 or 1",
                  given->forceAlgSelection);
  if (given->minCTAs != NCCL_CONFIG_UNDEF_INT && given->maxCTAs != NCCL_CONFIG_UNDEF_INT &&
      given->minCTAs > given->maxCTAs)
    return Status(Code::invalid_argument, "config.minCTAs ({}) is above config.maxCTAs ({})",
                  given->minCTAs, given->maxCTAs);
  const bool selects = given->algSelection != nullptr && *given->algSelection != '\0';
  if (selects && given->forceAlgSelection == 1)
    return Status(Code::unsupported,
                  "config.algSelection demands \"{}\", but algorithms cannot be demanded call by "
                  "call: set forceAlgSelection to 0, or NCCL_ALGO in the environment",
                  given->algSelection);
  return ok();
}

template <typename Call>
ncclResult_t configured(const char* function, const ncclCollConfig_t* config, const Call& plain) {
  const ncclResult_t checked = api::call(function, [&]() -> Status {
    const Status status = check_config(config);
    if (!status.is_ok()) refuse_group(status);
    return status;
  });
  return checked == ncclSuccess ? plain() : checked;
}

}  // namespace

extern "C" {

ncclResult_t pncclAllReduceConfig(const void* sendbuff, void* recvbuff, size_t count,
                                  ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                                  cudaStream_t stream, const ncclCollConfig_t* config) {
  return configured("ncclAllReduceConfig", config, [&] {
    return pncclAllReduce(sendbuff, recvbuff, count, datatype, op, comm, stream);
  });
}

ncclResult_t pncclBroadcastConfig(const void* sendbuff, void* recvbuff, size_t count,
                                  ncclDataType_t datatype, int root, ncclComm_t comm,
                                  cudaStream_t stream, const ncclCollConfig_t* config) {
  return configured("ncclBroadcastConfig", config, [&] {
    return pncclBroadcast(sendbuff, recvbuff, count, datatype, root, comm, stream);
  });
}

ncclResult_t pncclReduceConfig(const void* sendbuff, void* recvbuff, size_t count,
                               ncclDataType_t datatype, ncclRedOp_t op, int root, ncclComm_t comm,
                               cudaStream_t stream, const ncclCollConfig_t* config) {
  return configured("ncclReduceConfig", config, [&] {
    return pncclReduce(sendbuff, recvbuff, count, datatype, op, root, comm, stream);
  });
}

ncclResult_t pncclAllGatherConfig(const void* sendbuff, void* recvbuff, size_t sendcount,
                                  ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream,
                                  const ncclCollConfig_t* config) {
  return configured("ncclAllGatherConfig", config, [&] {
    return pncclAllGather(sendbuff, recvbuff, sendcount, datatype, comm, stream);
  });
}

ncclResult_t pncclReduceScatterConfig(const void* sendbuff, void* recvbuff, size_t recvcount,
                                      ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                                      cudaStream_t stream, const ncclCollConfig_t* config) {
  return configured("ncclReduceScatterConfig", config, [&] {
    return pncclReduceScatter(sendbuff, recvbuff, recvcount, datatype, op, comm, stream);
  });
}

ncclResult_t pncclAlltoAllConfig(const void* sendbuff, void* recvbuff, size_t count,
                                 ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream,
                                 const ncclCollConfig_t* config) {
  return configured("ncclAlltoAllConfig", config, [&] {
    return pncclAlltoAll(sendbuff, recvbuff, count, datatype, comm, stream);
  });
}

ncclResult_t pncclGatherConfig(const void* sendbuff, void* recvbuff, size_t count,
                               ncclDataType_t datatype, int root, ncclComm_t comm,
                               cudaStream_t stream, const ncclCollConfig_t* config) {
  return configured("ncclGatherConfig", config, [&] {
    return pncclGather(sendbuff, recvbuff, count, datatype, root, comm, stream);
  });
}

ncclResult_t pncclScatterConfig(const void* sendbuff, void* recvbuff, size_t count,
                                ncclDataType_t datatype, int root, ncclComm_t comm,
                                cudaStream_t stream, const ncclCollConfig_t* config) {
  return configured("ncclScatterConfig", config, [&] {
    return pncclScatter(sendbuff, recvbuff, count, datatype, root, comm, stream);
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclAllReduceConfig);
RAILCCL_EXPORT(ncclBroadcastConfig);
RAILCCL_EXPORT(ncclReduceConfig);
RAILCCL_EXPORT(ncclAllGatherConfig);
RAILCCL_EXPORT(ncclReduceScatterConfig);
RAILCCL_EXPORT(ncclAlltoAllConfig);
RAILCCL_EXPORT(ncclGatherConfig);
RAILCCL_EXPORT(ncclScatterConfig);
