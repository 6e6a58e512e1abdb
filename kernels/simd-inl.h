// Per-target vector code: how elements of each datatype become lanes and how lanes combine.
//
// A Codec turns memory into accumulator vectors and back: load(p) reads step() elements, store
// writes as many. Narrow floats use float32 lanes and read half or quarter vectors. Included once
// per Highway target.
#if defined(RAILCCL_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAILCCL_KERNELS_SIMD_INL_H_
#undef RAILCCL_KERNELS_SIMD_INL_H_
#else
#define RAILCCL_KERNELS_SIMD_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <bit>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// ---- Unaligned memory. The one-lane target dereferences its pointer, hence memcpy there.

template <class D>
HWY_INLINE hn::VFromD<D> load_bits(D d, const uint8_t* from) {
  using T = hn::TFromD<D>;
#if HWY_TARGET == HWY_SCALAR
  T value;
  std::memcpy(&value, from, sizeof(T));
  return hn::Set(d, value);
#else
  return hn::LoadU(d, reinterpret_cast<const T*>(from));
#endif
}

template <class D>
HWY_INLINE void store_bits(D d, hn::VFromD<D> v, uint8_t* to, bool streaming) {
  using T = hn::TFromD<D>;
#if HWY_TARGET == HWY_SCALAR
  (void)d;
  (void)streaming;
  const T value = hn::GetLane(v);
  std::memcpy(to, &value, sizeof(T));
#else
  // Stores below 16 bytes have no streaming form that keeps within their bytes.
  if constexpr (hn::MaxLanes(D()) * sizeof(T) >= 16) {
    if (streaming) {
      hn::Stream(v, d, reinterpret_cast<T*>(to));
      return;
    }
  }
  hn::StoreU(v, d, reinterpret_cast<T*>(to));
#endif
}

/// The low bits of each u32 lane, which must hold values that fit.
template <class DN, class V>
HWY_INLINE hn::VFromD<DN> narrow(DN dn, V v) {
#if HWY_TARGET == HWY_AVX3
  if constexpr (sizeof(hn::TFromD<DN>) == 2)
    return hn::VFromD<DN>{_mm512_cvtepi32_epi16(v.raw)};
  else
    return hn::VFromD<DN>{_mm512_cvtepi32_epi8(v.raw)};
#else
  const hn::RebindToSigned<hn::DFromV<V>> di;
  return hn::DemoteTo(dn, hn::BitCast(di, v));
#endif
}

// ---- Codecs.

/// Datatypes whose lanes are their elements.
template <typename T>
struct PlainCodec {
  using D = hn::ScalableTag<T>;
  using V = hn::VFromD<D>;
  using Factor = T;
  static constexpr size_t kBytes = sizeof(T);
  static HWY_INLINE V load(const uint8_t* from) { return load_bits(D(), from); }
  static HWY_INLINE void store(V v, uint8_t* to, bool streaming) {
    store_bits(D(), v, to, streaming);
  }
};

using F32 = hn::ScalableTag<float>;
using U32 = hn::RebindToUnsigned<F32>;
using VF = hn::VFromD<F32>;
using VU = hn::VFromD<U32>;

/// Rounds to a small float of M mantissa bits and exponent bias B, given as codes in u32 lanes
/// (sign bit included, at the position of a format of `sign_bit`+1 bits). |x| is clamped to `limit`
/// first; NaN becomes the code of `nan_value`.
///
/// Adding c = 2^(e + 23 - M), e being the exponent of |x| but at least the smallest normal one,
/// makes the adder itself round |x| to the format's precision, to nearest even, also in the range
/// of its denormals. The difference of the bit patterns of c + |x| and c is then the rounded
/// mantissa including its leading one, and carries into the exponent run the right way.
template <int M, int B, int sign_bit>
HWY_INLINE VU encode_small(VF v, float limit, float nan_value) {
  const F32 df;
  const U32 du;
  constexpr uint32_t kMinNormal = static_cast<uint32_t>(127 - B + 1) << 23;
  constexpr uint32_t kOffset = static_cast<uint32_t>(127 + 23 - M - B + 1) << M;
  const VU bits = hn::BitCast(du, v);
  const VF magnitude =
      hn::IfThenElse(hn::IsNaN(v), hn::Set(df, nan_value), hn::Min(hn::Abs(v), hn::Set(df, limit)));
  const VF normal = hn::Max(magnitude, hn::Set(df, std::bit_cast<float>(kMinNormal)));
  const VU c = hn::Add(hn::And(hn::BitCast(du, normal), hn::Set(du, 0x7f800000u)),
                       hn::Set(du, static_cast<uint32_t>(23 - M) << 23));
  const VF sum = hn::Add(magnitude, hn::BitCast(df, c));
  const VU mantissa = hn::Sub(hn::BitCast(du, sum), c);
  const VU code = hn::Add(mantissa, hn::Sub(hn::ShiftRight<23 - M>(c), hn::Set(du, kOffset)));
  return hn::Or(code, hn::And(hn::ShiftRight<31 - sign_bit>(bits), hn::Set(du, 1u << sign_bit)));
}

