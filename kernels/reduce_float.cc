// Reductions of float32 and float64.
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce_float.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

void reduce_float_here(const Job& job, Datatype type, Reduction op) {
  if (type == Datatype::float32)
    reduce_op<PlainCodec<float>>(job, op);
  else
    reduce_op<PlainCodec<double>>(job, op);
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace railccl::kernels {

HWY_EXPORT(reduce_float_here);

void reduce_float(const Job& job, Datatype type, Reduction op) {
  HWY_DYNAMIC_DISPATCH(reduce_float_here)(job, type, op);
}

}  // namespace railccl::kernels
#endif
