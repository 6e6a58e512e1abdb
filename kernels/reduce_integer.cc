// Reductions of the integers, which wrap.
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/reduce_integer.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

/// T is the unsigned type; only the order of elements asks for a sign.
template <typename T>
void reduce_bits(const Job& job, Reduction op, bool is_signed) {
  using Signed = PlainCodec<hwy::MakeSigned<T>>;
  using Unsigned = PlainCodec<T>;
  switch (op) {
    case Reduction::max:
      return is_signed ? reduce_with<Signed, MaxOp>(job) : reduce_with<Unsigned, MaxOp>(job);
    case Reduction::min:
      return is_signed ? reduce_with<Signed, MinOp>(job) : reduce_with<Unsigned, MinOp>(job);
    case Reduction::prod:
      return reduce_with<Unsigned, ProdOp>(job);
    default:
      return reduce_with<Unsigned, SumOp>(job);
  }
}

void reduce_integer_here(const Job& job, Datatype type, Reduction op) {
  switch (type) {
    case Datatype::int8:
      return reduce_bits<uint8_t>(job, op, true);
    case Datatype::uint8:
      return reduce_bits<uint8_t>(job, op, false);
    case Datatype::int32:
      return reduce_bits<uint32_t>(job, op, true);
    case Datatype::uint32:
      return reduce_bits<uint32_t>(job, op, false);
    case Datatype::int64:
      return reduce_bits<uint64_t>(job, op, true);
    default:
      return reduce_bits<uint64_t>(job, op, false);
  }
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace railccl::kernels {

HWY_EXPORT(reduce_integer_here);

void reduce_integer(const Job& job, Datatype type, Reduction op) {
  HWY_DYNAMIC_DISPATCH(reduce_integer_here)(job, type, op);
}

}  // namespace railccl::kernels
#endif
