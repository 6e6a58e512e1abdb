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

/// `dst` is aligned to 64 bytes and `bytes` a multiple of 256.
void stream_here(uint8_t* dst, const uint8_t* src, size_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  constexpr size_t kStride = hn::MaxLanes(hn::ScalableTag<uint8_t>());
  constexpr size_t kUnroll = kStride >= 16 ? 4 : 1;
  for (size_t at = 0; at < bytes; at += kUnroll * kStride) {
    hn::VFromD<decltype(d)> v[kUnroll];
    for (size_t i = 0; i < kUnroll; i++) v[i] = load_bits(d, src + at + i * kStride);
    for (size_t i = 0; i < kUnroll; i++) store_bits(d, v[i], dst + at + i * kStride, true);
  }
  hwy::FlushStream();
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>

namespace railccl::kernels {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// Number of processors in a kernel list such as "0-3,8,10-11"; 0 when it is malformed.
int processors_in(const std::string& list) {
  int processors = 0;
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at < end) {
    int low = 0;
    auto parsed = std::from_chars(at, end, low);
    if (parsed.ec != std::errc()) return 0;
    int high = low;
    if (parsed.ptr < end && *parsed.ptr == '-') {
      parsed = std::from_chars(parsed.ptr + 1, end, high);
      if (parsed.ec != std::errc()) return 0;
    }
    processors += high - low + 1;
    at = parsed.ptr < end ? parsed.ptr + 1 : end;
  }
  return processors;
}

/// One processor's share of the largest cache, in bytes. Read from the kernel: sysconf multiplies
/// the size by the number of cache groups on some AMD machines.
size_t cache_share_bytes() {
  constexpr size_t kUnknown = size_t{2} << 20;
  size_t share = 0;
  for (int index = 0; index < 8; index++) {
    const std::string cache = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    const std::string size = first_line(cache + "/size");
    size_t kib = 0;
    if (std::from_chars(size.data(), size.data() + size.size(), kib).ec != std::errc()) continue;
    const int sharing = std::max(1, processors_in(first_line(cache + "/shared_cpu_list")));
    share = std::max(share, kib * 1024 / static_cast<size_t>(sharing));
  }
  return share > 0 ? share : kUnknown;
}

}  // namespace

HWY_EXPORT(stream_here);

size_t streaming_bytes() {
  static const size_t bytes = cache_share_bytes() / 2;
  return bytes;
}

void copy(void* dst, const void* src, size_t bytes, Store store) {
  if (dst == src || bytes == 0) return;
  constexpr size_t kWorthStreaming = 4096;
  const bool streaming = store == Store::streaming ? bytes >= kWorthStreaming
                         : store == Store::by_size ? bytes >= streaming_bytes()
                                                   : false;
  if (!streaming) {
    std::memcpy(dst, src, bytes);
    return;
  }
  auto* to = static_cast<uint8_t*>(dst);
  const auto* from = static_cast<const uint8_t*>(src);
  const size_t head = -reinterpret_cast<uintptr_t>(to) % 64;
  const size_t middle = (bytes - head) / 256 * 256;
  std::memcpy(to, from, head);
  HWY_DYNAMIC_DISPATCH(stream_here)(to + head, from + head, middle);
  std::memcpy(to + head + middle, from + head + middle, bytes - head - middle);
}

void copy_to(void* const* dsts, int n_dsts, const void* src, size_t bytes, Store store) {
  if (store == Store::by_size)
    store = bytes >= streaming_bytes() ? Store::streaming : Store::cached;
  // The second destination finds the piece in the first-level cache.
  constexpr size_t kPiece = 8192;
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t piece = std::min(kPiece, bytes - at);
    const auto* from = static_cast<const uint8_t*>(src) + at;
    for (int d = 0; d < n_dsts; d++) copy(static_cast<uint8_t*>(dsts[d]) + at, from, piece, store);
  }
}

}  // namespace railccl::kernels
#endif
