// Elements of every datatype as GPUs combine them: decode, combine, scale, encode. Compiled for the
// GPU and for the host, where the tests hold it against the host's kernels; the numbers are those
// of kernels.h.
//
// Only what both compilers understand is here, and nothing that the GPU's compiler may round
// differently: the .cu files are compiled without contraction into fused multiply-adds.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "railccl/types.h"

#ifdef __CUDACC__
#define RAILCCL_BOTH __host__ __device__ __forceinline__
#define RAILCCL_UNROLL _Pragma("unroll")
#else
#define RAILCCL_BOTH inline
#define RAILCCL_UNROLL
#endif

namespace railccl::kernels::gpu {

template <typename To, typename From>
RAILCCL_BOTH To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

/// A factor or divisor, in the two forms that elements take.
struct Factor {
  enum Kind : uint32_t { none, multiply, divide };
  Kind kind;
  double value;
  int64_t integer;
};

// A codec has the element's Bits in memory, and the Value that is combined. Value may be wider:
// narrow() is what the element would hold of it.

template <typename T, typename Wide>
struct IntegerCodec {
  using Bits = std::make_unsigned_t<T>;
  using Value = Wide;
  RAILCCL_BOTH static Value decode(Bits bits) { return static_cast<T>(bits); }
  RAILCCL_BOTH static Bits encode(Value value) { return static_cast<Bits>(value); }
  RAILCCL_BOTH static Value narrow(Value value) { return static_cast<T>(value); }
  RAILCCL_BOTH static Value scale(Value value, const Factor& by) {
    if (by.kind == Factor::none) return value;
    if (by.kind == Factor::multiply)
      return narrow(static_cast<Value>(static_cast<uint64_t>(value) *
                                       static_cast<uint64_t>(static_cast<T>(by.integer))));
    if constexpr (std::is_signed_v<T>)
      return static_cast<Value>(static_cast<int64_t>(value) / by.integer);
    else
      return static_cast<Value>(static_cast<uint64_t>(value) / static_cast<uint64_t>(by.integer));
  }
};

template <typename T>
struct FloatValue {
  using Value = T;
  RAILCCL_BOTH static Value narrow(Value value) { return value; }
  RAILCCL_BOTH static Value scale(Value value, const Factor& by) {
    if (by.kind == Factor::none) return value;
    const T factor = static_cast<T>(by.value);
    return by.kind == Factor::multiply ? value * factor : value / factor;
  }
};

template <typename T>
struct FloatCodec : FloatValue<T> {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  RAILCCL_BOTH static T decode(Bits bits) { return bits_as<T>(bits); }
  RAILCCL_BOTH static Bits encode(T value) { return bits_as<Bits>(value); }
};

struct Bfloat16Codec : FloatValue<float> {
  using Bits = uint16_t;
  RAILCCL_BOTH static float decode(Bits bits) { return bits_as<float>(uint32_t{bits} << 16); }
  RAILCCL_BOTH static Bits encode(float value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<Bits>(bits >> 16 | 0x40);  // NaN
    return static_cast<Bits>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);  // to nearest even
  }
};

/// A float of one sign bit, an exponent with `bias` and `mantissa` bits, in the low bits of Bits.
/// `infinity`: its code, or where there is none the one above the largest number's.
template <typename B, int mantissa, int bias, bool has_infinity, bool saturates, uint32_t infinity>
struct SmallFloatCodec : FloatValue<float> {
  using Bits = B;
  static constexpr int kBits = 8 * sizeof(B);
  static constexpr uint32_t kMagnitude = (1u << (kBits - 1)) - 1;
  static constexpr uint32_t kNan = has_infinity ? infinity | 1u << (mantissa - 1) : infinity;

  RAILCCL_BOTH static float decode(Bits bits) {
    const uint32_t magnitude = bits & kMagnitude;
    const uint32_t sign = uint32_t{bits} >> (kBits - 1) << 31;
    float value;
    if (magnitude > infinity || (!has_infinity && magnitude == infinity)) {
      value = bits_as<float>(0x7fc00000u);
    } else if (has_infinity && magnitude == infinity) {
      value = bits_as<float>(0x7f800000u);
    } else {
      // As a float32 of the same fields it is too small by the difference of the biases: exactly.
      value = bits_as<float>(magnitude << (23 - mantissa)) * power_of_two(127 - bias);
    }
    return bits_as<float>(bits_as<uint32_t>(value) | sign);
  }

