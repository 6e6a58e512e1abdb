// From the arguments of a collective to a checked runtime::Call. Private to this room.
#pragma once

#include "api/errors.h"
#include "api/handle.h"
#include "runtime/communicator.h"

namespace railccl::api {

/// Checks everything one rank can check: type, operator, root, sizes, buffers and their overlap.
Status collective_call(const Arguments& arguments, ncclComm& comm, runtime::Call* call);
/// The same without the buffers, and without a word about being in place.
Status call_without_buffers(const Arguments& arguments, ncclComm& comm, runtime::Call* call);
Status transfer_call(runtime::Call::Kind kind, const void* input, void* output, size_t count,
                     ncclDataType_t datatype, int peer, ncclComm& comm, runtime::Call* call);
/// Like collective_call; takes a short cut when the last call was the same, apart from the address.
Status collective_call_again(const Arguments& arguments, Use& use, runtime::Call* call);

Result<Collective> collective_from(railcclCollective_t collective);
Result<Datatype> datatype_from(ncclDataType_t type);
/// What a handle of a stream (not null) stands for; of those that are not ours CUDA has to judge.
Result<runtime::Queue> queue_from(cudaStream_t stream);

}  // namespace railccl::api
