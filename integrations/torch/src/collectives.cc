// Group's collectives: what each call checks, and what its job does.
#include <ATen/ATen.h>

#include <cstring>
#include <torch/csrc/distributed/c10d/Utils.hpp>

#include "group.h"
#include "operands.h"
#include "queue.h"

namespace railccl_torch {

namespace {

Job::Facts facts_of(c10d::OpType type, const char* title, Tensors inputs, Tensors outputs) {
  Job::Facts facts;
  facts.type = type;
  facts.title = title;
  facts.inputs = std::move(inputs);
  facts.outputs = std::move(outputs);
  return facts;
}

/// The calls between its making and end() go together.
class Together {
 public:
  explicit Together(ncclComm_t comm) : comm_(comm) { check(ncclGroupStart(), "ncclGroupStart"); }
  ~Together() {
    if (open_) (void)ncclGroupEnd();  // something threw: what it says is told
  }
  Together(const Together&) = delete;
  Together& operator=(const Together&) = delete;
  void end() {
    open_ = false;
    check(ncclGroupEnd(), "ncclGroupEnd", comm_);
  }

 private:
  ncclComm_t comm_;
  bool open_ = true;
};

void reduce_all(const at::Tensor& data, const Reduction& how, int size, ncclComm_t comm) {
  if (how.by_hand) {
    const at::Tensor all = at::empty({size, data.numel()}, data.options());
    check(ncclAllGather(data.data_ptr(), all.data_ptr(), bytes_of(data), ncclUint8, comm, nullptr),
          "ncclAllGather", comm);
    combine(how, all, data);
    return;
  }
  const Operator op(how, comm);
  check(ncclAllReduce(data.data_ptr(), data.data_ptr(), static_cast<size_t>(data.numel()), how.type,
                      op, comm, nullptr),
        "ncclAllReduce", comm);
}

/// The blocks of `in`, one for each rank, to one block `out` on each.
void reduce_blocks(const at::Tensor& in, const at::Tensor& out, const Reduction& how, int size,
                   ncclComm_t comm) {
  if (how.by_hand) {
    const at::Tensor mine = at::empty({size, out.numel()}, in.options());
    check(ncclAlltoAll(in.data_ptr(), mine.data_ptr(), bytes_of(out), ncclUint8, comm, nullptr),
          "ncclAlltoAll", comm);
    combine(how, mine, out);
    return;
  }
  const Operator op(how, comm);
  check(ncclReduceScatter(in.data_ptr(), out.data_ptr(), static_cast<size_t>(out.numel()), how.type,
                          op, comm, nullptr),
        "ncclReduceScatter", comm);
}

/// What goes to and comes from one rank in an exchange.
struct Piece {
  void* data = nullptr;
  size_t bytes = 0;
};

/// Sends out[i] to rank i, and receives in[i] from there.
void exchange(const std::vector<Piece>& out, const std::vector<Piece>& in, int rank,
              ncclComm_t comm) {
  const auto self = static_cast<size_t>(rank);
  TORCH_CHECK_VALUE(out[self].bytes == in[self].bytes, "railccl: rank ", rank, " sends ",
                    out[self].bytes, " bytes to itself, and wants ", in[self].bytes);
  if (in[self].bytes > 0 && in[self].data != out[self].data)
    std::memcpy(in[self].data, out[self].data, in[self].bytes);
  Together together(comm);
  for (size_t peer = 0; peer < out.size(); peer++) {
    if (peer == self) continue;
    const int number = static_cast<int>(peer);
    if (out[peer].bytes > 0)
      check(ncclSend(out[peer].data, out[peer].bytes, ncclUint8, number, comm, nullptr), "ncclSend",
            comm);
    if (in[peer].bytes > 0)
      check(ncclRecv(in[peer].data, in[peer].bytes, ncclUint8, number, comm, nullptr), "ncclRecv",
            comm);
  }
  together.end();
}

std::vector<Target> targets_of(const Tensors& tensors, bool read) {
  std::vector<Target> targets;
  targets.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) targets.emplace_back(tensor, read);
  return targets;
}

std::vector<Piece> pieces_of(const std::vector<Target>& targets) {
  std::vector<Piece> pieces;
  pieces.reserve(targets.size());
  for (const Target& target : targets) pieces.push_back({target.data(), bytes_of(target.flat())});
  return pieces;
}

/// `tensor` cut along its first dimension: as given, or evenly.
std::vector<Piece> pieces_of(const at::Tensor& tensor, const std::vector<int64_t>& splits,
                             int size) {
  std::vector<Piece> pieces;
  auto* data = static_cast<char*>(tensor.data_ptr());
  const size_t bytes = bytes_of(tensor);
  const int64_t rows = tensor.dim() == 0 ? 1 : tensor.size(0);
  const size_t row = rows == 0 ? 0 : bytes / static_cast<size_t>(rows);
  for (int i = 0; i < size; i++) {
    const size_t part = splits.empty() ? bytes / static_cast<size_t>(size)
                                       : row * static_cast<size_t>(splits[static_cast<size_t>(i)]);
    pieces.push_back({data, part});
    data += part;
  }
  return pieces;
}

Tensors flatten(const TensorLists& lists) {
  Tensors flat;
  for (const Tensors& list : lists) flat.insert(flat.end(), list.begin(), list.end());
  return flat;
}

}  // namespace

