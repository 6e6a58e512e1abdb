// Reductions of float16 and bfloat16, in float32 lanes.
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce_half.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

void reduce_half_here(const Job& job, Datatype type, Reduction op) {
  if (type == Datatype::float16) {
    if (reduce_codes<int16_t, 0x7c00, false>(job, op)) return;
#if HWY_TARGET == HWY_AVX3
    if (job.n_more > 0) return reduce_op<HalfJoinCodec>(job, op);
#endif
    return reduce_op<HalfReduceCodec>(job, op);
  }
  if (reduce_codes<int16_t, 0x7f80, false>(job, op)) return;
#if HWY_TARGET == HWY_AVX3
  if (converts_to_brain()) return reduce_op<BrainConvertCodec>(job, op);
#endif
  reduce_op<BrainCodec>(job, op);
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace railccl::kernels {

HWY_EXPORT(reduce_half_here);

void reduce_half(const Job& job, Datatype type, Reduction op) {
  HWY_DYNAMIC_DISPATCH(reduce_half_here)(job, type, op);
}

}  // namespace railccl::kernels
#endif
