// Operands: tensors as railccl takes them, contiguous memory of the host, and reductions of theirs.
#pragma once

#include <vector>

#include "compat.h"
#include "nccl.h"

namespace railccl_torch {

/// A tensor that railccl can take, or an exception that says why not. `what`: the call.
void check_tensor(const at::Tensor& tensor, const char* what);
/// The only one of a list, where the interface has lists for many devices.
at::Tensor& only(std::vector<at::Tensor>& tensors, const char* what);
/// `tensors` are `count`, each good for check_tensor() and of `like`'s type.
void check_tensors(const std::vector<at::Tensor>& tensors, size_t count, const at::Tensor& like,
                   const char* what);
bool same_sizes(const std::vector<at::Tensor>& tensors);

size_t bytes_of(const at::Tensor& tensor);

/// Memory that a call writes: the tensor's own, or where that has gaps, a copy that land() returns.
class Target {
 public:
  /// `read`: the call reads it as well.
  Target(const at::Tensor& tensor, bool read);
  void* data() const { return flat_.data_ptr(); }
  const at::Tensor& flat() const { return flat_; }
  void land() const;

 private:
  at::Tensor tensor_;
  at::Tensor flat_;
};

/// Tensors one behind the other: in place when they lie so, else in memory of its own.
class Row {
 public:
  static Row to_read(const std::vector<at::Tensor>& tensors);
  static Row to_write(const std::vector<at::Tensor>& tensors);
  const at::Tensor& flat() const { return flat_; }
  void* data() const { return flat_.data_ptr(); }
  /// To the tensors, if they lie elsewhere.
  void land() const;

 private:
  explicit Row(const std::vector<at::Tensor>& tensors) : tensors_(tensors) {}
  std::vector<at::Tensor> tensors_;
  at::Tensor flat_;
  bool elsewhere_ = false;
};

/// How a reduction of a datatype is carried out.
struct Reduction {
  bool by_hand = false;  // railccl has it not: contributions are gathered, and combined here
  c10d::ReduceOp::RedOpType kind = c10d::ReduceOp::SUM;
  at::ScalarType scalar = at::kFloat;  // of complex numbers, that of their parts
  ncclDataType_t type = ncclFloat32;
  ncclRedOp_t op = ncclSum;
  double factor = 1;  // of PREMUL_SUM
};
/// Throws, naming both, where there is no such thing. Complex numbers are pairs to it: as_real().
Reduction reduction_of(const c10d::ReduceOp& op, at::ScalarType type, const char* what);
/// Complex tensors as their real and imaginary parts, others as they are.
at::Tensor as_real(const at::Tensor& tensor);
/// out = the combination of the rows of `contributions`, one per rank.
void combine(const Reduction& reduction, const at::Tensor& contributions, const at::Tensor& out);

/// The operator of a reduction, on this communicator.
class Operator {
 public:
  Operator(const Reduction& reduction, ncclComm_t comm);
  ~Operator();
  Operator(const Operator&) = delete;
  Operator& operator=(const Operator&) = delete;
  operator ncclRedOp_t() const { return op_; }

 private:
  ncclComm_t comm_ = nullptr;  // not null: the operator was made
  ncclRedOp_t op_;
};

}  // namespace railccl_torch