  RAILCCL_BOTH static Bits encode(float value) {
    const uint32_t bits = bits_as<uint32_t>(value);
    const uint32_t magnitude = bits & 0x7fffffff;
    const uint32_t sign = bits >> 31 << (kBits - 1);
    if (magnitude > 0x7f800000) return static_cast<Bits>(sign | kNan);
    uint32_t code;
    if (magnitude < static_cast<uint32_t>(128 - bias) << 23) {
      // Below the smallest normal number codes count multiples of the smallest: the adder rounds.
      constexpr int kUnit = 1 - bias - mantissa;
      const float magic = power_of_two(kUnit + 23);
      code = bits_as<uint32_t>(bits_as<float>(magnitude) + magic) - bits_as<uint32_t>(magic);
    } else {
      constexpr int kDrop = 23 - mantissa;
      const uint32_t rounded = magnitude + (1u << (kDrop - 1)) - 1 + (magnitude >> kDrop & 1);
      code = (rounded >> kDrop) - (static_cast<uint32_t>(127 - bias) << mantissa);
    }
    if (code >= infinity) code = saturates ? infinity - 1 : infinity;
    return static_cast<Bits>(sign | code);
  }

 private:
  RAILCCL_BOTH static float power_of_two(int exponent) {
    return bits_as<float>(static_cast<uint32_t>(exponent + 127) << 23);
  }
};

template <Datatype type>
struct CodecOf;
#define RAILCCL_CODEC(name, ...)   \
  template <>                      \
  struct CodecOf<Datatype::name> { \
    using Type = __VA_ARGS__;      \
  };
RAILCCL_CODEC(int8, IntegerCodec<int8_t, int32_t>)
RAILCCL_CODEC(uint8, IntegerCodec<uint8_t, uint32_t>)
RAILCCL_CODEC(int32, IntegerCodec<int32_t, int32_t>)
RAILCCL_CODEC(uint32, IntegerCodec<uint32_t, uint32_t>)
RAILCCL_CODEC(int64, IntegerCodec<int64_t, int64_t>)
RAILCCL_CODEC(uint64, IntegerCodec<uint64_t, uint64_t>)
RAILCCL_CODEC(float16, SmallFloatCodec<uint16_t, 10, 15, true, false, 0x7c00>)
RAILCCL_CODEC(float32, FloatCodec<float>)
RAILCCL_CODEC(float64, FloatCodec<double>)
RAILCCL_CODEC(bfloat16, Bfloat16Codec)
RAILCCL_CODEC(float8e4m3, SmallFloatCodec<uint8_t, 3, 7, false, true, 0x7f>)
RAILCCL_CODEC(float8e5m2, SmallFloatCodec<uint8_t, 2, 15, true, true, 0x7c>)
#undef RAILCCL_CODEC

/// The operators that combine; avg and pre_mul_sum are sums with a Factor.
#define RAILCCL_COMBINING(X) X(sum) X(prod) X(max) X(min)

/// Numbers against one NaN win, and -0 is less than +0.
template <Reduction op, typename T>
RAILCCL_BOTH T combine(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    // Wrapping around, without the undefined overflow of signed numbers.
    if constexpr (op == Reduction::sum)
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    if constexpr (op == Reduction::prod)
      return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
    if constexpr (op == Reduction::max) return a > b ? a : b;
    return a > b ? b : a;
  } else {
    if constexpr (op == Reduction::sum) return a + b;
    if constexpr (op == Reduction::prod) return a * b;
    if (a != a) return b;
    if (b != b) return a;
    constexpr bool max = op == Reduction::max;
    using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
    const bool negative = bits_as<Bits>(a) >> (8 * sizeof(T) - 1) != 0;
    if (a == b) return negative == max ? b : a;
    return max == (a > b) ? a : b;
  }
}

}  // namespace railccl::kernels::gpu
