// Kernels: combine bytes in host memory. Copy, n-input reduce, scale, convert for every datatype
// and operator, SIMD chosen at run time (Highway). Thread-safe, no allocation, no state.
//
// Accumulation: float16, bfloat16 and both float8 kinds are widened to float32, all inputs of one
// call are combined there, and rounded once (nearest even) at the end. float8e4m3 saturates to NaN
// as CUDA's e4m3 without infinities does; integers wrap. max and min give the number when the other
// side is NaN only if both are ... see reference.h, the plain definition that tests compare with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "railccl/types.h"

namespace railccl::kernels {

/// Scaling before (PreMulSum, avg on floats) or after (avg on integers) a reduction.
struct Scale {
  enum class Kind : uint8_t { none, multiply, divide } kind = Kind::none;
  double value = 1;      // floats; for multiply the factor, for divide the divisor
  int64_t integer = 1;   // integers (bit pattern for uint64)
};

/// The scaling an operator needs on `ranks` ranks. avg on floats divides each contribution before
/// (NCCL multiplies by 1/n there; dividing is exact where the quotient is), avg on integers divides
/// the sum and truncates. pre_mul_sum's factor comes from its creator: pass it in `factor`.
struct Scaling {
  Scale pre;
  Scale post;
};
Scaling scaling_of(Reduction op, Datatype type, int ranks, const Scale& factor);

/// dst[i] = post(pre(srcs[0])[i] op srcs[1][i] op ...); only the first source is pre-scaled.
/// avg and pre_mul_sum combine like sum. dst may be one of srcs, otherwise ranges must not overlap.
/// n_srcs >= 1. No alignment needed beyond the type's own... not even that.
void reduce(void* dst, const void* const* srcs, int n_srcs, size_t count, Datatype type,
            Reduction op, const Scale& pre = {}, const Scale& post = {});

/// dst[i] = scale(src[i]); dst == src allowed.
void scale(void* dst, const void* src, size_t count, Datatype type, const Scale& scale);

/// Copies; non-temporal stores above the last-level cache's share (decided by size).
void copy(void* dst, const void* src, size_t bytes);

/// dst[i] = src[i] converted, round to nearest even, saturating as each format defines.
void convert(void* dst, Datatype dst_type, const void* src, Datatype src_type, size_t count);

/// Name of the instruction set in use ("AVX3", "AVX2", "SSE4", ...).
const char* target_name();

}  // namespace railccl::kernels
