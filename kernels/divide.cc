// Integer division by one divisor for many dividends, truncating towards zero.
//
// Plain loops, compiled once per Highway target for the compiler to vectorise (bytes and words do;
// 64-bit products have no vector form).
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/divide.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep
#include <hwy/highway.h>

#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/job.h"

#ifndef RAILCCL_KERNELS_DIVIDER_
#define RAILCCL_KERNELS_DIVIDER_
namespace railccl::kernels {

/// Twice as wide an unsigned integer.
template <typename U>
struct Wider;
template <>
struct Wider<uint8_t> {
  using Type = uint16_t;
};
template <>
struct Wider<uint32_t> {
  using Type = uint64_t;
};
template <>
struct Wider<uint64_t> {
  __extension__ using Type = unsigned __int128;
};

}  // namespace railccl::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

/// Division by multiplication with a reciprocal of one bit more than U has (Granlund and
/// Montgomery, "Division by invariant integers using multiplication", 1994, figure 4.1). Exact for
/// every dividend; `divisor` is at least 2.
template <typename U>
class Divider {
 public:
  explicit Divider(U divisor) {
    const int log2_up = kBits - std::countl_zero(static_cast<U>(divisor - 1));
    // floor(2^kBits * (2^log2_up - divisor) / divisor) + 1; 2^kBits counts as 0 in U.
    const auto power = static_cast<Wide>(log2_up == kBits ? 0 : Wide{1} << log2_up);
    const auto rest = static_cast<U>(power - divisor);
    const auto numerator = static_cast<Wide>(static_cast<Wide>(rest) << kBits);
    reciprocal_ = static_cast<U>(numerator / divisor + 1);
    shift_ = log2_up - 1;
  }
  U quotient(U dividend) const {
    const auto high =
        static_cast<U>(static_cast<Wide>(static_cast<Wide>(reciprocal_) * dividend) >> kBits);
    return static_cast<U>(
        static_cast<U>(high + static_cast<U>(static_cast<U>(dividend - high) >> 1)) >> shift_);
  }

 private:
  using Wide = typename Wider<U>::Type;
  static constexpr int kBits = std::numeric_limits<U>::digits;
  U reciprocal_;
  int shift_;
};

template <typename T>
void divide_all(uint8_t* dst, const uint8_t* src, size_t count, uint64_t divisor) {
  using U = std::make_unsigned_t<T>;
  if (divisor == 1) {
    if (dst != src) std::memcpy(dst, src, count * sizeof(T));
    return;
  }
  if (divisor > std::numeric_limits<U>::max()) {
    std::memset(dst, 0, count * sizeof(T));
    return;
  }
  const Divider<U> divider(static_cast<U>(divisor));
  for (size_t i = 0; i < count; i++) {
    T value;
    std::memcpy(&value, src + i * sizeof(T), sizeof(T));
    const auto bits = static_cast<U>(value);
    // All ones for negative numbers, whose magnitude U holds even for the lowest: x ^ s - s is
    // then -x, before and after.
    const U sign = std::is_signed_v<T> ? static_cast<U>(0 - (bits >> (sizeof(T) * 8 - 1))) : U{0};
    const auto magnitude = static_cast<U>((bits ^ sign) - sign);
    value = static_cast<T>((divider.quotient(magnitude) ^ sign) - sign);
    std::memcpy(dst + i * sizeof(T), &value, sizeof(T));
  }
}

void divide_here(void* dst, const void* src, size_t count, Datatype type, int64_t divisor) {
  auto* to = static_cast<uint8_t*>(dst);
  const auto* from = static_cast<const uint8_t*>(src);
  const auto by = static_cast<uint64_t>(divisor);
  switch (type) {
    case Datatype::int8:
      return divide_all<int8_t>(to, from, count, by);
    case Datatype::uint8:
      return divide_all<uint8_t>(to, from, count, by);
    case Datatype::int32:
      return divide_all<int32_t>(to, from, count, by);
    case Datatype::uint32:
      return divide_all<uint32_t>(to, from, count, by);
    case Datatype::int64:
      return divide_all<int64_t>(to, from, count, by);
    default:
      return divide_all<uint64_t>(to, from, count, by);
  }
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace railccl::kernels {

HWY_EXPORT(divide_here);

void divide_integers(void* dst, const void* src, size_t count, Datatype type, int64_t divisor) {
  HWY_DYNAMIC_DISPATCH(divide_here)(dst, src, count, type, divisor);
}

}  // namespace railccl::kernels
#endif
