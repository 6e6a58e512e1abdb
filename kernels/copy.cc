// Copies: the C library's in cache, streaming stores for what would not stay cached anyway.
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/copy.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "kernels/kernels.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

/// Bytes [begin, end) of all destinations; at `begin` they are aligned to 64 bytes, and there are a
/// multiple of 256.
void stream_here(void* const* dsts, int n_dsts, const uint8_t* src, size_t begin, size_t end) {
  const hn::ScalableTag<uint8_t> d;
  constexpr size_t kStride = hn::MaxLanes(hn::ScalableTag<uint8_t>());
  constexpr size_t kUnroll = kStride >= 16 ? 4 : 1;
  for (size_t at = begin; at < end; at += kUnroll * kStride) {
    hn::VFromD<decltype(d)> v[kUnroll];
    for (size_t i = 0; i < kUnroll; i++) v[i] = load_bits(d, src + at + i * kStride);
    for (int s = 0; s < n_dsts; s++) {
      uint8_t* const to = static_cast<uint8_t*>(dsts[s]) + at;
      for (size_t i = 0; i < kUnroll; i++) store_bits(d, v[i], to + i * kStride, true);
    }
  }
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <optional>

#include "kernels/job.h"

namespace railccl::kernels {
namespace {

/// Below this the partial lines at the ends and the wait for the stores cost more than is won.
constexpr size_t kWorthStreaming = 4096;

bool streams(size_t bytes, Store store) {
  return bytes >= (store == Store::streaming ? kWorthStreaming
                   : store == Store::by_size ? streaming_bytes()
                                             : SIZE_MAX);
}

}  // namespace

HWY_EXPORT(stream_here);

Streaming::~Streaming() { hwy::FlushStream(); }

bool lie_alike(void* const* dsts, int n_dsts) {
  const auto place = [](void* dst) { return reinterpret_cast<uintptr_t>(dst) % 64; };
  return std::all_of(dsts, dsts + n_dsts, [&](void* dst) { return place(dst) == place(dsts[0]); });
}

void stream(void* const* dsts, int n_dsts, const void* src, size_t bytes, const Streaming&) {
  const auto* from = static_cast<const uint8_t*>(src);
  const size_t head = std::min(bytes, -reinterpret_cast<uintptr_t>(dsts[0]) % 64);
  const size_t tail = head + (bytes - head) / 256 * 256;
  for (int d = 0; d < n_dsts; d++) {
    auto* const to = static_cast<uint8_t*>(dsts[d]);
    std::memcpy(to, from, head);
    std::memcpy(to + tail, from + tail, bytes - tail);
  }
  HWY_DYNAMIC_DISPATCH(stream_here)(dsts, n_dsts, from, head, tail);
}

void copy(void* dst, const void* src, size_t bytes, Store store) {
  if (dst == src || bytes == 0) return;
  if (!streams(bytes, store)) {
    std::memcpy(dst, src, bytes);
    return;
  }
  const Streaming order;
  stream(&dst, 1, src, bytes, order);
}

void copy_to(void* const* dsts, int n_dsts, const void* src, size_t bytes, Store store) {
  if (bytes == 0) return;
  std::optional<Streaming> order;
  if (streams(bytes, store)) {
    order.emplace();
    const bool in_place = std::find(dsts, dsts + n_dsts, src) != dsts + n_dsts;
    if (!in_place && lie_alike(dsts, n_dsts)) return stream(dsts, n_dsts, src, bytes, *order);
  }
  // The second destination finds the piece in the first-level cache.
  constexpr size_t kPiece = 8192;
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t piece = std::min(kPiece, bytes - at);
    const auto* from = static_cast<const uint8_t*>(src) + at;
    for (int d = 0; d < n_dsts; d++) {
      void* const to = static_cast<uint8_t*>(dsts[d]) + at;
      if (to == from) continue;
      if (order)
        stream(&to, 1, from, piece, *order);
      else
        std::memcpy(to, from, piece);
    }
  }
}

}  // namespace railccl::kernels
#endif
