// Per-target vector code: how elements of each datatype become lanes and how lanes combine.
//
// A Codec turns memory into accumulator vectors and back, kPack vectors at a time: load() fills
// out[0..kPack), store() writes as many. Narrow floats use float32 lanes; where two elements share
// a wider lane of memory, one vector takes the even elements and the next the odd ones, which
// spares the instructions that cross lanes. Included once per Highway target.
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
#include <limits>

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

/// The low half of each u32 lane, whose high half must be zero.
template <class DN, class V>
HWY_INLINE hn::VFromD<DN> narrow(DN dn, V v) {
#if HWY_TARGET == HWY_AVX3
  return hn::VFromD<DN>{_mm512_cvtepi32_epi16(v.raw)};
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
  static constexpr size_t kPack = 1;
  static HWY_INLINE void load(const uint8_t* from, V* out) { out[0] = load_bits(D(), from); }
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    store_bits(D(), in[0], to, streaming);
  }
};

using F32 = hn::ScalableTag<float>;
using U32 = hn::RebindToUnsigned<F32>;
using VF = hn::VFromD<F32>;
using VU = hn::VFromD<U32>;

/// Each bit from `yes` where `mask` has a one, else from `no`. (Highway's IfVecThenElse wants whole
/// bytes of the mask alike on some targets.)
HWY_INLINE VU select_bits(VU mask, VU yes, VU no) {
#if HWY_TARGET == HWY_AVX3
  return VU{_mm512_ternarylogic_epi32(mask.raw, yes.raw, no.raw, 0xca)};
#else
  return hn::Or(hn::And(mask, yes), hn::AndNot(mask, no));
#endif
}

/// Rounds to a small float of M mantissa bits and exponent bias B. Returns its codes, sign
/// included, in the low `bits` bits of u32 lanes, zeros above. |x| is clamped to `limit` first; NaN
/// becomes the code of `nan_value`.
///
/// Adding c = 2^(e + 23 - M), e being the exponent of |x| but at least the smallest normal one,
/// makes the adder itself round |x| to the format's precision, to nearest even, also in the range
/// of its denormals. The low bits of the sum are then the rounded mantissa n including its leading
/// one, and the code is n + (e + B - 1) * 2^M: a carry runs into the exponent the right way. What
/// is constant in it rides in c's own low bits.
template <int M, int B, int bits>
HWY_INLINE VU encode_small(VF v, float limit, float nan_value) {
  const F32 df;
  const U32 du;
  const hn::RebindToSigned<U32> di;
  constexpr uint32_t kMask = (1u << (bits - 1)) - 1;
  constexpr uint32_t kMinNormal = static_cast<uint32_t>(127 - B + 1) << 23;
  constexpr uint32_t kConstant = (0u - (static_cast<uint32_t>(127 - B + 1) << M)) & kMask;
  constexpr uint32_t kToC = static_cast<uint32_t>(23 - M) << 23;
  static_assert(kMask < 1u << 21, "the constant must leave c's exponent alone");
  // Patterns of positive floats are ordered like integers, which compare on more of the ports.
  const VU pattern = hn::BitCast(du, v);
  const VU positive = hn::And(pattern, hn::Set(du, 0x7fffffffu));
  const auto is_nan = hn::Gt(hn::BitCast(di, positive), hn::Set(di, 0x7f800000));
  const VU clamped = hn::Min(positive, hn::Set(du, std::bit_cast<uint32_t>(limit)));
  const VU magnitude = hn::IfThenElse(hn::RebindMask(du, is_nan),
                                      hn::Set(du, std::bit_cast<uint32_t>(nan_value)), clamped);
  const VU exponent =
      hn::And(hn::Max(magnitude, hn::Set(du, kMinNormal)), hn::Set(du, 0x7f800000u));
  const VU c = hn::Add(exponent, hn::Set(du, kToC + kConstant));
  const VU sum = hn::BitCast(du, hn::Add(hn::BitCast(df, magnitude), hn::BitCast(df, c)));
  const VU code = hn::Add(sum, hn::ShiftRight<23 - M>(exponent));
  return select_bits(hn::Set(du, kMask), code, hn::ShiftRight<32 - bits>(pattern));
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

/// float16 codes to float32 lanes of D.
template <class D>
HWY_INLINE hn::VFromD<D> widen_half(D d, hn::VFromD<hn::Rebind<uint16_t, D>> code) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
  return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, D>(), code));
