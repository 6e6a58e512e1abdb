// The plain definition of every number the kernels produce: scalar, slow, obvious. The tests hold
// the vector code against it, and conversions that nobody is in a hurry for use it directly.
//
// An element is read as a long double, which holds every value of all twelve datatypes exactly.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/kernels.h"

namespace railccl::kernels::reference {

static_assert(std::numeric_limits<long double>::digits >= 64,
              "long double must hold every int64 and uint64");

/// A float of one sign bit, an exponent with `bias`, and `mantissa` bits.
struct SmallFormat {
  int mantissa;
  int bias;
  bool has_infinity;  // the highest exponent holds infinity and NaN only
  bool saturates;     // what is too large becomes `largest`, infinities too
  uint32_t infinity;  // code, without sign
  uint32_t nan;       // code, without sign
  long double largest;
};
inline constexpr SmallFormat kFloat16{10, 15, true, false, 0x7c00, 0x7e00, 65504.0L};
inline constexpr SmallFormat kBfloat16{7, 127, true, false, 0x7f80, 0x7fc0, 0x1.fep127L};
inline constexpr SmallFormat kFloat8e4m3{3, 7, false, true, 0, 0x7f, 448.0L};
inline constexpr SmallFormat kFloat8e5m2{2, 15, true, true, 0x7c, 0x7f, 57344.0L};

/// Value of a code of `bits` bits.
inline long double decode(uint32_t code, int bits, const SmallFormat& format) {
  const uint32_t magnitude = code & ((1u << (bits - 1)) - 1);
  const int exponent = static_cast<int>(magnitude >> format.mantissa);
  const uint32_t fraction = magnitude & ((1u << format.mantissa) - 1);
  long double value;
  if (format.has_infinity && magnitude == format.infinity)
    value = std::numeric_limits<long double>::infinity();
  else if (format.has_infinity ? magnitude > format.infinity : magnitude == format.nan)
    value = std::numeric_limits<long double>::quiet_NaN();
  else if (exponent == 0)
    value = std::ldexp(static_cast<long double>(fraction), 1 - format.bias - format.mantissa);
  else
    value = std::ldexp(static_cast<long double>(fraction | (1u << format.mantissa)),
                       exponent - format.bias - format.mantissa);
  return (code >> (bits - 1)) != 0 ? -value : value;
}

/// The code nearest to `value`, the even one of two equally near.
inline uint32_t encode(long double value, int bits, const SmallFormat& format) {
  const uint32_t sign = std::signbit(value) ? 1u << (bits - 1) : 0;
  const long double magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | format.nan;
  if (magnitude == 0) return sign;
  const int lowest = 1 - format.bias;
  const int exponent = std::isinf(value) ? lowest : std::max(std::ilogb(magnitude), lowest);
  // In units of the last place: below 2^mantissa for denormals, at most 2^(mantissa+1) after
  // rounding, which is the next exponent's first code.
  const int unit = exponent - format.mantissa;
  const long double units = std::nearbyint(std::ldexp(magnitude, -unit));
  if (std::isinf(value) || std::ldexp(units, unit) > format.largest) {
    if (!format.saturates) return sign | format.infinity;
    return sign | (format.has_infinity ? format.infinity - 1 : format.nan - 1);
  }
  const auto steps = static_cast<uint32_t>(exponent - lowest) << format.mantissa;
  return sign | (steps + static_cast<uint32_t>(units));
}

inline const SmallFormat* small_format(Datatype type) {
  switch (type) {
    case Datatype::float16:
      return &kFloat16;
    case Datatype::bfloat16:
      return &kBfloat16;
    case Datatype::float8e4m3:
      return &kFloat8e4m3;
    case Datatype::float8e5m2:
      return &kFloat8e5m2;
    default:
      return nullptr;
  }
}

template <typename T>
T load(const void* base, size_t index) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(base) + index * sizeof(T), sizeof(T));
  return value;
}

template <typename T>
void store(void* base, size_t index, T value) {
  std::memcpy(static_cast<uint8_t*>(base) + index * sizeof(T), &value, sizeof(T));
}

inline long double read(const void* base, size_t index, Datatype type) {
  if (const SmallFormat* format = small_format(type))
    return size_of(type) == 1 ? decode(load<uint8_t>(base, index), 8, *format)
                              : decode(load<uint16_t>(base, index), 16, *format);
  switch (type) {
    case Datatype::int8:
      return load<int8_t>(base, index);
    case Datatype::uint8:
      return load<uint8_t>(base, index);
    case Datatype::int32:
      return static_cast<long double>(load<int32_t>(base, index));
    case Datatype::uint32:
      return static_cast<long double>(load<uint32_t>(base, index));
    case Datatype::int64:
      return static_cast<long double>(load<int64_t>(base, index));
    case Datatype::uint64:
      return static_cast<long double>(load<uint64_t>(base, index));
    case Datatype::float32:
      return load<float>(base, index);
    default:
      return load<double>(base, index);
  }
}

