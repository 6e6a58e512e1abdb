// Argument checks of the collectives; see calls.h.
#include "api/calls.h"

#include <limits>

#include "gpu/driver.h"

namespace railccl::api {
namespace {

using plan::Request;
using runtime::Call;

struct Range {
  uintptr_t begin = 0;
  uint64_t bytes = 0;
};

bool overlap(const Range& a, const Range& b) {
  return a.bytes > 0 && b.bytes > 0 && a.begin < b.begin + b.bytes && b.begin < a.begin + a.bytes;
}

/// Is the output where NCCL wants it for an operation in place?
bool in_place(const Request& request, int rank, uintptr_t input, uintptr_t output) {
  const uint64_t block = plan::bytes_of(request);
  switch (request.collective) {
    case Collective::all_reduce:
    case Collective::reduce:
    case Collective::broadcast:
      return input == output;
    case Collective::reduce_scatter:
      return output == input + static_cast<uint64_t>(rank) * block;
    case Collective::all_gather:
      return input == output + static_cast<uint64_t>(rank) * block;
    case Collective::gather:
      return input == output + static_cast<uint64_t>(request.root) * block;
    case Collective::scatter:
      return output == input + static_cast<uint64_t>(request.root) * block;
    case Collective::all_to_all:
      return false;
  }
  return false;
}

Status check_count(size_t count, Datatype type, int ranks) {
  // Half of the address space, so that no sum of an address and a size wraps.
  const uint64_t unit = size_of(type) * static_cast<uint64_t>(ranks);
  uint64_t all = 0;
  if (!__builtin_mul_overflow(uint64_t{count}, unit, &all) &&
      all <= std::numeric_limits<uint64_t>::max() / 2)
    return ok();
  return Status(Code::invalid_argument, "count {} is too large: {} ranks of that many {} overflow",
                count, ranks, name_of(type));
}

Status check_buffers(const Request& request, int ranks, int rank, const void* input,
                     const void* output) {
  const uint64_t unit = size_of(request.datatype);
  const Range in{reinterpret_cast<uintptr_t>(input),
                 plan::input_elements(request, ranks, rank) * unit};
  const Range out{reinterpret_cast<uintptr_t>(output),
                  plan::output_elements(request, ranks, rank) * unit};
  if (in.bytes > 0) RAILCCL_CHECK(not_null(input, "sendbuff"));
  if (out.bytes > 0) RAILCCL_CHECK(not_null(output, "recvbuff"));
  if (!request.in_place && overlap(in, out))
    return Status(Code::invalid_argument,
                  "sendbuff and recvbuff overlap, but not as an in-place {} has them",
                  name_of(request.collective));
  return ok();
}

Status apply_operator(ncclRedOp_t op, ncclComm& comm, Call* call) {
  if (op >= 0 && op < ncclNumOps) {
    call->request.op = static_cast<Reduction>(op);
    return ok();
  }
  const auto index = static_cast<size_t>(op) - static_cast<size_t>(ncclNumOps);
  if (op < 0 || index >= comm.operators.size() || !comm.operators[index].alive)
    return Status(Code::invalid_argument,
                  "{} is no reduction operator of this communicator (made elsewhere, or destroyed)",
                  static_cast<int>(op));
  const MadeOperator& made = comm.operators[index];
  if (made.datatype != call->request.datatype)
    return Status(Code::invalid_argument, "operator {} was made for {}, but the call has {}",
                  static_cast<int>(op), name_of(made.datatype), name_of(call->request.datatype));
  call->request.op = Reduction::pre_mul_sum;
  if (made.residence == nullptr) {
    call->factor = made.factor;
    return ok();
  }
  RAILCCL_TRY(const bool on_gpu, comm.communicator->config().gpu.holds(made.residence));
  if (on_gpu) {
    call->late_factor = made.residence;  // as it is when the stream comes to the call
  } else {
    call->factor = kernels::factor_from(made.residence, made.datatype);
  }
  return ok();
}

}  // namespace

Result<Datatype> datatype_from(ncclDataType_t type) {
  const int number = static_cast<int>(type);
  if (number < 0 || number >= kDatatypeCount)
    return Status(Code::invalid_argument, "{} is no datatype (there are 0 to {})", number,
                  kDatatypeCount - 1);
  return static_cast<Datatype>(number);
}

Result<runtime::Queue> queue_from(cudaStream_t stream) {
  if (runtime::Stream* ours = runtime::Stream::from_handle(stream)) return runtime::Queue(ours);
  if (gpu::Driver::loaded() != nullptr) return runtime::Queue::of_cuda(stream);
  return Status(Code::invalid_argument,
                "stream {} was not made by railcclStreamCreate, and there are no streams of CUDA: "
                "this process has loaded no CUDA driver (libcuda.so.1)",
                static_cast<const void*>(stream));
}

Result<Collective> collective_from(railcclCollective_t collective) {
  switch (collective) {
    case railcclAllReduce:
      return Collective::all_reduce;
    case railcclReduceScatter:
      return Collective::reduce_scatter;
    case railcclAllGather:
      return Collective::all_gather;
    case railcclBroadcast:
      return Collective::broadcast;
    case railcclReduce:
      return Collective::reduce;
    case railcclAlltoAll:
      return Collective::all_to_all;
    case railcclGather:
      return Collective::gather;
    case railcclScatter:
      return Collective::scatter;
    case railcclNumCollectives:
      break;
  }
  return Status(Code::invalid_argument, "{} is no collective", static_cast<int>(collective));
}

Status call_without_buffers(const Arguments& arguments, ncclComm& comm, Call* call) {
  const runtime::Communicator& communicator = *comm.communicator;
  const int ranks = communicator.size();
  if (communicator.in_progress() && ranks == 0)
    return Status(Code::invalid_usage, "the communicator is still being made");
  *call = Call();
  Request& request = call->request;
  request.collective = arguments.collective;
  RAILCCL_TRY(request.datatype, datatype_from(arguments.datatype));
  if (reduces(arguments.collective)) RAILCCL_CHECK(apply_operator(arguments.op, comm, call));
  if (rooted(arguments.collective)) {
    if (arguments.root < 0 || arguments.root >= ranks)
      return Status(Code::invalid_argument, "root {} is no rank; there are 0 to {}", arguments.root,
                    ranks - 1);
    request.root = arguments.root;
  }
  request.count = arguments.count;
  return check_count(arguments.count, request.datatype, ranks);
}

Status collective_call(const Arguments& arguments, ncclComm& comm, Call* call) {
  RAILCCL_CHECK(call_without_buffers(arguments, comm, call));
  const int ranks = comm.communicator->size(), rank = comm.communicator->rank();
  Request& request = call->request;
  const bool both = plan::input_elements(request, ranks, rank) > 0 &&
                    plan::output_elements(request, ranks, rank) > 0;
  request.in_place = both && in_place(request, rank, reinterpret_cast<uintptr_t>(arguments.input),
                                      reinterpret_cast<uintptr_t>(arguments.output));
  RAILCCL_CHECK(check_buffers(request, ranks, rank, arguments.input, arguments.output));
  call->input = arguments.input;
  call->output = arguments.output;
  return ok();
}

Status collective_call_again(const Arguments& arguments, Use& use, Call* call) {
  if (!use.first()) return collective_call(arguments, *use.operator->(), call);
  LastCall& last = use->last;
  const Arguments& known = last.arguments;
  const auto apart = [](const Arguments& pair) {
    return reinterpret_cast<uintptr_t>(pair.output) - reinterpret_cast<uintptr_t>(pair.input);
  };
  // Buffers as far apart as before overlap as little as before. Null ones never passed.
  if (last.valid && known.count == arguments.count && known.collective == arguments.collective &&
      known.datatype == arguments.datatype && known.op == arguments.op &&
      known.root == arguments.root && apart(known) == apart(arguments) &&
      arguments.input != nullptr && arguments.output != nullptr) {
    *call = last.call;
    call->input = arguments.input;
    call->output = arguments.output;
    return ok();
  }
  RAILCCL_CHECK(collective_call(arguments, *use.operator->(), call));
  // Made operators may be destroyed, or have another factor, by the next call.
  last.valid = arguments.op < ncclNumOps;
  last.arguments = arguments;
  last.call = *call;
  return ok();
}

Status transfer_call(Call::Kind kind, const void* input, void* output, size_t count,
                     ncclDataType_t datatype, int peer, ncclComm& comm, Call* call) {
  const int ranks = comm.communicator->size();
  *call = Call();
  call->kind = kind;
  RAILCCL_TRY(call->request.datatype, datatype_from(datatype));
  if (peer < 0 || peer >= ranks)
    return Status(Code::invalid_argument, "peer {} is no rank; there are 0 to {}", peer, ranks - 1);
  RAILCCL_CHECK(check_count(count, call->request.datatype, ranks));
  if (count > 0) {
    if (kind == Call::Kind::send)
      RAILCCL_CHECK(not_null(input, "sendbuff"));
    else
      RAILCCL_CHECK(not_null(output, "recvbuff"));
  }
  call->request.count = count;
  call->peer = peer;
  call->input = input;
  call->output = output;
  return ok();
}

}  // namespace railccl::api