#else
  (void)d;
  return decode_half(hn::PromoteTo(U32(), code));
#endif
}
using U16 = hn::Rebind<uint16_t, F32>;

template <class Lanes>
struct HalfCodecOf {
  using D = Lanes;
  using V = hn::VFromD<D>;
  using Factor = float;
  static constexpr size_t kBytes = 2;
  static constexpr size_t kPack = 1;
  using Codes = hn::Rebind<uint16_t, D>;

  static HWY_INLINE void load(const uint8_t* from, V* out) {
    out[0] = widen_half(D(), load_bits(Codes(), from));
  }
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    store_bits(Codes(), codes_of(in[0]), to, streaming);
  }

 protected:
  static HWY_INLINE hn::VFromD<Codes> codes_of(V v) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    return hn::BitCast(Codes(), hn::DemoteTo(hn::Rebind<hwy::float16_t, D>(), v));
#else
    return narrow(Codes(), encode_small<10, 15, 16>(v, 0x1.0p16f, 0x1.8p16f));
#endif
  }
};

using HalfCodec = HalfCodecOf<F32>;
#if HWY_TARGET == HWY_AVX3
/// Zen 4 converts two vectors of 256 bits faster than one of 512: 100 instead of 75 GB/s.
using HalfReduceCodec = HalfCodecOf<hn::CappedTag<float, 8>>;

/// The same with two vectors to a store. One store a cycle is enough for one destination, and
/// joining costs more than it saves; for two destinations it saves more: 117 instead of 104 GB/s.
struct HalfJoinCodec : HalfReduceCodec {
  static constexpr size_t kPack = 2;
  static HWY_INLINE void load(const uint8_t* from, V* out) {
    HalfReduceCodec::load(from, out);
    HalfReduceCodec::load(from + hn::MaxLanes(D()) * kBytes, out + 1);
  }
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    const hn::Twice<Codes> both;
    store_bits(both, hn::Combine(both, codes_of(in[1]), codes_of(in[0])), to, streaming);
  }
};
#else
using HalfReduceCodec = HalfCodec;
#endif

struct BrainCodec {
  using D = F32;
  using V = VF;
  using Factor = float;
  static constexpr size_t kBytes = 2;
  static constexpr size_t kPack = 2;