void Group::check_root(int64_t root, int64_t root_tensor, const char* what) const {
  TORCH_CHECK_VALUE(root >= 0 && root < size_, "railccl: ", what, ": invalid root rank: ", root);
  TORCH_CHECK_VALUE(root_tensor == 0, "railccl: ", what, ": invalid root tensor: ", root_tensor);
}

WorkPointer Group::broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) {
  check_root(options.rootRank, options.rootTensor, "broadcast");
  const at::Tensor tensor = only(tensors, "broadcast");
  const int root = static_cast<int>(options.rootRank);
  const bool reads = root == rank_;
  return queue(options, facts_of(c10d::OpType::BROADCAST, "railccl:broadcast", {tensor}, {tensor}),
               [tensor, root, reads](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 const Target memory(tensor, reads);
                 check(ncclBroadcast(memory.data(), memory.data(), bytes_of(tensor), ncclUint8,
                                     root, comm, nullptr),
                       "ncclBroadcast", comm);
                 if (!reads) memory.land();
               });
}

WorkPointer Group::allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) {
  const at::Tensor tensor = only(tensors, "allreduce");
  const Reduction how = reduction_of(options.reduceOp, tensor.scalar_type(), "allreduce");
  return queue(options, facts_of(c10d::OpType::ALLREDUCE, "railccl:allreduce", {tensor}, {tensor}),
               [tensor, how, size = size_](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 const Target memory(tensor, true);
                 reduce_all(as_real(memory.flat()), how, size, comm);
                 memory.land();
               });
}

WorkPointer Group::allreduce_coalesced(Tensors& tensors,
                                       const c10d::AllreduceCoalescedOptions& options) {
  TORCH_CHECK_VALUE(!tensors.empty(),
                    "railccl: allreduce_coalesced: requires a non-empty tensor list");
  check_tensors(tensors, tensors.size(), tensors[0], "allreduce_coalesced");
  const Reduction how =
      reduction_of(options.reduceOp, tensors[0].scalar_type(), "allreduce_coalesced");
  return queue(
      options,
      facts_of(c10d::OpType::ALLREDUCE_COALESCED, "railccl:allreduce_coalesced", tensors, tensors),
      [tensors, how, size = size_](ncclComm_t comm) {
        const at::NoGradGuard plain;
        // Together rather than one by one: small tensors cost their number, not their size.
        const Row row = Row::to_read(tensors);
        reduce_all(as_real(row.flat()), how, size, comm);
        row.land();
      });
}