/// float16 codes in the low halves of u32 lanes to float32, without help from the processor.
HWY_INLINE VF decode_half(VU code) {
  const F32 df;
  const U32 du;
  const VU sign = hn::ShiftLeft<16>(hn::And(code, hn::Set(du, 0x8000u)));
  const VU magnitude = hn::ShiftLeft<13>(hn::And(code, hn::Set(du, 0x7fffu)));
  // Moves the exponent's bias from 15 to 127; exact, and turns denormals into normal numbers.
  const VF scaled = hn::Mul(hn::BitCast(df, magnitude), hn::Set(df, 0x1.0p112f));
  const VF special = hn::IfThenElseZero(hn::Ge(scaled, hn::Set(df, 0x1.0p16f)),
                                        hn::BitCast(df, hn::Set(du, 0x7f800000u)));
  return hn::Or(hn::Or(scaled, hn::BitCast(df, sign)), special);
}

struct HalfCodec {
  using D = F32;
  using V = VF;
  using Factor = float;
  using Bits = hn::Rebind<uint16_t, D>;
  static constexpr size_t kBytes = 2;

  static HWY_INLINE V load(const uint8_t* from) {
    const auto bits = load_bits(Bits(), from);
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    return hn::PromoteTo(D(), hn::BitCast(hn::Rebind<hwy::float16_t, D>(), bits));
#else
    return decode_half(hn::PromoteTo(U32(), bits));
#endif
  }
  static HWY_INLINE void store(V v, uint8_t* to, bool streaming) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    const auto bits = hn::BitCast(Bits(), hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), v));
#else
    const auto bits = narrow(Bits(), encode_small<10, 15, 15>(v, 0x1.0p16f, 0x1.8p16f));
#endif
    store_bits(Bits(), bits, to, streaming);
  }
};

struct BrainCodec {
  using D = F32;
  using V = VF;
  using Factor = float;
  using Bits = hn::Rebind<uint16_t, D>;
  static constexpr size_t kBytes = 2;

  static HWY_INLINE V load(const uint8_t* from) {
    const VU wide = hn::PromoteTo(U32(), load_bits(Bits(), from));
    return hn::BitCast(D(), hn::ShiftLeft<16>(wide));
  }
  static HWY_INLINE void store(V v, uint8_t* to, bool streaming) {
    // The processors' own conversion flushes denormals, hence integer arithmetic. A NaN must be
    // kept apart: rounding could carry it into infinity or turn it into zero.
    const U32 du;
    const VU bits = hn::BitCast(du, v);
    const VU odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const VU rounded = hn::Add(hn::Add(bits, hn::Set(du, 0x7fffu)), odd);
    const VF kept = hn::IfThenElse(hn::IsNaN(v), hn::BitCast(D(), hn::Set(du, 0x7fc00000u)),
                                   hn::BitCast(D(), rounded));
    store_bits(Bits(), narrow(Bits(), hn::ShiftRight<16>(hn::BitCast(du, kept))), to, streaming);
  }
};

struct E4m3Codec {
  using D = F32;
  using V = VF;
  using Factor = float;
  using Bits = hn::Rebind<uint8_t, D>;
  static constexpr size_t kBytes = 1;

