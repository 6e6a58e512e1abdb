// Integer division by one divisor for many dividends, truncating towards zero.
#include <bit>
#include <cstring>

#include "kernels/job.h"

namespace railccl::kernels {
namespace {

/// Division by multiplication with a 65-bit reciprocal (Granlund and Montgomery, "Division by
/// invariant integers using multiplication", 1994, figure 4.1). Exact for every 64-bit dividend.
class Divider {
 public:
  explicit Divider(uint64_t divisor) {
    const int log2_up = divisor == 1 ? 0 : 64 - std::countl_zero(divisor - 1);
    // floor(2^64 * (2^log2_up - divisor) / divisor) + 1, where 2^64 counts as 0 in 64 bits.
    const uint64_t power = log2_up == 64 ? 0 : uint64_t{1} << log2_up;
    const auto numerator = static_cast<Wide>(power - divisor) << 64;
    reciprocal_ = static_cast<uint64_t>(numerator / divisor) + 1;
    shift_first_ = log2_up > 0 ? 1 : 0;
    shift_last_ = log2_up > 0 ? log2_up - 1 : 0;
  }
  uint64_t quotient(uint64_t dividend) const {
    const auto high = static_cast<uint64_t>((static_cast<Wide>(reciprocal_) * dividend) >> 64);
    return (high + ((dividend - high) >> shift_first_)) >> shift_last_;
  }

 private:
  __extension__ using Wide = unsigned __int128;
  uint64_t reciprocal_;
  int shift_first_;
  int shift_last_;
};

template <typename T>
void divide_all(uint8_t* dst, const uint8_t* src, size_t count, uint64_t divisor) {
  const Divider divider(divisor);
  for (size_t i = 0; i < count; i++) {
    T value;
    std::memcpy(&value, src + i * sizeof(T), sizeof(T));
    // The magnitude of the lowest signed number exists as an unsigned one.
    const bool negative = value < 0;
    const uint64_t wide = static_cast<uint64_t>(value);
    const uint64_t quotient = divider.quotient(negative ? 0 - wide : wide);
    value = static_cast<T>(negative ? 0 - quotient : quotient);
    std::memcpy(dst + i * sizeof(T), &value, sizeof(T));
  }
}

}  // namespace

void divide_integers(void* dst, const void* src, size_t count, Datatype type, int64_t divisor) {
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

}  // namespace railccl::kernels