WorkPointer Group::reduce(Tensors& tensors, const c10d::ReduceOptions& options) {
  check_root(options.rootRank, options.rootTensor, "reduce");
  const at::Tensor tensor = only(tensors, "reduce");
  const Reduction how = reduction_of(options.reduceOp, tensor.scalar_type(), "reduce");
  const int root = static_cast<int>(options.rootRank);
  return queue(
      options, facts_of(c10d::OpType::REDUCE, "railccl:reduce", {tensor}, {tensor}),
      [tensor, how, root, rank = rank_, size = size_](ncclComm_t comm) {
        const at::NoGradGuard plain;
        const Target memory(tensor, true);
        const at::Tensor data = as_real(memory.flat());
        if (how.by_hand) {
          const at::Tensor result = rank == root ? data : data.clone();
          reduce_all(result, how, size, comm);
        } else {
          const Operator op(how, comm);
          check(ncclReduce(data.data_ptr(), data.data_ptr(), static_cast<size_t>(data.numel()),
                           how.type, op, root, comm, nullptr),
                "ncclReduce", comm);
        }
        if (rank == root) memory.land();
      });
}

WorkPointer Group::allgather(TensorLists& outputs, Tensors& inputs,
                             const c10d::AllgatherOptions& options) {
  const at::Tensor input = only(inputs, "allgather");
  TORCH_CHECK_VALUE(outputs.size() == 1,
                    "railccl: allgather: requires a single-element output list, not ",
                    outputs.size(), " elements");
  const Tensors output = outputs[0];
  check_tensors(output, static_cast<size_t>(size_), input, "allgather");
  TORCH_CHECK_VALUE(output[static_cast<size_t>(rank_)].numel() == input.numel(),
                    "railccl: allgather: ", input.numel(), " elements of input, room for ",
                    output[static_cast<size_t>(rank_)].numel());
  const bool even = same_sizes(output);
  return queue(
      options, facts_of(c10d::OpType::ALLGATHER, "railccl:allgather", {input}, output),
      [input, output, even, rank = rank_](ncclComm_t comm) {
        const at::NoGradGuard plain;
        const Target from(input, true);
        if (even) {
          const Row row = Row::to_write(output);
          check(ncclAllGather(from.data(), row.data(), bytes_of(input), ncclUint8, comm, nullptr),
                "ncclAllGather", comm);
          row.land();
          return;
        }
        const std::vector<Target> to = targets_of(output, false);
        Together together(comm);
        for (size_t root = 0; root < to.size(); root++) {
          const void* mine = static_cast<int>(root) == rank ? from.data() : to[root].data();
          check(ncclBroadcast(mine, to[root].data(), bytes_of(output[root]), ncclUint8,
                              static_cast<int>(root), comm, nullptr),
                "ncclBroadcast", comm);
        }
        together.end();
        for (const Target& target : to) target.land();
      });
}

WorkPointer Group::gather_into(const char* title, Tensors outputs, Tensors inputs,
                               const c10d::AllgatherOptions& options) {
  TORCH_CHECK_VALUE(inputs.size() == outputs.size() && !inputs.empty(),
                    "railccl: allgather: requires as many outputs as inputs, and at least one");
  for (size_t i = 0; i < inputs.size(); i++) {
    check_tensor(inputs[i], "allgather");
    check_tensors({outputs[i]}, 1, inputs[i], "allgather");
    TORCH_CHECK_VALUE(outputs[i].numel() == inputs[i].numel() * size_,
                      "railccl: allgather: output tensor size must be equal to world_size times "
                      "input tensor size: ",
                      outputs[i].numel(), " is not ", size_, " x ", inputs[i].numel());
  }
  return queue(options, facts_of(c10d::OpType::_ALLGATHER_BASE, title, inputs, outputs),
               [inputs, outputs](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 const std::vector<Target> from = targets_of(inputs, true);
                 const std::vector<Target> to = targets_of(outputs, false);
                 Together together(comm);
                 for (size_t i = 0; i < from.size(); i++)
                   check(ncclAllGather(from[i].data(), to[i].data(), bytes_of(inputs[i]), ncclUint8,
                                       comm, nullptr),
                         "ncclAllGather", comm);
                 together.end();
                 for (const Target& target : to) target.land();
               });
}