  static HWY_INLINE V load(const uint8_t* from) {
    // s eeee mmm becomes float16's s 0eeee mmm0000000, too small by 2^8; denormals come along.
    const hn::Rebind<int16_t, D> dh;
    const auto wide = hn::PromoteTo(dh, load_bits(hn::Rebind<int8_t, D>(), from));
    const auto moved = hn::And(hn::ShiftLeft<7>(wide), hn::Set(dh, static_cast<int16_t>(0xbf80)));
    const auto is_nan =
        hn::Eq(hn::And(moved, hn::Set(dh, int16_t{0x3f80})), hn::Set(dh, int16_t{0x3f80}));
    const auto half = hn::Or(moved, hn::IfThenElseZero(is_nan, hn::Set(dh, int16_t{0x7c00})));
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    const V small = hn::PromoteTo(D(), hn::BitCast(hn::Rebind<hwy::float16_t, D>(), half));
#else
    const V small = decode_half(hn::PromoteTo(U32(), hn::BitCast(hn::Rebind<uint16_t, D>(), half)));
#endif
    return hn::Mul(small, hn::Set(D(), 256.0f));
  }
  static HWY_INLINE void store(V v, uint8_t* to, bool streaming) {
    store_bits(Bits(), narrow(Bits(), encode_small<3, 7, 7>(v, 448.0f, 480.0f)), to, streaming);
  }
};

struct E5m2Codec {
  using D = F32;
  using V = VF;
  using Factor = float;
  using Bits = hn::Rebind<uint8_t, D>;
  static constexpr size_t kBytes = 1;

  static HWY_INLINE V load(const uint8_t* from) {
    // The high byte of a float16.
    const hn::Rebind<uint16_t, D> dh;
    const auto half = hn::ShiftLeft<8>(hn::PromoteTo(dh, load_bits(Bits(), from)));
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    return hn::PromoteTo(D(), hn::BitCast(hn::Rebind<hwy::float16_t, D>(), half));
#else
    return decode_half(hn::PromoteTo(U32(), half));
#endif
  }
  static HWY_INLINE void store(V v, uint8_t* to, bool streaming) {
    store_bits(Bits(), narrow(Bits(), encode_small<2, 15, 7>(v, 57344.0f, 0x1.cp16f)), to,
               streaming);
  }
};

// ---- Operators: combine(d, a, b), a being what was combined so far.

template <class D>
HWY_INLINE hn::VFromD<D> multiply(D d, hn::VFromD<D> a, hn::VFromD<D> b) {
#if HWY_TARGET == HWY_SCALAR
  using T = hn::TFromD<D>;
  if constexpr (hwy::IsFloat<T>())
    return hn::Mul(a, b);
  else
    return hn::Set(d, static_cast<T>(static_cast<uint64_t>(hn::GetLane(a)) *
                                     static_cast<uint64_t>(hn::GetLane(b))));
#else
  if constexpr (sizeof(hn::TFromD<D>) == 1) {
    // No byte products in any instruction set: low bytes, then high bytes, as 16-bit lanes.
    const hn::RepartitionToWide<hn::RebindToUnsigned<D>> dw;
    const auto wa = hn::BitCast(dw, a);
    const auto wb = hn::BitCast(dw, b);
    const auto low = hn::And(hn::Mul(wa, wb), hn::Set(dw, uint16_t{0xff}));
    const auto high = hn::Mul(hn::ShiftRight<8>(wa), hn::And(wb, hn::Set(dw, uint16_t{0xff00})));
    return hn::BitCast(d, hn::Or(low, high));
  } else {
    return hn::Mul(a, b);
  }
#endif
}

struct SumOp {
  template <class D, class V>
  static HWY_INLINE V combine(D, V a, V b) {
    return hn::Add(a, b);
  }
};

struct ProdOp {
  template <class D, class V>
  static HWY_INLINE V combine(D d, V a, V b) {
    return multiply(d, a, b);
  }
};

// Where the sides are equal, the vector maximum of both orders differs at most in the zero's sign:
// "and" keeps +0 for max, "or" keeps -0 for min. NaNs are then replaced by the other side.
struct MaxOp {
  template <class D, class V>
  static HWY_INLINE V combine(D, V a, V b) {
    if constexpr (!hwy::IsFloat<hn::TFromD<D>>()) {
      return hn::Max(a, b);
    } else {
      const V larger = hn::And(hn::Max(a, b), hn::Max(b, a));
      return hn::IfThenElse(hn::IsNaN(a), b, hn::IfThenElse(hn::IsNaN(b), a, larger));
    }
  }
};

struct MinOp {
  template <class D, class V>
  static HWY_INLINE V combine(D, V a, V b) {
    if constexpr (!hwy::IsFloat<hn::TFromD<D>>()) {
      return hn::Min(a, b);
    } else {
      const V smaller = hn::Or(hn::Min(a, b), hn::Min(b, a));
      return hn::IfThenElse(hn::IsNaN(a), b, hn::IfThenElse(hn::IsNaN(b), a, smaller));
    }
  }
};

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
