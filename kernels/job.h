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
  bool streaming;  // no destination is a source, and all lie alike in their cache lines
  void* const* more = nullptr;  // further destinations
  int n_more = 0;
};

/// Streaming stores are in no order with other stores: a flag that is set after them might be seen
/// before them. Whoever streams does so while one of these lives; its end puts all that was
/// streamed before whatever this thread stores next.
class Streaming {
 public:
  Streaming() = default;
  Streaming(const Streaming&) = delete;
  Streaming& operator=(const Streaming&) = delete;
  ~Streaming();
};

/// Copies with streaming stores, but for the cache lines at both ends that it does not fill. All
/// destinations must lie alike in their cache lines, and n_dsts be at least 1.
void stream(void* const* dsts, int n_dsts, const void* src, size_t bytes, const Streaming& order);

/// Do all destinations lie alike in their cache lines?
bool lie_alike(void* const* dsts, int n_dsts);

// `op` is one of sum, prod, max, min. Integers take no division: see divide_integers.
void reduce_float(const Job& job, Datatype type, Reduction op);
void reduce_half(const Job& job, Datatype type, Reduction op);
void reduce_float8(const Job& job, Datatype type, Reduction op);
void reduce_integer(const Job& job, Datatype type, Reduction op);

/// dst[i] = src[i] / divisor, truncating towards zero; divisor > 0; dst == src allowed.
void divide_integers(void* dst, const void* src, size_t count, Datatype type, int64_t divisor);

}  // namespace railccl::kernels