WorkPointer Group::_allgather_base(at::Tensor& output, at::Tensor& input,
                                   const c10d::AllgatherOptions& options) {
  return gather_into("railccl:_allgather_base", {output}, {input}, options);
}

WorkPointer Group::allgather_coalesced(TensorLists& outputs, Tensors& inputs,
                                       const c10d::AllgatherOptions& options) {
  TORCH_CHECK_VALUE(!inputs.empty(),
                    "railccl: allgather_coalesced: requires a non-empty tensor list");
  TORCH_CHECK_VALUE(outputs.size() == static_cast<size_t>(size_),
                    "railccl: allgather_coalesced: output lists should be equal to world size");
  check_tensors(inputs, inputs.size(), inputs[0], "allgather_coalesced");
  for (const Tensors& list : outputs) {
    check_tensors(list, inputs.size(), inputs[0], "allgather_coalesced");
    for (size_t i = 0; i < list.size(); i++)
      TORCH_CHECK_VALUE(list[i].numel() == inputs[i].numel(),
                        "railccl: allgather_coalesced: tensor ", i, " has ", inputs[i].numel(),
                        " elements and room for ", list[i].numel());
  }
  return queue(options,
               facts_of(c10d::OpType::ALLGATHER_COALESCED, "railccl:allgather_coalesced", inputs,
                        flatten(outputs)),
               [inputs, outputs](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 const Row from = Row::to_read(inputs);
                 const Row to = Row::to_write(flatten(outputs));
                 check(ncclAllGather(from.data(), to.data(), bytes_of(from.flat()), ncclUint8, comm,
                                     nullptr),
                       "ncclAllGather", comm);
                 to.land();
               });
}

WorkPointer Group::gather(TensorLists& outputs, Tensors& inputs,
                          const c10d::GatherOptions& options) {
  check_root(options.rootRank, 0, "gather");
  const at::Tensor input = only(inputs, "gather");
  const int root = static_cast<int>(options.rootRank);
  Tensors output;
  if (root == rank_) {
    TORCH_CHECK_VALUE(outputs.size() == 1,
                      "railccl: gather: requires a single-element output list");
    output = outputs[0];
    check_tensors(output, static_cast<size_t>(size_), input, "gather");
    TORCH_CHECK_VALUE(same_sizes(output) && output[0].numel() == input.numel(),
                      "railccl: gather: outputs and input differ in size");
  } else {
    TORCH_CHECK_VALUE(outputs.empty() || (outputs.size() == 1 && outputs[0].empty()),
                      "railccl: gather: requires empty output on non-root");
  }
  return queue(options, facts_of(c10d::OpType::GATHER, "railccl:gather", {input}, output),
               [input, output, root, rank = rank_, size = size_](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 const Target from(input, true);
                 const std::vector<Target> to = targets_of(output, false);
                 std::vector<Piece> out(static_cast<size_t>(size));
                 std::vector<Piece> in(static_cast<size_t>(size));
                 out[static_cast<size_t>(root)] = {from.data(), bytes_of(input)};
                 if (rank == root) in = pieces_of(to);
                 exchange(out, in, rank, comm);
                 for (const Target& target : to) target.land();
               });
}

