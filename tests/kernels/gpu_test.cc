// Shows that what a thread of a GPU does, run on the host by so many threads in turn, gives the
// bits of the host's kernels: every datatype, operator, number of sources, length around vectors
// and groups of vectors, misalignment, alias and factor. All codes of the narrow floats are
// decoded, and encoding is tried around each of them.
#include "kernels/gpu/reduce.h"
#include "kernels/kernels.h"
#include "kernels_util.h"

namespace railccl::kernels {
namespace {

gpu::Factor factor_of(const Scale& scale) {
  return {static_cast<gpu::Factor::Kind>(scale.kind), scale.value, scale.integer};
}

template <Datatype type, Reduction op>
void reduce_by(const gpu::ReduceArgs& args, uint64_t threads) {
  for (uint64_t thread = 0; thread < threads; thread++)
    gpu::reduce_part<typename gpu::CodecOf<type>::Type, op>(args, thread, threads);
}

/// The kernel of a datatype and operator, by all of `threads`.
void reduce_by(Datatype type, Reduction op, const gpu::ReduceArgs& args, uint64_t threads) {
  const Reduction combining =
      op == Reduction::avg || op == Reduction::pre_mul_sum ? Reduction::sum : op;
#define RAILCCL_CASE(op) \
  case Reduction::op:    \
    return reduce_by<kType, Reduction::op>(args, threads);
#define RAILCCL_ROW(name, number, bytes, text) \
  case Datatype::name: {                       \
    constexpr Datatype kType = Datatype::name; \
    switch (combining) {                       \
      RAILCCL_COMBINING(RAILCCL_CASE)          \
      default:                                 \
        return;                                \
    }                                          \
  }
  switch (type) { RAILCCL_DATATYPES(RAILCCL_ROW) }
#undef RAILCCL_ROW
#undef RAILCCL_CASE
}

TEST(GpuKernels, ReduceLikeTheHost) {
  Random random(1);
  constexpr uint64_t kThreads = 3;
  for (const Datatype type : datatypes()) {
    const size_t bytes = size_of(type);
    for (const Reduction op : reductions()) {
      for (int round = 0; round < 60; round++) {
        const int n_srcs = 2 + round % 7;
        // From nothing to two groups of vectors of each thread and some more.
        const size_t count = random.below(2) == 0 ? random.below(40) : random.below(600);
        const bool alike = random.below(3) > 0;
        const size_t skew = random.below(64);
        Scale factor{Scale::Kind::multiply, 0.7, -3};
        const Scaling scaling = scaling_of(op, type, n_srcs, factor);
        std::vector<std::vector<uint8_t>> storage;
        gpu::ReduceArgs args{};
        std::vector<const void*> srcs;
        const auto place = [&](bool source) {
          storage.emplace_back(count * bytes + 192, uint8_t{0xa5});
          uint8_t* const begin = storage.back().data();
          const size_t to_16 = (64 - reinterpret_cast<uintptr_t>(begin) % 64) % 64;
          uint8_t* const at = begin + to_16 + (alike ? skew : random.below(64));
          if (source) fill(at, count, type, random);
          return at;
        };
        for (int s = 0; s < n_srcs; s++) srcs.push_back(args.srcs[s] = place(true));
        std::vector<uint8_t> wanted(count * bytes + 1);
        reduce(wanted.data(), srcs.data(), n_srcs, count, type, op, scaling.pre, scaling.post);
        const int alias = static_cast<int>(random.below(static_cast<uint64_t>(n_srcs) * 2));
        args.dst = alias < n_srcs ? const_cast<void*>(args.srcs[alias]) : place(false);
        args.n_srcs = n_srcs;
        args.count = count;
        args.pre = factor_of(scaling.pre);
        args.post = factor_of(scaling.post);
        reduce_by(type, op, args, kThreads);
        for (size_t i = 0; i < count; i++)
          ASSERT_TRUE(same(args.dst, wanted.data(), i, type))
              << name_of(op) << " of " << n_srcs << " " << name_of(type) << ", element " << i
              << " of " << count << ": got " << show(args.dst, i, type) << ", want "
              << show(wanted.data(), i, type);
        const auto* const after = static_cast<const uint8_t*>(args.dst) + count * bytes;
        ASSERT_EQ(*after, 0xa5) << "overrun";
        ASSERT_EQ(*(static_cast<const uint8_t*>(args.dst) + count * bytes + 1), 0xa5);
      }
    }
  }
}

TEST(GpuKernels, CopyEveryByte) {
  Random random(2);
  for (int round = 0; round < 400; round++) {
    const size_t bytes = random.below(4000), to = random.below(32), from = random.below(32);
    std::vector<uint8_t> src(bytes + 64), dst(bytes + 64, 0xa5);
    for (uint8_t& byte : src) byte = static_cast<uint8_t>(random.next());
    const gpu::CopyArgs args{dst.data() + to, src.data() + (round % 2 == 0 ? to : from), bytes};
    for (uint64_t thread = 0; thread < 5; thread++) gpu::copy_part(args, thread, 5);
    ASSERT_EQ(std::memcmp(args.dst, args.src, bytes), 0);
    for (size_t i = 0; i < to; i++) ASSERT_EQ(dst[i], 0xa5);
    for (size_t i = to + bytes; i < dst.size(); i++) ASSERT_EQ(dst[i], 0xa5);
  }
}

template <Datatype type>
void check_codes() {
  using C = typename gpu::CodecOf<type>::Type;
  using Bits = typename C::Bits;
  for (uint32_t code = 0; code < 1u << (8 * sizeof(Bits)); code++) {
    const auto bits = static_cast<Bits>(code);
    const float value = C::decode(bits);
    float wanted = 0;
    convert(&wanted, Datatype::float32, &bits, type, 1);
    ASSERT_TRUE(same(&value, &wanted, 0, Datatype::float32)) << name_of(type) << " " << code;
    // The number itself, its neighbours, and the ties between it and the next code.
    float next = 0;
    const auto above = static_cast<Bits>(code + 1);
    convert(&next, Datatype::float32, &above, type, 1);
    const float tie = (value + next) / 2;
    for (const float near : {value, tie, std::nextafterf(tie, value), std::nextafterf(tie, next),
                             value * 1.0001f, value * 4, value / 3}) {
      const Bits got = C::encode(near);
      Bits right = 0;
      reference::write(&right, 0, type, near);
      ASSERT_TRUE(same(&got, &right, 0, type)) << name_of(type) << " of " << near;
    }
  }
}

TEST(GpuKernels, CodecsOfNarrowFloats) {
  check_codes<Datatype::float16>();
  check_codes<Datatype::bfloat16>();
  check_codes<Datatype::float8e4m3>();
  check_codes<Datatype::float8e5m2>();
}

}  // namespace
}  // namespace railccl::kernels
