// From the arguments of a collective to a checked runtime::Call. Private to this room.
#pragma once

#include "api/errors.h"
#include "api/handle.h"
#include "runtime/communicator.h"

namespace railccl::api {

struct Arguments {
  Collective collective = Collective::all_reduce;
  const void* input = nullptr;
  void* output = nullptr;
  size_t count = 0;
  ncclDataType_t datatype = ncclFloat32;
  ncclRedOp_t op = ncclSum;
  int root = 0;
};

/// Checks everything one rank can check: type, operator, root, sizes, buffers and their overlap.
Result<runtime::Call> collective_call(const Arguments& arguments, ncclComm& comm);
Result<runtime::Call> transfer_call(runtime::Call::Kind kind, const void* input, void* output,
                                    size_t count, ncclDataType_t datatype, int peer,
                                    ncclComm& comm);

Result<Datatype> datatype_from(ncclDataType_t type);
/// The stream behind a handle: null for null.
Result<runtime::Stream*> stream_from(cudaStream_t stream);

/// Reads a scalar of `type` as the factor of an operator.
kernels::Scale factor_from(const void* scalar, Datatype type);

}  // namespace railccl::api
