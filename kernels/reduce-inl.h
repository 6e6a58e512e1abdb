// Per-target reduction loop, shared by the files of the datatype families.
//
// Four vectors or more at a time: every source is read once, accumulators stay in registers over
// all sources (so narrow floats are rounded once however many there are), the result is written
// once. Four vectors are at least one cache line of each source on wide targets, so that lines are
// used up while they are at hand even when there are more sources than cache ways. Further
// destinations are written from the same registers: by way of a buffer in the first-level cache,
// two of them take one and a half times as long outside the caches. Included once per Highway
// target.
#if defined(RAILCCL_KERNELS_REDUCE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAILCCL_KERNELS_REDUCE_INL_H_
#undef RAILCCL_KERNELS_REDUCE_INL_H_
#else
#define RAILCCL_KERNELS_REDUCE_INL_H_
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "kernels/job.h"
#include "kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace railccl::kernels::HWY_NAMESPACE {

/// A Scale as the lanes of Codec C need it.
template <class C>
struct Scaler {
  Scale::Kind kind;
  typename C::Factor factor;

  explicit Scaler(const Scale& scale) : kind(scale.kind), factor() {
    using T = typename C::Factor;
    if constexpr (hwy::IsFloat<T>())
      factor = static_cast<T>(scale.value);
    else
      factor = static_cast<T>(scale.integer);
    if constexpr (hwy::IsFloat<T>()) {
      // Multiplying by the reciprocal of a power of two gives the quotient's very bits, faster.
      const T reciprocal = 1 / factor;
      int exponent;
      if (kind == Scale::Kind::divide && std::abs(std::frexp(factor, &exponent)) == T{0.5} &&
          std::isnormal(reciprocal)) {
        kind = Scale::Kind::multiply;
        factor = reciprocal;
      }
    }
  }

  template <size_t n>
  HWY_INLINE void apply(typename C::V (&v)[n]) const {
    const typename C::D d;
    if (kind == Scale::Kind::none) return;
    if (kind == Scale::Kind::multiply) {
      for (size_t i = 0; i < n; i++) v[i] = multiply(d, v[i], hn::Set(d, factor));
      return;
    }
    if constexpr (hwy::IsFloat<typename C::Factor>())
      for (size_t i = 0; i < n; i++) v[i] = hn::Div(v[i], hn::Set(d, factor));
  }
};

/// Bytes of memory that `packs` loads of Codec C take.
template <class C>
constexpr size_t bytes_of(size_t packs) {
  return packs * C::kPack * hn::MaxLanes(typename C::D()) * C::kBytes;
}

/// Where a loop stands in the operands of a job. Local variables, because what a loop stores could
/// be the job itself, for all that the compiler knows; and pointers that advance, because sums of
/// pointer and offset take more registers than there are. `n_rest` is the number of sources after
/// the first where it is known at compile time, else 0.
template <int n_rest>
class Place {
 public:
  Place(const Job& job, size_t offset)
      : dst(job.dst + offset),
        first(job.first + offset),
        n_more(job.n_more),
        offset_(offset),
        n_rest_(job.n_rest),
        all_rest_(job.rest),
        more_(job.more) {
    for (int s = 0; s < n_rest; s++) rest_[s] = static_cast<const uint8_t*>(job.rest[s]) + offset;
  }
  HWY_INLINE void advance(size_t bytes) {
    dst += bytes;
    first += bytes;
    offset_ += bytes;
    for (int s = 0; s < n_rest; s++) rest_[s] += bytes;
  }
  HWY_INLINE size_t offset() const { return offset_; }
  HWY_INLINE int sources() const { return n_rest > 0 ? n_rest : n_rest_; }
  HWY_INLINE const uint8_t* rest(int s) const {
    return n_rest > 0 ? rest_[s] : static_cast<const uint8_t*>(all_rest_[s]) + offset_;
  }
  HWY_INLINE uint8_t* more(int d) const { return static_cast<uint8_t*>(more_[d]) + offset_; }

  uint8_t* dst;
  const uint8_t* first;
  int n_more;

 private:
  size_t offset_;
  int n_rest_;
  const void* const* all_rest_;
  void* const* more_;
  const uint8_t* rest_[n_rest > 0 ? n_rest : 1];
};

/// Reduces n packs.
template <class C, class Op, size_t n, bool streaming, int n_rest>
HWY_INLINE void reduce_packs(const Place<n_rest>& at, const Scaler<C>& pre, const Scaler<C>& post) {
  constexpr size_t kPack = C::kPack;
  typename C::V sum[n * kPack];
  for (size_t i = 0; i < n; i++) C::load(at.first + bytes_of<C>(i), sum + i * kPack);
  pre.apply(sum);
  const int sources = at.sources();
  for (int s = 0; s < sources; s++) {
    const uint8_t* const from = at.rest(s);
    typename C::V next[n * kPack];
    for (size_t i = 0; i < n; i++) C::load(from + bytes_of<C>(i), next + i * kPack);
    for (size_t i = 0; i < n * kPack; i++) sum[i] = Op::combine(typename C::D(), sum[i], next[i]);
  }
  post.apply(sum);
  for (size_t i = 0; i < n; i++) C::store(sum + i * kPack, at.dst + bytes_of<C>(i), streaming);
  for (int d = 0; d < at.n_more; d++) {
    uint8_t* const to = at.more(d);
    for (size_t i = 0; i < n; i++) C::store(sum + i * kPack, to + bytes_of<C>(i), streaming);
  }
}