WorkPointer Group::scatter(Tensors& outputs, TensorLists& inputs,
                           const c10d::ScatterOptions& options) {
  check_root(options.rootRank, 0, "scatter");
  const at::Tensor output = only(outputs, "scatter");
  const int root = static_cast<int>(options.rootRank);
  Tensors input;
  if (root == rank_) {
    TORCH_CHECK_VALUE(inputs.size() == 1, "railccl: scatter: requires a single-element input list");
    input = inputs[0];
    check_tensors(input, static_cast<size_t>(size_), output, "scatter");
    TORCH_CHECK_VALUE(same_sizes(input) && input[0].numel() == output.numel(),
                      "railccl: scatter: inputs and output differ in size");
  } else {
    TORCH_CHECK_VALUE(inputs.empty() || (inputs.size() == 1 && inputs[0].empty()),
                      "railccl: scatter: requires empty input on non-root");
  }
  return queue(options, facts_of(c10d::OpType::SCATTER, "railccl:scatter", input, {output}),
               [input, output, root, rank = rank_, size = size_](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 const std::vector<Target> from = targets_of(input, true);
                 const Target to(output, false);
                 std::vector<Piece> out(static_cast<size_t>(size));
                 std::vector<Piece> in(static_cast<size_t>(size));
                 if (rank == root) out = pieces_of(from);
                 in[static_cast<size_t>(root)] = {to.data(), bytes_of(output)};
                 exchange(out, in, rank, comm);
                 to.land();
               });
}

WorkPointer Group::reduce_scatter(Tensors& outputs, TensorLists& inputs,
                                  const c10d::ReduceScatterOptions& options) {
  const at::Tensor output = only(outputs, "reduce_scatter");
  TORCH_CHECK_VALUE(inputs.size() == 1,
                    "railccl: reduce_scatter: requires a single-element input list");
  const Tensors input = inputs[0];
  check_tensors(input, static_cast<size_t>(size_), output, "reduce_scatter");
  TORCH_CHECK_VALUE(input[static_cast<size_t>(rank_)].numel() == output.numel(),
                    "railccl: reduce_scatter: ", input[static_cast<size_t>(rank_)].numel(),
                    " elements for this rank, room for ", output.numel());
  const Reduction how = reduction_of(options.reduceOp, output.scalar_type(), "reduce_scatter");
  const bool even = same_sizes(input);
  TORCH_CHECK_VALUE(even || !how.by_hand,
                    "railccl: reduce_scatter: uneven sizes with this operator");
  return queue(
      options, facts_of(c10d::OpType::REDUCE_SCATTER, "railccl:reduce_scatter", input, {output}),
      [input, output, how, even, rank = rank_, size = size_](ncclComm_t comm) {
        const at::NoGradGuard plain;
        const Target to(output, false);
        if (even) {
          const Row from = Row::to_read(input);
          reduce_blocks(as_real(from.flat()), as_real(to.flat()), how, size, comm);
          to.land();
          return;
        }
        const std::vector<Target> from = targets_of(input, true);
        const Operator op(how, comm);
        Together together(comm);
        for (size_t root = 0; root < from.size(); root++) {
          const at::Tensor part = as_real(from[root].flat());
          check(ncclReduce(part.data_ptr(), static_cast<int>(root) == rank ? to.data() : nullptr,
                           static_cast<size_t>(part.numel()), how.type, op, static_cast<int>(root),
                           comm, nullptr),
                "ncclReduce", comm);
        }
        together.end();
        to.land();
      });
}

WorkPointer Group::reduce_scatter_from(const char* title, Tensors outputs, Tensors inputs,
                                       const c10d::ReduceScatterOptions& options) {
  TORCH_CHECK_VALUE(
      inputs.size() == outputs.size() && !inputs.empty(),
      "railccl: reduce_scatter: requires as many outputs as inputs, and at least one");
  std::vector<Reduction> hows;
  for (size_t i = 0; i < inputs.size(); i++) {
    check_tensor(inputs[i], "reduce_scatter");
    check_tensors({outputs[i]}, 1, inputs[i], "reduce_scatter");
    TORCH_CHECK_VALUE(inputs[i].numel() == outputs[i].numel() * size_,
                      "railccl: reduce_scatter: input tensor must be the same size as output size "
                      "times world size: ",
                      inputs[i].numel(), " is not ", size_, " x ", outputs[i].numel());
    hows.push_back(reduction_of(options.reduceOp, inputs[i].scalar_type(), "reduce_scatter"));
  }
  return queue(options, facts_of(c10d::OpType::_REDUCE_SCATTER_BASE, title, inputs, outputs),
               [inputs, outputs, hows, size = size_](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 for (size_t i = 0; i < inputs.size(); i++) {
                   const Target from(inputs[i], true);
                   const Target to(outputs[i], false);
                   reduce_blocks(as_real(from.flat()), as_real(to.flat()), hows[i], size, comm);
                   to.land();
                 }
               });
}

