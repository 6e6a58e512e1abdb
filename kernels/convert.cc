// Conversion between datatypes: vectors between float32 and the narrow floats, the plain definition
// for all other pairs.
#include "kernels/targets.h"
// Highway includes this file once per target; the order of the next three lines matters.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/convert.cc"
#include <hwy/foreach_target.h>  // IWYU pragma: keep

#include "kernels/kernels.h"
#include "kernels/reference.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

template <class From, class To>
void convert_loop(uint8_t* dst, const uint8_t* src, size_t count) {
  constexpr size_t kLanes = hn::MaxLanes(F32());
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    To::store(From::load(src + i * From::kBytes), dst + i * To::kBytes, false);
  if (i == count) return;
  alignas(64) uint8_t from[kLanes * From::kBytes] = {};
  alignas(64) uint8_t to[kLanes * To::kBytes];
  std::memcpy(from, src + i * From::kBytes, (count - i) * From::kBytes);
  To::store(From::load(from), to, false);
  std::memcpy(dst + i * To::kBytes, to, (count - i) * To::kBytes);
}

/// Calls use(codec) for a datatype whose lanes are float32; false for the others.
template <class Use>
bool with_codec(Datatype type, const Use& use) {
  switch (type) {
    case Datatype::float16:
      use(HalfCodec());
      return true;
    case Datatype::bfloat16:
      use(BrainCodec());
      return true;
    case Datatype::float8e4m3:
      use(E4m3Codec());
      return true;
    case Datatype::float8e5m2:
      use(E5m2Codec());
      return true;
    case Datatype::float32:
      use(PlainCodec<float>());
      return true;
    default:
      return false;
  }
}

bool convert_here(void* dst, Datatype dst_type, const void* src, Datatype src_type, size_t count) {
  bool done = false;
  with_codec(src_type, [&](auto from) {
    done = with_codec(dst_type, [&](auto to) {
      convert_loop<decltype(from), decltype(to)>(static_cast<uint8_t*>(dst),
                                                 static_cast<const uint8_t*>(src), count);
    });
  });
  return done;
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
