// What differs between PyTorch 1.13 and 2.x, and nothing else: all other files are written once.
#pragma once

#include <torch/version.h>

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#if TORCH_VERSION_MAJOR >= 2
#include <torch/csrc/distributed/c10d/Backend.hpp>
#endif

#include <utility>

namespace railccl_torch {

#if TORCH_VERSION_MAJOR >= 2
/// What init_process_group makes of a backend. (A process group holds one per kind of device.)
using Base = c10d::Backend;
#define RAILCCL_TORCH_INTO_TENSOR_COALESCED 1
#else
using Base = c10d::ProcessGroup;
#endif

/// The factor of ReduceOp.PREMUL_SUM: a tensor's, which later versions hold alone and earlier ones
/// in a list of one, or a number.
template <typename Supplement>
auto factor_tensor(const Supplement& supplement, int) -> decltype(supplement.tensor_factor) {
  return supplement.tensor_factor;
}
template <typename Supplement>
auto factor_tensor(const Supplement& supplement, long) ->
    typename decltype(supplement.tensor_factors)::value_type {
  if (supplement.tensor_factors.empty()) return {};
  return supplement.tensor_factors.front();
}
inline double factor_of(const c10d::ReduceOp& op) {
  const auto* supplement = static_cast<const c10d::NCCLPreMulSumSupplement*>(op.supplement_.get());
  TORCH_CHECK_VALUE(supplement != nullptr, "railccl: PREMUL_SUM without a factor");
  const at::Tensor factor = factor_tensor(*supplement, 0);
  return factor.defined() ? factor.item<double>() : supplement->double_factor;
}

/// Does the caller wait at once? Later versions say so in a call's options.
template <typename Options>
auto waits_at_once(const Options& options, int) -> decltype(static_cast<bool>(options.asyncOp)) {
  return !options.asyncOp;
}
template <typename Options>
bool waits_at_once(const Options&, long) {
  return false;
}

}  // namespace railccl_torch
