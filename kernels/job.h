// Job: one reduction with its arguments made ready, as the per-datatype files take it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace railccl::kernels {

/// Pointers are borrowed for the call. `first` may be pre-scaled, the rest never is.
struct Job {
  uint8_t* dst;
  const uint8_t* first;
  const void* const* rest;
  int n_rest;
  size_t count;  // elements
  Scale pre;
  Scale post;
  bool streaming;  // dst is none of the sources
};

// `op` is one of sum, prod, max, min. Integers take no division: see divide_integers.
void reduce_float(const Job& job, Datatype type, Reduction op);
void reduce_half(const Job& job, Datatype type, Reduction op);
void reduce_float8(const Job& job, Datatype type, Reduction op);
void reduce_integer(const Job& job, Datatype type, Reduction op);

/// dst[i] = src[i] / divisor, truncating towards zero; divisor > 0; dst == src allowed.
void divide_integers(void* dst, const void* src, size_t count, Datatype type, int64_t divisor);

}  // namespace railccl::kernels
