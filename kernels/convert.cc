// Conversion between datatypes: vectors between float32 and the narrow floats, the plain definition
// for all other pairs.
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/convert.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include <algorithm>
#include <type_traits>

#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

/// float32 in memory, even and odd elements in a vector each, as the codecs of pairs have them.
struct FloatPairCodec : PlainCodec<float> {
  static constexpr size_t kPack = 2;
  static HWY_INLINE void load(const uint8_t* from, VF* out) {
#if HWY_TARGET == HWY_SCALAR
    PlainCodec<float>::load(from, out);
    PlainCodec<float>::load(from + sizeof(float), out + 1);
#else
    hn::LoadInterleaved2(F32(), reinterpret_cast<const float*>(from), out[0], out[1]);
#endif
  }
  static HWY_INLINE void store(const VF* in, uint8_t* to, bool) {
#if HWY_TARGET == HWY_SCALAR
    PlainCodec<float>::store(in, to, false);
    PlainCodec<float>::store(in + 1, to + sizeof(float), false);
#else
    hn::StoreInterleaved2(in[0], in[1], F32(), reinterpret_cast<float*>(to));
#endif
  }
};

template <class From, class To>
void convert_all(uint8_t* dst, const uint8_t* src, size_t count) {
  static_assert(From::kPack == To::kPack, "both sides must have the same element in each lane");
  constexpr size_t kElements = From::kPack * hn::MaxLanes(F32());
  VF lanes[From::kPack];
  size_t i = 0;
  for (; i + kElements <= count; i += kElements) {
    From::load(src + i * From::kBytes, lanes);
    To::store(lanes, dst + i * To::kBytes, false);
  }
  if (i == count) return;
  alignas(64) uint8_t from[kElements * From::kBytes] = {};
  alignas(64) uint8_t to[kElements * To::kBytes];
  std::memcpy(from, src + i * From::kBytes, (count - i) * From::kBytes);
  From::load(from, lanes);
  To::store(lanes, to, false);
  std::memcpy(dst + i * To::kBytes, to, (count - i) * To::kBytes);
}

template <class From, class To>
void convert_pair(uint8_t* dst, const uint8_t* src, size_t count) {
  using Float = PlainCodec<float>;
  if constexpr (From::kPack == To::kPack) {
    convert_all<From, To>(dst, src, count);
  } else if constexpr (std::is_same_v<From, Float>) {
    convert_all<FloatPairCodec, To>(dst, src, count);
  } else if constexpr (std::is_same_v<To, Float>) {
    convert_all<From, FloatPairCodec>(dst, src, count);
  } else {
    // By way of float32 in memory order, which is exact.
    constexpr size_t kTile = 512;
    alignas(64) uint8_t tile[kTile * sizeof(float)];
    for (size_t at = 0; at < count; at += kTile) {
      const size_t part = std::min(kTile, count - at);
      convert_pair<From, Float>(tile, src + at * From::kBytes, part);
      convert_pair<Float, To>(dst + at * To::kBytes, tile, part);
    }
  }
}

template <class From>
bool convert_from(uint8_t* dst, Datatype dst_type, const uint8_t* src, size_t count) {
  switch (dst_type) {
    case Datatype::float16:
      convert_pair<From, HalfCodec>(dst, src, count);
      return true;
    case Datatype::bfloat16:
      convert_pair<From, BrainCodec>(dst, src, count);
      return true;
    case Datatype::float8e4m3:
      convert_pair<From, E4m3Codec>(dst, src, count);
      return true;
    case Datatype::float8e5m2:
      convert_pair<From, E5m2Codec>(dst, src, count);
      return true;
    case Datatype::float32:
      convert_pair<From, PlainCodec<float>>(dst, src, count);
      return true;
    default:
      return false;
  }
}

/// False when one of the datatypes has no float32 lanes.
bool convert_here(void* dst, Datatype dst_type, const void* src, Datatype src_type, size_t count) {
  auto* to = static_cast<uint8_t*>(dst);
  const auto* from = static_cast<const uint8_t*>(src);
  switch (src_type) {
    case Datatype::float16:
      return convert_from<HalfCodec>(to, dst_type, from, count);
    case Datatype::bfloat16:
      return convert_from<BrainCodec>(to, dst_type, from, count);
    case Datatype::float8e4m3:
      return convert_from<E4m3Codec>(to, dst_type, from, count);
    case Datatype::float8e5m2:
      return convert_from<E5m2Codec>(to, dst_type, from, count);
    case Datatype::float32:
      return convert_from<PlainCodec<float>>(to, dst_type, from, count);
    default:
      return false;
  }
}

const char* target_name_here() { return hwy::TargetName(HWY_TARGET); }

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace railccl::kernels {

HWY_EXPORT(convert_here);
HWY_EXPORT(target_name_here);

void convert(void* dst, Datatype dst_type, const void* src, Datatype src_type, size_t count) {
  if (dst_type == src_type) return copy(dst, src, count * size_of(src_type));
  if (HWY_DYNAMIC_DISPATCH(convert_here)(dst, dst_type, src, src_type, count)) return;
  for (size_t i = 0; i < count; i++)
    reference::write(dst, i, dst_type, reference::read(src, i, src_type));
}

const char* target_name() { return HWY_DYNAMIC_DISPATCH(target_name_here)(); }

}  // namespace railccl::kernels
#endif