  static HWY_INLINE void load(const uint8_t* from, V* out) {
    const VU two = load_bits(U32(), from);
    out[0] = hn::BitCast(D(), hn::ShiftLeft<16>(two));
    out[1] = hn::BitCast(D(), hn::And(two, hn::Set(U32(), 0xffff0000u)));
  }
  // By integer arithmetic, because the processors' own conversion flushes denormals. A NaN must be
  // kept from it: the carry could make it infinite or zero.
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    V even = in[0];
    V odd = in[1];
    if (HWY_UNLIKELY(any_nan(even, odd))) {
      even = with_one_nan(even);
      odd = with_one_nan(odd);
    }
    store_bits(U32(), rounded(hn::BitCast(U32(), even), hn::BitCast(U32(), odd)), to, streaming);
  }

 private:
  static HWY_INLINE bool any_nan(V a, V b) {
#if HWY_TARGET == HWY_AVX3
    return _mm512_cmp_ps_mask(a.raw, b.raw, _CMP_UNORD_Q) != 0;
#else
    return !hn::AllFalse(D(), hn::Or(hn::IsNaN(a), hn::IsNaN(b)));
#endif
  }

  static HWY_INLINE V with_one_nan(V v) {
    const V nan = hn::BitCast(D(), hn::Set(U32(), 0x7fc00000u));
    return hn::IfThenElse(hn::IsNaN(v), nan, v);
  }

  /// Pairs of codes: upper halves, plus one where the lower half is more than half a unit of the
  /// last place, or half a unit next to an odd upper half.
  static HWY_INLINE VU rounded(VU even, VU odd) {
    const U32 du;
    const VU upper = select_bits(hn::Set(du, 0xffff0000u), odd, hn::ShiftRight<16>(even));
    const VU lower = select_bits(hn::Set(du, 0xffff0000u), hn::ShiftLeft<16>(odd), even);
    const VU deciding = hn::Or(lower, hn::And(upper, hn::Set(du, 0x00010001u)));
#if HWY_TARGET == HWY_SCALAR
    const uint32_t bits = hn::GetLane(deciding);
    const uint32_t up_even = (bits & 0xffff) > 0x8000 ? 1 : 0;
    const uint32_t up_odd = (bits >> 16) > 0x8000 ? 1u << 16 : 0;
    return hn::Add(upper, hn::Set(du, up_even + up_odd));  // only a NaN would carry over
#elif HWY_TARGET == HWY_AVX3
    const auto up = _mm512_cmpgt_epu16_mask(deciding.raw, _mm512_set1_epi16(-0x8000));
    return VU{_mm512_mask_add_epi16(upper.raw, up, upper.raw, _mm512_set1_epi16(1))};
#else
    const hn::Repartition<uint16_t, U32> dh;
    const auto above = hn::SaturatedSub(hn::BitCast(dh, deciding), hn::Set(dh, uint16_t{0x8000}));
    const auto up = hn::Min(above, hn::Set(dh, uint16_t{1}));
    return hn::BitCast(du, hn::Add(hn::BitCast(dh, upper), up));
#endif
  }
};

#if HWY_TARGET == HWY_AVX3
/// Does this processor have AVX512_BF16, which the target does not include?
inline bool converts_to_brain() { return __builtin_cpu_supports("avx512bf16") != 0; }

/// BrainCodec with AVX512_BF16's conversion wherever it gives the same codes: it flushes denormals
/// and keeps a NaN's payload, so vectors that hold either are left to BrainCodec.
struct BrainConvertCodec : BrainCodec {
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    constexpr int kDenormalOrNan = 0x20 | 0x80 | 0x01;
    const __mmask16 even = _mm512_fpclass_ps_mask(in[0].raw, kDenormalOrNan);
    const __mmask16 odd = _mm512_fpclass_ps_mask(in[1].raw, kDenormalOrNan);
    if (HWY_UNLIKELY(_kortestz_mask16_u8(even, odd) == 0))
      return BrainCodec::store(in, to, streaming);
    // Codes of the even elements in the lower half, of the odd ones in the upper half. Compilers
    // refuse an intrinsic beyond the target of the loops that this is a part of.
    __m512i codes;
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(codes) : "v"(in[1].raw), "v"(in[0].raw));
    alignas(64) static constexpr uint16_t kPairs[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                        21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                        11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i pairs = _mm512_load_si512(kPairs);
    store_bits(U32(), VU{_mm512_permutexvar_epi16(pairs, codes)}, to, streaming);
  }
};
#endif

/// Two bytes of codes to store, from even and odd elements' codes.
HWY_INLINE hn::VFromD<U16> join_bytes(VU even, VU odd) {
  return narrow(U16(), hn::Or(even, hn::ShiftLeft<8>(odd)));
}

struct E4m3Codec {
  using D = F32;
  using V = VF;
  using Factor = float;
  static constexpr size_t kBytes = 1;
  static constexpr size_t kPack = 2;

