// Operands: checks, copies of what has gaps, and which reductions there are.
#include "operands.h"

#include <ATen/ATen.h>

#include "lane.h"

namespace railccl_torch {

namespace {

using c10d::ReduceOp;

/// The datatype to reduce in; false: railccl has none like it.
bool datatype_of(at::ScalarType type, ncclDataType_t* found) {
  switch (type) {
    case at::kFloat:
      *found = ncclFloat32;
      return true;
    case at::kDouble:
      *found = ncclFloat64;
      return true;
    case at::kHalf:
      *found = ncclFloat16;
      return true;
    case at::kBFloat16:
      *found = ncclBfloat16;
      return true;
    case at::kChar:
      *found = ncclInt8;
      return true;
    case at::kByte:
    case at::kBool:
      *found = ncclUint8;
      return true;
    case at::kInt:
      *found = ncclInt32;
      return true;
    case at::kLong:
      *found = ncclInt64;
      return true;
    default:
      break;
  }
  // Later versions of PyTorch have these; known by name, since earlier ones have no constants.
  const std::string name = c10::toString(type);
  if (name == "Float8_e4m3fn") {
    *found = ncclFloat8e4m3;
  } else if (name == "Float8_e5m2") {
    *found = ncclFloat8e5m2;
  } else if (name == "UInt32") {
    *found = ncclUint32;
  } else if (name == "UInt64") {
    *found = ncclUint64;
  } else {
    return false;
  }
  return true;
}

bool builtin(ReduceOp::RedOpType kind, ncclRedOp_t* op) {
  switch (kind) {
    case ReduceOp::SUM:
    case ReduceOp::PREMUL_SUM:
      *op = ncclSum;
      return true;
    case ReduceOp::AVG:
      *op = ncclAvg;
      return true;
    case ReduceOp::PRODUCT:
      *op = ncclProd;
      return true;
    case ReduceOp::MIN:
      *op = ncclMin;
      return true;
    case ReduceOp::MAX:
      *op = ncclMax;
      return true;
    default:
      return false;
  }
}

const char* name_of(ReduceOp::RedOpType kind) {
  static constexpr const char* names[] = {"SUM",  "AVG", "PRODUCT", "MIN",       "MAX",
                                          "BAND", "BOR", "BXOR",    "PREMUL_SUM"};
  return kind < std::size(names) ? names[kind] : "an unknown operator";
}

bool one_after_the_other(const std::vector<at::Tensor>& tensors) {
  const auto* expected = static_cast<const char*>(tensors.front().data_ptr());
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.is_contiguous() || tensor.data_ptr() != expected) return false;
    if (!tensor.storage().is_alias_of(tensors.front().storage())) return false;
    expected += bytes_of(tensor);
  }
  return true;
}

}  // namespace

void check_tensor(const at::Tensor& tensor, const char* what) {
  TORCH_CHECK_VALUE(tensor.defined(), "railccl: ", what, ": an undefined tensor");
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, "railccl: ", what, ": ", tensor.layout(),
                    " tensors are not supported, only dense ones");
  TORCH_CHECK_VALUE(tensor.device().is_cpu(), "railccl: ", what, ": a tensor on ", tensor.device(),
                    "; this backend takes tensors of the CPU. For GPUs use the backend nccl, with "
                    "railccl's libnccl.so.2 in NCCL's place");
}

at::Tensor& only(std::vector<at::Tensor>& tensors, const char* what) {
  TORCH_CHECK_VALUE(tensors.size() == 1, "railccl: ", what,
                    ": requires a single-element tensor list, not ", tensors.size(), " elements");
  check_tensor(tensors[0], what);
  return tensors[0];
}

void check_tensors(const std::vector<at::Tensor>& tensors, size_t count, const at::Tensor& like,
                   const char* what) {
  TORCH_CHECK_VALUE(tensors.size() == count, "railccl: ", what, ": requires ", count,
                    " tensors in the list, one for each rank, not ", tensors.size());
  for (const at::Tensor& tensor : tensors) {
    check_tensor(tensor, what);
    TORCH_CHECK_VALUE(tensor.scalar_type() == like.scalar_type(), "railccl: ", what,
                      ": tensors of different types, ", tensor.scalar_type(), " and ",
                      like.scalar_type());
  }
}

bool same_sizes(const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors)
    if (tensor.numel() != tensors.front().numel()) return false;
  return true;
}

size_t bytes_of(const at::Tensor& tensor) {
  return static_cast<size_t>(tensor.numel()) * tensor.element_size();
}

Target::Target(const at::Tensor& tensor, bool read) : tensor_(tensor) {
  if (tensor.is_contiguous()) {
    flat_ = tensor;
  } else if (read) {
    flat_ = tensor.contiguous();
  } else {
    flat_ = at::empty(tensor.sizes(), tensor.options());
  }
}

void Target::land() const {
  if (!flat_.is_same(tensor_)) tensor_.copy_(flat_);
}

