// Reductions of float8e4m3 and float8e5m2, in float32 lanes.
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce_float8.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

void reduce_float8_here(const Job& job, Datatype type, Reduction op) {
  if (type == Datatype::float8e4m3) {
    // One below the only NaN is the largest number: no infinity to saturate.
    if (!reduce_codes<int8_t, 0x7e, false>(job, op)) reduce_op<E4m3Codec>(job, op);
  } else {
    if (!reduce_codes<int8_t, 0x7c, true>(job, op)) reduce_op<E5m2Codec>(job, op);
  }
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace railccl::kernels {

HWY_EXPORT(reduce_float8_here);

void reduce_float8(const Job& job, Datatype type, Reduction op) {
  HWY_DYNAMIC_DISPATCH(reduce_float8_here)(job, type, op);
}

}  // namespace railccl::kernels
#endif
