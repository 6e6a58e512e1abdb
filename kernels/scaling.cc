// What scaling each operator needs on a number of ranks.
#include "kernels/kernels.h"

namespace railccl::kernels {

Scaling scaling_of(Reduction op, Datatype type, int ranks, const Scale& factor) {
  Scaling scaling;
  if (op == Reduction::pre_mul_sum) scaling.pre = factor;
  if (op != Reduction::avg) return scaling;
  Scale divide;
  divide.kind = Scale::Kind::divide;
  divide.value = ranks;
  divide.integer = ranks;
  (is_float(type) ? scaling.pre : scaling.post) = divide;
  return scaling;
}

}  // namespace railccl::kernels