Row Row::to_read(const std::vector<at::Tensor>& tensors) {
  Row row = to_write(tensors);
  if (row.elsewhere_) {
    int64_t at = 0;
    for (const at::Tensor& tensor : tensors) {
      row.flat_.narrow(0, at, tensor.numel()).view(tensor.sizes()).copy_(tensor);
      at += tensor.numel();
    }
  }
  return row;
}

Row Row::to_write(const std::vector<at::Tensor>& tensors) {
  Row row(tensors);
  int64_t elements = 0;
  for (const at::Tensor& tensor : tensors) elements += tensor.numel();
  const at::Tensor& first = tensors.front();
  if (one_after_the_other(tensors)) {
    row.flat_ = first.as_strided({elements}, {1});
  } else {
    row.elsewhere_ = true;
    row.flat_ = at::empty({elements}, first.options().requires_grad(false));
  }
  return row;
}

void Row::land() const {
  if (!elsewhere_) return;
  int64_t at = 0;
  for (const at::Tensor& tensor : tensors_) {
    tensor.copy_(flat_.narrow(0, at, tensor.numel()).view(tensor.sizes()));
    at += tensor.numel();
  }
}

at::Tensor as_real(const at::Tensor& tensor) {
  return tensor.is_complex() ? at::view_as_real(tensor) : tensor;
}

Reduction reduction_of(const c10d::ReduceOp& op, at::ScalarType type, const char* what) {
  Reduction reduction;
  reduction.kind = op;
  const bool bitwise = op == ReduceOp::BAND || op == ReduceOp::BOR || op == ReduceOp::BXOR;
  const bool integral = c10::isIntegralType(type, true);
  bool supported = true;
  if (c10::isComplexType(type)) {
    supported = op == ReduceOp::SUM || op == ReduceOp::AVG || op == ReduceOp::PREMUL_SUM;
    type = c10::toRealValueType(type);
  }
  reduction.scalar = type;
  const bool known = datatype_of(type, &reduction.type);
  if (type == at::kBool) {
    // Of truth values the sum is "or", the product "and", as everywhere in PyTorch.
    switch (op) {
      case ReduceOp::SUM:
      case ReduceOp::MAX:
      case ReduceOp::BOR:
        reduction.op = ncclMax;
        break;
      case ReduceOp::PRODUCT:
      case ReduceOp::MIN:
      case ReduceOp::BAND:
        reduction.op = ncclMin;
        break;
      case ReduceOp::BXOR:
        reduction.by_hand = true;
        break;
      default:
        supported = false;
    }
  } else if (bitwise) {
    supported = supported && integral;
    reduction.by_hand = true;
  } else {
    supported = supported && builtin(op, &reduction.op);
    reduction.by_hand = !known;
    // By hand there are sums, products and extremes of integers (16 bits, mostly).
    if (!known)
      supported = supported && integral && op != ReduceOp::AVG && op != ReduceOp::PREMUL_SUM;
    if (op == ReduceOp::PREMUL_SUM) reduction.factor = factor_of(op);
  }
  TORCH_CHECK_VALUE(supported, "railccl: ", what, ": there is no ", name_of(op), " of ", type);
  return reduction;
}

void combine(const Reduction& reduction, const at::Tensor& contributions, const at::Tensor& out) {
  const at::Tensor result = out.view({-1});
  result.copy_(contributions[0]);
  for (int64_t i = 1; i < contributions.size(0); i++) {
    const at::Tensor more = contributions[i];
    switch (reduction.kind) {
      case ReduceOp::SUM:
        result.add_(more);
        break;
      case ReduceOp::PRODUCT:
        result.mul_(more);
        break;
      case ReduceOp::MIN:
        result.copy_(at::minimum(result, more));
        break;
      case ReduceOp::MAX:
        result.copy_(at::maximum(result, more));
        break;
      case ReduceOp::BAND:
        result.bitwise_and_(more);
        break;
      case ReduceOp::BOR:
        result.bitwise_or_(more);
        break;
      case ReduceOp::BXOR:
        result.bitwise_xor_(more);
        break;
      default:
        TORCH_INTERNAL_ASSERT(false, "reduction_of has let through ", name_of(reduction.kind));
    }
  }
}

Operator::Operator(const Reduction& reduction, ncclComm_t comm) : op_(reduction.op) {
  if (reduction.kind != ReduceOp::PREMUL_SUM) return;
  const at::Tensor factor = at::scalar_tensor(reduction.factor, reduction.scalar);
  check(ncclRedOpCreatePreMulSum(&op_, factor.data_ptr(), reduction.type, ncclScalarHostImmediate,
                                 comm),
        "ncclRedOpCreatePreMulSum", comm);
  comm_ = comm;
}

Operator::~Operator() {
  if (comm_ != nullptr) (void)ncclRedOpDestroy(op_, comm_);
}

}  // namespace railccl_torch
