// The functions of nccl.h that move data, and groups: check arguments, call the communicator,
// translate the Status. Communicators are in nccl_communicators.cc, memory in nccl_memory.cc.
#include <cstring>

#include "api/calls.h"
#include "api/config.h"
#include "api/jobs.h"
#include "api/start.h"

using namespace railccl;
using namespace railccl::api;

namespace {

ncclResult_t collective(const char* function, ncclComm_t comm, cudaStream_t stream,
                        const Arguments& arguments) {
  return start(function, comm, stream, [&](Use& use, runtime::Queue queue) -> Status {
    runtime::Call call;
    RAILCCL_CHECK(collective_call_again(arguments, use, &call));
    return use.communicator().start(call, queue);
  });
}

}  // namespace

extern "C" {

ncclResult_t pncclAllReduce(const void* sendbuff, void* recvbuff, size_t count,
                            ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                            cudaStream_t stream) {
  return collective("ncclAllReduce", comm, stream,
                    {Collective::all_reduce, sendbuff, recvbuff, count, datatype, op, 0});
}

ncclResult_t pncclReduce(const void* sendbuff, void* recvbuff, size_t count,
                         ncclDataType_t datatype, ncclRedOp_t op, int root, ncclComm_t comm,
                         cudaStream_t stream) {
  return collective("ncclReduce", comm, stream,
                    {Collective::reduce, sendbuff, recvbuff, count, datatype, op, root});
}

ncclResult_t pncclReduceScatter(const void* sendbuff, void* recvbuff, size_t recvcount,
                                ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                                cudaStream_t stream) {
  return collective("ncclReduceScatter", comm, stream,
                    {Collective::reduce_scatter, sendbuff, recvbuff, recvcount, datatype, op, 0});
}

ncclResult_t pncclAllGather(const void* sendbuff, void* recvbuff, size_t sendcount,
                            ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream) {
  return collective("ncclAllGather", comm, stream,
                    {Collective::all_gather, sendbuff, recvbuff, sendcount, datatype, ncclSum, 0});
}

ncclResult_t pncclBroadcast(const void* sendbuff, void* recvbuff, size_t count,
                            ncclDataType_t datatype, int root, ncclComm_t comm,
                            cudaStream_t stream) {
  return collective("ncclBroadcast", comm, stream,
                    {Collective::broadcast, sendbuff, recvbuff, count, datatype, ncclSum, root});
}

ncclResult_t pncclBcast(void* buff, size_t count, ncclDataType_t datatype, int root,
                        ncclComm_t comm, cudaStream_t stream) {
  return collective("ncclBcast", comm, stream,
                    {Collective::broadcast, buff, buff, count, datatype, ncclSum, root});
}

ncclResult_t pncclAlltoAll(const void* sendbuff, void* recvbuff, size_t count,
                           ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream) {
  return collective("ncclAlltoAll", comm, stream,
                    {Collective::all_to_all, sendbuff, recvbuff, count, datatype, ncclSum, 0});
}

ncclResult_t pncclGather(const void* sendbuff, void* recvbuff, size_t count,
                         ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream) {
  return collective("ncclGather", comm, stream,
                    {Collective::gather, sendbuff, recvbuff, count, datatype, ncclSum, root});
}

ncclResult_t pncclScatter(const void* sendbuff, void* recvbuff, size_t count,
                          ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream) {
  return collective("ncclScatter", comm, stream,
                    {Collective::scatter, sendbuff, recvbuff, count, datatype, ncclSum, root});
}

ncclResult_t pncclSend(const void* sendbuff, size_t count, ncclDataType_t datatype, int peer,
                       ncclComm_t comm, cudaStream_t stream) {
  return start("ncclSend", comm, stream, [&](Use& use, runtime::Queue queue) -> Status {
    runtime::Call call;
    RAILCCL_CHECK(transfer_call(runtime::Call::Kind::send, sendbuff, nullptr, count, datatype, peer,
                                *use.operator->(), &call));
    return use.communicator().start(call, queue);
  });
}

ncclResult_t pncclRecv(void* recvbuff, size_t count, ncclDataType_t datatype, int peer,
                       ncclComm_t comm, cudaStream_t stream) {
  return start("ncclRecv", comm, stream, [&](Use& use, runtime::Queue queue) -> Status {
    runtime::Call call;
    RAILCCL_CHECK(transfer_call(runtime::Call::Kind::recv, nullptr, recvbuff, count, datatype, peer,
                                *use.operator->(), &call));
    return use.communicator().start(call, queue);
  });
}

ncclResult_t pncclGroupStart(void) {
  return api::call("ncclGroupStart", [] {
    begin_group();
    return ok();
  });
}

ncclResult_t pncclGroupEnd(void) {
  bool in_progress = false;
  const ncclResult_t result = api::call("ncclGroupEnd", [&] { return end_group(&in_progress); });
  return result == ncclSuccess && in_progress ? ncclInProgress : result;
}

ncclResult_t pncclGroupSimulateEnd(ncclSimInfo_t* simInfo) {
  return api::call("ncclGroupSimulateEnd", [&]() -> Status {
    double estimate_s = 0;
    const Status ended = simulate_group(&estimate_s);  // in any case: the group is over
    RAILCCL_CHECK(not_null(simInfo, "simInfo"));
    RAILCCL_CHECK(check_layout("simInfo", simInfo->size,
                               offsetof(ncclSimInfo_t, estimatedTime) + sizeof(float),
                               simInfo->magic, 0x74685283));
    RAILCCL_CHECK(ended);
    simInfo->estimatedTime = static_cast<float>(estimate_s * 1e6);
    return ok();
  });
}

ncclResult_t pncclRedOpCreatePreMulSum(ncclRedOp_t* op, void* scalar, ncclDataType_t datatype,
                                       ncclScalarResidence_t residence, ncclComm_t comm) {
  return api::call("ncclRedOpCreatePreMulSum", [&]() -> Status {
    RAILCCL_CHECK(not_null(op, "op"));
    RAILCCL_CHECK(not_null(scalar, "scalar"));
    RAILCCL_TRY(Use use, Use::of(comm));
    MadeOperator made;
    made.alive = true;
    RAILCCL_TRY(made.datatype, datatype_from(datatype));
    if (residence == ncclScalarHostImmediate)
      made.factor = kernels::factor_from(scalar, made.datatype);
    else if (residence == ncclScalarDevice)
      made.residence = scalar;  // of a GPU or not: read when the operator is used
    else
      return Status(Code::invalid_argument, "{} is no residence of a scalar",
                    static_cast<int>(residence));
    auto& operators = use->operators;
    size_t index = 0;
    while (index < operators.size() && operators[index].alive) index++;
    if (index == operators.size()) operators.emplace_back();
    operators[index] = made;
    *op = static_cast<ncclRedOp_t>(static_cast<size_t>(ncclNumOps) + index);
    return ok();
  });
}

ncclResult_t pncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm) {
  return api::call("ncclRedOpDestroy", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    if (op >= 0 && op < ncclNumOps)
      return Status(Code::invalid_argument, "operator {} is built in and stays",
                    static_cast<int>(op));
    const auto index = static_cast<size_t>(op) - static_cast<size_t>(ncclNumOps);
    if (op < 0 || index >= use->operators.size() || !use->operators[index].alive)
      return Status(Code::invalid_argument, "{} is no reduction operator of this communicator",
                    static_cast<int>(op));
    use->operators[index].alive = false;
    return ok();
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclAllReduce);
RAILCCL_EXPORT(ncclReduce);
RAILCCL_EXPORT(ncclReduceScatter);
RAILCCL_EXPORT(ncclAllGather);
RAILCCL_EXPORT(ncclBroadcast);
RAILCCL_EXPORT(ncclBcast);
RAILCCL_EXPORT(ncclAlltoAll);
RAILCCL_EXPORT(ncclGather);
RAILCCL_EXPORT(ncclScatter);
RAILCCL_EXPORT(ncclSend);
RAILCCL_EXPORT(ncclRecv);
RAILCCL_EXPORT(ncclGroupStart);
RAILCCL_EXPORT(ncclGroupEnd);
RAILCCL_EXPORT(ncclGroupSimulateEnd);
RAILCCL_EXPORT(ncclRedOpCreatePreMulSum);
RAILCCL_EXPORT(ncclRedOpDestroy);
