// Kernels: combine bytes in host memory. Copy, n-input reduce, scale and convert for every datatype
// and operator, SIMD chosen at run time (Highway).
//
// All functions may be called from any thread; they allocate nothing and keep no state but what
// they learn once about the machine (instruction set, cache size). Nothing here fails: arguments
// are checked above. Pointers need no alignment whatever the datatype. reference.h is the plain
// definition of every result; the tests compare against it.
//
// Numbers:
// - float16, bfloat16, float8e4m3 and float8e5m2 are widened to float32, all inputs of one call are
//   combined there from left to right, and the result is rounded once, to nearest even.
// - float16, bfloat16, float32 and float64 overflow to infinity. Both float8 kinds saturate to
//   their largest finite value, infinities (also e5m2's) included, and NaN stays NaN: that is
//   __NV_SATFINITE of cuda_fp8.h, which NCCL's float8 reductions go through.
// - max and min return the number when exactly one side is NaN (as fmaxf and NCCL do), NaN when
// both
//   are, and take -0 for less than +0, so that neither order nor instruction set shows. NaN
//   payloads are not specified.
// - Integers wrap around.
// - One input and no scaling is a copy: no bit changes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "railccl/types.h"

namespace railccl::kernels {

/// A factor or divisor, applied to one input before, or to the result after, a reduction.
struct Scale {
  enum class Kind : uint8_t { none, multiply, divide } kind = Kind::none;
  double value = 1;     // floats (converted to float32 but for float64)
  int64_t integer = 1;  // integers (the bit pattern for uint64); a divisor must be above 0
};

/// The scaling an operator needs on `ranks` ranks.
struct Scaling {
  Scale pre;   // of this rank's own contribution
  Scale post;  // of the finished sum
};

/// Reads a scalar of `type`, which needs no alignment, as a factor.
Scale factor_from(const void* scalar, Datatype type);

/// avg on floats divides each contribution before the sum (NCCL multiplies by 1/n there; dividing
/// is exact where the quotient is), avg on integers divides the sum and truncates towards zero.
/// pre_mul_sum's factor comes from its creator: pass it in `factor`.
Scaling scaling_of(Reduction op, Datatype type, int ranks, const Scale& factor);

/// How results are written. Streaming stores go past the caches: worth it when the result is too
/// big to be still cached when it is read next, harmful otherwise.
/// Whatever the stores, all of a call's results come before what the thread stores next: a flag may
/// be set with an ordinary release store.
enum class Store : uint8_t {
  by_size,    // streaming from streaming_bytes() on
  cached,     // ordinary stores
  streaming,  // for a caller that knows this call to be a piece of something big
};

/// Size from which `Store::by_size` streams: half of one processor's share of the last-level cache.
/// Measured on an AMD EPYC (Zen 4), 32 MiB of L3 for 2 processors: a plain copy wins by 1.6x at
/// 4 MiB, a streaming one by 1.4x at 16 MiB and 1.7x at 64 MiB.
size_t streaming_bytes();

/// How to write the results of an operation in which each of this machine's `ranks` ranks reads and
/// writes `bytes_per_rank` bytes in all: streaming when together they fill three quarters of the
/// last-level caches that so many ranks can use. Not for what is read again soon (scratch).
/// Measured on the same machine, two processors, pieces of 256 KiB; speed of streaming over that of
/// ordinary stores: copy 0.55 at 16 MiB in all, 1.03 at 32, 1.6 far beyond; sum of two 0.86 at 12,
/// 1.27 at 24, 1.4 beyond; sum of four 1.10 at 20, 1.2 beyond.
Store store_for(size_t bytes_per_rank, int ranks);

/// dst[i] = post(pre(srcs[0])[i] op srcs[1][i] op ...); only the first source is pre-scaled.
/// avg and pre_mul_sum combine like sum. dst may be one of srcs, otherwise ranges must not overlap.
/// n_srcs >= 1; op is not `none`. Each source is read once and each result written once.
void reduce(void* dst, const void* const* srcs, int n_srcs, size_t count, Datatype type,
            Reduction op, const Scale& pre = {}, const Scale& post = {},
            Store store = Store::by_size);

/// Like reduce(), with the result written to each of dsts[0..n_dsts): every source is read once for
/// all of them, and no result is read back. n_dsts >= 1. Any of dsts may be any of srcs; otherwise
/// ranges must not overlap.
void reduce_to(void* const* dsts, int n_dsts, const void* const* srcs, int n_srcs, size_t count,
               Datatype type, Reduction op, const Scale& pre = {}, const Scale& post = {},
               Store store = Store::by_size);

/// dst[i] = scale(src[i]); dst == src allowed.
void scale(void* dst, const void* src, size_t count, Datatype type, const Scale& scale);

/// Copies; ranges must not overlap, but dst == src is allowed.
void copy(void* dst, const void* src, size_t bytes, Store store = Store::by_size);

/// Copies to each of dsts[0..n_dsts), reading the source from memory once. One of dsts may be src,
/// otherwise ranges must not overlap.
void copy_to(void* const* dsts, int n_dsts, const void* src, size_t bytes,
             Store store = Store::by_size);

/// dst[i] = src[i] converted, rounded once to nearest even. Towards integers values out of range
/// clamp and NaN becomes 0; towards floats overflow is as above. dst == src is allowed when both
/// types have the same size, otherwise ranges must not overlap.
void convert(void* dst, Datatype dst_type, const void* src, Datatype src_type, size_t count);

/// Name of the instruction set in use ("AVX3", "AVX2", "SSE2", ...).
const char* target_name();

}  // namespace railccl::kernels
