// Copy and n-input reduction by many threads of a GPU: what one of them does. Compiled for the GPU
// and for the host (element.h).
//
// Where all buffers lie alike in their 16 bytes, a thread moves vectors of 16 bytes, kAtOnce of
// them, whose loads depend on nothing, before the first is used; neighbours' vectors are
// neighbours. What is before the first whole vector and after the last goes by elements, and so
// does everything where buffers lie differently. Accumulators stay in registers over all sources:
// narrow floats are rounded once. The result may overwrite a source that lies exactly there.
//
// Sources are a number known at run time: a loop over them, each with kAtOnce vectors in flight,
// costs no bandwidth, and a copy of the code for each number would cost compile time.
#pragma once

#include "kernels/gpu/element.h"

namespace railccl::kernels::gpu {

inline constexpr int kSourcesMax = 8;

/// A kernel's arguments. Pointers need no alignment.
struct ReduceArgs {
  void* dst;
  const void* srcs[kSourcesMax];
  int32_t n_srcs;  // 1 or more
  uint64_t count;  // elements
  Factor pre;      // of the first source
  Factor post;     // of the result
};

struct CopyArgs {
  void* dst;
  const void* src;
  uint64_t bytes;
};

inline constexpr uint64_t kVectorBytes = 16;

struct alignas(kVectorBytes) Vector {
  uint32_t words[4];
};

RAILCCL_BOTH Vector load_vector(const void* at) {
#ifdef __CUDA_ARCH__
  const uint4 loaded = *static_cast<const uint4*>(at);
  return {{loaded.x, loaded.y, loaded.z, loaded.w}};
#else
  return *static_cast<const Vector*>(at);
#endif
}
RAILCCL_BOTH void store_vector(void* at, const Vector& vector) {
#ifdef __CUDA_ARCH__
  *static_cast<uint4*>(at) =
      make_uint4(vector.words[0], vector.words[1], vector.words[2], vector.words[3]);
#else
  *static_cast<Vector*>(at) = vector;
#endif
}

RAILCCL_BOTH uint64_t misfit(const void* at) {
  return reinterpret_cast<uintptr_t>(at) % kVectorBytes;
}

/// Element `i` of a vector.
template <typename Bits>
RAILCCL_BOTH Bits element(const Vector& vector, int i) {
  constexpr int kPerWord = 4 / sizeof(Bits);
  if constexpr (sizeof(Bits) == 8)
    return vector.words[2 * i] | static_cast<uint64_t>(vector.words[2 * i + 1]) << 32;
  else
    return static_cast<Bits>(vector.words[i / kPerWord] >> (i % kPerWord * 8 * sizeof(Bits)));
}
template <typename Bits>
RAILCCL_BOTH void put_element(Vector& vector, int i, Bits bits) {
  constexpr int kPerWord = 4 / sizeof(Bits);
  if constexpr (sizeof(Bits) == 8) {
    vector.words[2 * i] = static_cast<uint32_t>(bits);
    vector.words[2 * i + 1] = static_cast<uint32_t>(bits >> 32);
  } else {
    const uint32_t placed = static_cast<uint32_t>(bits) << (i % kPerWord * 8 * sizeof(Bits));
    vector.words[i / kPerWord] = i % kPerWord == 0 ? placed : vector.words[i / kPerWord] | placed;
  }
}

/// An element in memory, wherever it lies.
template <typename Bits>
RAILCCL_BOTH Bits load_bits(const void* base, uint64_t i) {
  const auto* at = static_cast<const uint8_t*>(base) + i * sizeof(Bits);
  if (reinterpret_cast<uintptr_t>(at) % sizeof(Bits) == 0)
    return *reinterpret_cast<const Bits*>(at);
  uint64_t bits = 0;
  for (unsigned b = 0; b < sizeof(Bits); b++) bits |= static_cast<uint64_t>(at[b]) << (8 * b);
  return static_cast<Bits>(bits);
}
template <typename Bits>
RAILCCL_BOTH void store_bits(void* base, uint64_t i, Bits bits) {
  auto* at = static_cast<uint8_t*>(base) + i * sizeof(Bits);
  if (reinterpret_cast<uintptr_t>(at) % sizeof(Bits) == 0) {
    *reinterpret_cast<Bits*>(at) = bits;
    return;
  }
  for (unsigned b = 0; b < sizeof(Bits); b++)
    at[b] = static_cast<uint8_t>(static_cast<uint64_t>(bits) >> (8 * b));
}

/// How a range of elements splits: [0, head) by elements, then so many vectors, then elements.
struct Split {
  uint64_t head, vectors;
};
RAILCCL_BOTH Split split(const void* dst, const void* const* srcs, int n_srcs, uint64_t count,
                         uint64_t element_bytes) {
  const uint64_t before = (kVectorBytes - misfit(dst)) % kVectorBytes;
  bool alike = before % element_bytes == 0;
  for (int s = 0; s < n_srcs; s++) alike = alike && misfit(srcs[s]) == misfit(dst);
  const uint64_t head = before / element_bytes;
  if (!alike || head >= count) return {count, 0};
  return {head, (count - head) * element_bytes / kVectorBytes};
}

/// Only sums have factors.
template <class C, Reduction op>
RAILCCL_BOTH typename C::Value scaled(typename C::Value value, const Factor& by) {
  if constexpr (op == Reduction::sum)
    return C::narrow(C::scale(C::narrow(value), by));
  else
    return C::narrow(value);
}

template <class C, Reduction op>
RAILCCL_BOTH void reduce_element(const ReduceArgs& args, uint64_t i) {
  using Bits = typename C::Bits;
  using Value = typename C::Value;
  Value sum = scaled<C, op>(C::decode(load_bits<Bits>(args.srcs[0], i)), args.pre);
  for (int s = 1; s < args.n_srcs; s++)
    sum = combine<op>(sum, C::decode(load_bits<Bits>(args.srcs[s], i)));
  store_bits(args.dst, i, C::encode(scaled<C, op>(sum, args.post)));
}

/// Up to kAtOnce vectors that are `stride` bytes apart, from `offset` on: the first `n` of them.
template <class C, Reduction op, int kAtOnce>
RAILCCL_BOTH void reduce_vectors(const ReduceArgs& args, uint64_t offset, uint64_t stride, int n) {
  using Bits = typename C::Bits;
  constexpr int kElements = kVectorBytes / sizeof(Bits);
  typename C::Value sum[kAtOnce][kElements];
  Vector loaded[kAtOnce] = {};
  const auto load = [&](int s) {
    const auto* from = static_cast<const uint8_t*>(args.srcs[s]) + offset;
    RAILCCL_UNROLL
    for (int v = 0; v < kAtOnce; v++)
      if (v < n) loaded[v] = load_vector(from + static_cast<uint64_t>(v) * stride);
  };
  load(0);
  RAILCCL_UNROLL
  for (int v = 0; v < kAtOnce; v++) {
    RAILCCL_UNROLL
    for (int e = 0; e < kElements; e++)
      sum[v][e] = scaled<C, op>(C::decode(element<Bits>(loaded[v], e)), args.pre);
  }
  for (int s = 1; s < args.n_srcs; s++) {
    load(s);
    RAILCCL_UNROLL
    for (int v = 0; v < kAtOnce; v++) {
      RAILCCL_UNROLL
      for (int e = 0; e < kElements; e++)
        sum[v][e] = combine<op>(sum[v][e], C::decode(element<Bits>(loaded[v], e)));
    }
  }
  RAILCCL_UNROLL
  for (int v = 0; v < kAtOnce; v++) {
    RAILCCL_UNROLL
    for (int e = 0; e < kElements; e++)
      put_element(loaded[v], e, C::encode(scaled<C, op>(sum[v][e], args.post)));
    if (v < n)
      store_vector(static_cast<uint8_t*>(args.dst) + offset + static_cast<uint64_t>(v) * stride,
                   loaded[v]);
  }
}

/// How many of `most` vectors, `threads` apart from `v` on, there are.
RAILCCL_BOTH int vectors_left(uint64_t v, uint64_t vectors, uint64_t threads, int most) {
  const uint64_t left = (vectors - v + threads - 1) / threads;
  return left < static_cast<uint64_t>(most) ? static_cast<int>(left) : most;
}

/// The part of thread `thread` of `threads`. One source and no factors: use copy_part(), since what
/// passes an accumulator may change bits of NaN.
template <class C, Reduction op>
RAILCCL_BOTH void reduce_part(const ReduceArgs& args, uint64_t thread, uint64_t threads) {
  constexpr uint64_t kBytes = sizeof(typename C::Bits);
  constexpr int kAtOnce = kBytes == 1 ? 2 : 4;  // 16 to 32 accumulators
  const Split parts = split(args.dst, args.srcs, args.n_srcs, args.count, kBytes);
  for (uint64_t i = thread; i < parts.head; i += threads) reduce_element<C, op>(args, i);
  const uint64_t first = parts.head * kBytes;
  for (uint64_t v = thread; v < parts.vectors; v += kAtOnce * threads)
    reduce_vectors<C, op, kAtOnce>(args, first + v * kVectorBytes, threads * kVectorBytes,
                                   vectors_left(v, parts.vectors, threads, kAtOnce));
  const uint64_t tail = parts.head + parts.vectors * (kVectorBytes / kBytes);
  for (uint64_t i = tail + thread; i < args.count; i += threads) reduce_element<C, op>(args, i);
}

RAILCCL_BOTH void copy_part(const CopyArgs& args, uint64_t thread, uint64_t threads) {
  constexpr int kAtOnce = 8;
  const auto* src = static_cast<const uint8_t*>(args.src);
  auto* dst = static_cast<uint8_t*>(args.dst);
  const Split parts = split(dst, &args.src, 1, args.bytes, 1);
  for (uint64_t i = thread; i < parts.head; i += threads) dst[i] = src[i];
  uint64_t v = thread;
  for (; v + (kAtOnce - 1) * threads < parts.vectors; v += kAtOnce * threads) {
    Vector loaded[kAtOnce];
    RAILCCL_UNROLL
    for (int i = 0; i < kAtOnce; i++)
      loaded[i] =
          load_vector(src + parts.head + (v + static_cast<uint64_t>(i) * threads) * kVectorBytes);
    RAILCCL_UNROLL
    for (int i = 0; i < kAtOnce; i++)
      store_vector(dst + parts.head + (v + static_cast<uint64_t>(i) * threads) * kVectorBytes,
                   loaded[i]);
  }
  for (; v < parts.vectors; v += threads)
    store_vector(dst + parts.head + v * kVectorBytes,
                 load_vector(src + parts.head + v * kVectorBytes));
  for (uint64_t i = parts.head + parts.vectors * kVectorBytes + thread; i < args.bytes;
       i += threads)
    dst[i] = src[i];
}

}  // namespace railccl::kernels::gpu