/// Less than a pack, at byte `offset`: through a buffer of a whole one.
template <class C, class Op>
HWY_NOINLINE void reduce_partial(const Job& job, Scaler<C> pre, Scaler<C> post, size_t offset,
                                 size_t bytes) {
  alignas(64) uint8_t buffer[bytes_of<C>(1)] = {};
  typename C::V sum[C::kPack];
  typename C::V next[C::kPack];
  std::memcpy(buffer, job.first + offset, bytes);
  C::load(buffer, sum);
  pre.apply(sum);
  for (int s = 0; s < job.n_rest; s++) {
    std::memcpy(buffer, static_cast<const uint8_t*>(job.rest[s]) + offset, bytes);
    C::load(buffer, next);
    for (size_t i = 0; i < C::kPack; i++) sum[i] = Op::combine(typename C::D(), sum[i], next[i]);
  }
  post.apply(sum);
  C::store(sum, buffer, false);
  std::memcpy(job.dst + offset, buffer, bytes);
  for (int d = 0; d < job.n_more; d++)
    std::memcpy(static_cast<uint8_t*>(job.more[d]) + offset, buffer, bytes);
}

template <class C, class Op, int n_rest>
HWY_NOINLINE void reduce_loop(const Job& job) {
  // Two cache lines at least where there are 32 registers.
  constexpr size_t kVectors = HWY_TARGET == HWY_AVX3 && bytes_of<C>(4 / C::kPack) < 128 ? 8 : 4;
  constexpr size_t kPacks = kVectors / C::kPack;
  constexpr size_t kOne = bytes_of<C>(1);
  constexpr size_t kBlock = bytes_of<C>(kPacks);
  const Scaler<C> pre(job.pre);
  const Scaler<C> post(job.post);
  const size_t bytes = job.count * C::kBytes;
  size_t offset = 0;
  bool streaming = job.streaming;
  if (streaming) {
    // Streaming stores want aligned addresses; elements that straddle them cannot be streamed.
    const size_t head = -reinterpret_cast<uintptr_t>(job.dst) % 64;
    if (head % C::kBytes != 0 || head + 64 > bytes) {
      streaming = false;
    } else {
      while (offset < head) {
        const size_t part = std::min(kOne, head - offset);
        reduce_partial<C, Op>(job, pre, post, offset, part);
        offset += part;
      }
    }
  }
  Place<n_rest> at(job, offset);
  if (streaming) {
    for (; at.offset() + kBlock <= bytes; at.advance(kBlock))
      reduce_packs<C, Op, kPacks, true>(at, pre, post);
  } else {
    for (; at.offset() + kBlock <= bytes; at.advance(kBlock))
      reduce_packs<C, Op, kPacks, false>(at, pre, post);
  }
  for (; at.offset() + kOne <= bytes; at.advance(kOne))
    reduce_packs<C, Op, 1, false>(at, pre, post);
  offset = at.offset();
  if (offset < bytes) reduce_partial<C, Op>(job, pre, post, offset, bytes - offset);
  if (streaming) hwy::FlushStream();  // see Streaming
}

/// Picks the loop: two, three and four sources have their own, without an inner loop.
template <class C, class Op>
void reduce_with(const Job& job) {
  switch (job.n_rest) {
    case 1:
      return reduce_loop<C, Op, 1>(job);
    case 2:
      return reduce_loop<C, Op, 2>(job);
    case 3:
      return reduce_loop<C, Op, 3>(job);
    default:
      return reduce_loop<C, Op, 0>(job);
  }
}

/// Maxima and minima of a narrow float on its codes alone, which unscaled inputs allow; false when
/// `op` is another or there is something to scale.
template <typename T, T infinity, bool saturates>
bool reduce_codes(const Job& job, Reduction op) {
  if (job.pre.kind != Scale::Kind::none || job.post.kind != Scale::Kind::none) return false;
  using C = CodeCodec<T, saturates>;
  if (op == Reduction::max)
    reduce_with<C, CodeOrderOp<T, infinity, true>>(job);
  else if (op == Reduction::min)
    reduce_with<C, CodeOrderOp<T, infinity, false>>(job);
  else
    return false;
  return true;
}

template <class C>
void reduce_op(const Job& job, Reduction op) {
  constexpr bool widened = C::kBytes < sizeof(hn::TFromD<typename C::D>);
  switch (op) {
    case Reduction::prod:
      return reduce_with<C, ProdOp>(job);
    case Reduction::max:
      return reduce_with<C, MaxOp>(job);
    case Reduction::min:
      return reduce_with<C, MinOp>(job);
    default:
      return reduce_with<C, std::conditional_t<widened, WidenedSumOp, SumOp>>(job);
  }
}

}  // namespace railccl::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // include guard per target