WorkPointer Group::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                        const c10d::ReduceScatterOptions& options) {
  return reduce_scatter_from("railccl:_reduce_scatter_base", {output}, {input}, options);
}

WorkPointer Group::alltoall_base(at::Tensor& output, at::Tensor& input,
                                 std::vector<int64_t>& output_splits,
                                 std::vector<int64_t>& input_splits,
                                 const c10d::AllToAllOptions& options) {
  check_tensor(input, "alltoall");
  check_tensors({output}, 1, input, "alltoall");
  c10d::checkSplitSizes(input_splits, input, size_);
  c10d::checkSplitSizes(output_splits, output, size_);
  const bool even = input_splits.empty() && output_splits.empty();
  TORCH_CHECK_VALUE(!even || input.numel() == output.numel(), "railccl: alltoall: ", input.numel(),
                    " elements of input, room for ", output.numel());
  return queue(
      options, facts_of(c10d::OpType::ALLTOALL_BASE, "railccl:alltoall_base", {input}, {output}),
      [input = input, output = output, input_splits, output_splits, even, rank = rank_,
       size = size_](ncclComm_t comm) {
        const at::NoGradGuard plain;
        const Target from(input, true);
        const Target to(output, false);
        if (even) {
          check(ncclAlltoAll(from.data(), to.data(), bytes_of(input) / static_cast<size_t>(size),
                             ncclUint8, comm, nullptr),
                "ncclAlltoAll", comm);
        } else {
          exchange(pieces_of(from.flat(), input_splits, size),
                   pieces_of(to.flat(), output_splits, size), rank, comm);
        }
        to.land();
      });
}

WorkPointer Group::alltoall(Tensors& outputs, Tensors& inputs,
                            const c10d::AllToAllOptions& options) {
  TORCH_CHECK_VALUE(!inputs.empty() && inputs[0].defined(), "railccl: alltoall: requires tensors");
  check_tensors(inputs, static_cast<size_t>(size_), inputs[0], "alltoall");
  check_tensors(outputs, static_cast<size_t>(size_), inputs[0], "alltoall");
  return queue(options, facts_of(c10d::OpType::ALLTOALL, "railccl:alltoall", inputs, outputs),
               [inputs, outputs, rank = rank_](ncclComm_t comm) {
                 const at::NoGradGuard plain;
                 const std::vector<Target> from = targets_of(inputs, true);
                 const std::vector<Target> to = targets_of(outputs, false);
                 exchange(pieces_of(from), pieces_of(to), rank, comm);
                 for (const Target& target : to) target.land();
               });
}

#ifdef RAILCCL_TORCH_INTO_TENSOR_COALESCED
WorkPointer Group::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                   const c10d::AllgatherOptions& options) {
  return gather_into("railccl:allgather_into_tensor_coalesced", outputs, inputs, options);
}

WorkPointer Group::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                   const c10d::ReduceScatterOptions& options) {
  return reduce_scatter_from("railccl:reduce_scatter_tensor_coalesced", outputs, inputs, options);
}

WorkPointer Group::endCoalescing() {
  Job::Facts facts;
  facts.title = "railccl:coalesced";
  return queue(c10d::BarrierOptions(), std::move(facts), [](ncclComm_t) {});
}
#endif

}  // namespace railccl_torch