  static HWY_INLINE void load(const uint8_t* from, V* out) {
    const auto two = load_bits(U16(), from);
    out[0] = widen(hn::ShiftLeft<8>(two));
    out[1] = widen(two);
  }
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    const VU even = encode_small<3, 7, 8>(in[0], 448.0f, 480.0f);
    const VU odd = encode_small<3, 7, 8>(in[1], 448.0f, 480.0f);
    store_bits(U16(), join_bytes(even, odd), to, streaming);
  }

 private:
  /// From the code in the high byte. s eeee mmm becomes float16's s 0eeee mmm0000000, too small by
  /// 2^8; denormals come along.
  static HWY_INLINE V widen(hn::VFromD<U16> high_byte) {
    const hn::RebindToSigned<U16> di;
    const auto shifted = hn::ShiftRight<1>(hn::BitCast(di, high_byte));
    const auto code = hn::And(shifted, hn::Set(di, static_cast<int16_t>(0xbf80)));
    // Adding one to the highest magnitude, and to no other, carries into bit 14: with that bit set
    // NaN's code becomes float16's NaN.
    const auto carried = hn::Add(code, hn::Set(di, int16_t{0x80}));
    const auto half = hn::OrAnd(code, carried, hn::Set(di, int16_t{0x4000}));
    return hn::Mul(widen_half(D(), hn::BitCast(U16(), half)), hn::Set(D(), 256.0f));
  }
};

struct E5m2Codec {
  using D = F32;
  using V = VF;
  using Factor = float;
  static constexpr size_t kBytes = 1;
  static constexpr size_t kPack = 2;

  static HWY_INLINE void load(const uint8_t* from, V* out) {
    // Each code is the high byte of a float16.
    const auto two = load_bits(U16(), from);
    out[0] = widen_half(D(), hn::ShiftLeft<8>(two));
    out[1] = widen_half(D(), hn::And(two, hn::Set(U16(), uint16_t{0xff00})));
  }
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    const VU even = encode_small<2, 15, 8>(in[0], 57344.0f, 0x1.cp16f);
    const VU odd = encode_small<2, 15, 8>(in[1], 57344.0f, 0x1.cp16f);
    store_bits(U16(), join_bytes(even, odd), to, streaming);
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

/// Sum of lanes that are wider than their elements. Conversions take the ports that add, so the
/// others do it: a * 1 + b is a + b to the last bit. Compilers know that too, hence a one that they
/// cannot see.
struct WidenedSumOp {
  template <class D, class V>
  static HWY_INLINE V combine(D d, V a, V b) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
    V one = hn::Set(d, 1.0f);
    asm("" : "+v"(one.raw));
    return hn::MulAdd(a, one, b);
#else
    return SumOp::combine(d, a, b);
#endif
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

// Maxima and minima of narrow floats need no widening: apart from NaN, which the same rule as above
// replaces, their codes are ordered like signed integers once negative ones have all bits but the
// sign turned over.
template <typename T, T infinity, bool is_max>
struct CodeOrderOp {
  template <class D, class V>
  static HWY_INLINE V combine(D, V a, V b) {
    const V better = is_max ? hn::Max(ordered(a), ordered(b)) : hn::Min(ordered(a), ordered(b));
    return hn::IfThenElse(is_nan(a), b, hn::IfThenElse(is_nan(b), a, ordered(better)));
  }

 private:
  using Tag = hn::ScalableTag<T>;
  using Vector = hn::VFromD<Tag>;
  static constexpr T kMagnitude = std::numeric_limits<T>::max();
  static HWY_INLINE Vector ordered(Vector v) {
    return hn::Xor(v, hn::And(hn::BroadcastSignBit(v), hn::Set(Tag(), kMagnitude)));
  }
  static HWY_INLINE auto is_nan(Vector v) {
    return hn::Gt(hn::And(v, hn::Set(Tag(), kMagnitude)), hn::Set(Tag(), infinity));
  }
};

/// Codes of narrow floats as they lie in memory; e5m2's infinity saturates when it is stored.
template <typename T, bool saturates>
struct CodeCodec : PlainCodec<T> {
  using typename PlainCodec<T>::D;
  using typename PlainCodec<T>::V;
  static HWY_INLINE void store(const V* in, uint8_t* to, bool streaming) {
    const D d;
    V v = in[0];
    if constexpr (saturates) {
      const V infinity = hn::Set(d, T{0x7c});
      const auto is_infinite = hn::Eq(hn::And(v, hn::Set(d, T{0x7f})), infinity);
      v = hn::IfThenElse(is_infinite, hn::Sub(v, hn::Set(d, T{1})), v);
    }
    store_bits(d, v, to, streaming);
  }
};

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