/// To an integer: nearest even, clamped to the range, NaN is 0.
template <typename T>
T clamp_to(long double value) {
  if (std::isnan(value)) return 0;
  const long double rounded = std::nearbyint(value);
  if (rounded <= static_cast<long double>(std::numeric_limits<T>::min()))
    return std::numeric_limits<T>::min();
  if (rounded >= static_cast<long double>(std::numeric_limits<T>::max()))
    return std::numeric_limits<T>::max();
  return static_cast<T>(rounded);
}

/// What convert() stores for `value`.
inline void write(void* base, size_t index, Datatype type, long double value) {
  if (const SmallFormat* format = small_format(type)) {
    if (size_of(type) == 1)
      return store(base, index, static_cast<uint8_t>(encode(value, 8, *format)));
    return store(base, index, static_cast<uint16_t>(encode(value, 16, *format)));
  }
  switch (type) {
    case Datatype::int8:
      return store(base, index, clamp_to<int8_t>(value));
    case Datatype::uint8:
      return store(base, index, clamp_to<uint8_t>(value));
    case Datatype::int32:
      return store(base, index, clamp_to<int32_t>(value));
    case Datatype::uint32:
      return store(base, index, clamp_to<uint32_t>(value));
    case Datatype::int64:
      return store(base, index, clamp_to<int64_t>(value));
    case Datatype::uint64:
      return store(base, index, clamp_to<uint64_t>(value));
    case Datatype::float32:
      return store(base, index, static_cast<float>(value));
    default:
      return store(base, index, static_cast<double>(value));
  }
}

template <typename T>
T scaled(T value, const Scale& scale) {
  if (scale.kind == Scale::Kind::none) return value;
  const bool multiplies = scale.kind == Scale::Kind::multiply;
  if constexpr (std::numeric_limits<T>::is_integer) {
    const auto factor = static_cast<T>(scale.integer);
    // Unsigned 64-bit products wrap without undefined behaviour, and so do their low bits.
    if (multiplies)
      return static_cast<T>(static_cast<uint64_t>(value) * static_cast<uint64_t>(factor));
    // A divisor beyond T's range is beyond every dividend too, but for T's own lowest value.
    if constexpr (std::numeric_limits<T>::is_signed)
      return static_cast<T>(static_cast<int64_t>(value) / scale.integer);
    else
      return static_cast<T>(static_cast<uint64_t>(value) / static_cast<uint64_t>(scale.integer));
  } else {
    const auto factor = static_cast<T>(scale.value);
    return multiplies ? value * factor : value / factor;
  }
}

template <typename T>
T combined(T a, T b, Reduction op) {
  constexpr bool integer = std::numeric_limits<T>::is_integer;
  switch (op) {
    case Reduction::prod:
      if constexpr (integer)
        return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
      else
        return a * b;
    case Reduction::max:
    case Reduction::min:
      if constexpr (!integer) {
        if (std::isnan(a)) return b;
        if (std::isnan(b)) return a;
        if (a == b) return std::signbit(a) == (op == Reduction::max) ? b : a;
      }
      return (op == Reduction::max) == (a > b) ? a : b;
    default:
      if constexpr (integer)
        return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
      else
        return a + b;
  }
}

/// One element of reduce(), accumulated in T.
template <typename T>
T reduced(const void* const* srcs, int n_srcs, size_t index, Datatype type, Reduction op,
          const Scale& pre, const Scale& post) {
  T sum = scaled(static_cast<T>(read(srcs[0], index, type)), pre);
  for (int s = 1; s < n_srcs; s++)
    sum = combined(sum, static_cast<T>(read(srcs[s], index, type)), op);
  return scaled(sum, post);
}

/// Element `index` of reduce().
inline void reduce(void* dst, const void* const* srcs, int n_srcs, size_t index, Datatype type,
                   Reduction op, const Scale& pre, const Scale& post) {
  if (n_srcs == 1 && pre.kind == Scale::Kind::none && post.kind == Scale::Kind::none) {
    const size_t bytes = size_of(type);
    std::memcpy(static_cast<uint8_t*>(dst) + index * bytes,
                static_cast<const uint8_t*>(srcs[0]) + index * bytes, bytes);
    return;
  }
  switch (type) {
    case Datatype::int8:
      return store(dst, index, reduced<int8_t>(srcs, n_srcs, index, type, op, pre, post));
    case Datatype::uint8:
      return store(dst, index, reduced<uint8_t>(srcs, n_srcs, index, type, op, pre, post));
    case Datatype::int32:
      return store(dst, index, reduced<int32_t>(srcs, n_srcs, index, type, op, pre, post));
    case Datatype::uint32:
      return store(dst, index, reduced<uint32_t>(srcs, n_srcs, index, type, op, pre, post));
    case Datatype::int64:
      return store(dst, index, reduced<int64_t>(srcs, n_srcs, index, type, op, pre, post));
    case Datatype::uint64:
      return store(dst, index, reduced<uint64_t>(srcs, n_srcs, index, type, op, pre, post));
    case Datatype::float64:
      return store(dst, index, reduced<double>(srcs, n_srcs, index, type, op, pre, post));
    default:
      return write(dst, index, type, reduced<float>(srcs, n_srcs, index, type, op, pre, post));
  }
}

}  // namespace railccl::kernels::reference
