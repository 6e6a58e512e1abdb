// Shows that reduce() and scale() give the plain definition's bits for every datatype, operator,
// instruction set, length around the vector width, misalignment, aliasing, scaling, number of
// sources and kind of store. Inputs are seeded random numbers rich in special values; bytes around
// the destination are watched.
#include "kernels/kernels.h"
#include "kernels_util.h"

namespace railccl::kernels {
namespace {

constexpr uint8_t kGuard = 0xa5;

/// Sources and destination, `skew` bytes off alignment, with guard bytes around the destination.
struct Operands {
  Operands(int n_srcs, size_t count, Datatype type, size_t skew, Random& random)
      : bytes(count * size_of(type)) {
    for (int s = 0; s < n_srcs; s++) {
      // Each source has its own allocation of the exact size, so that sanitizers see overreads.
      storage.emplace_back(bytes + skew * static_cast<size_t>(s + 1) % 64);
      srcs.push_back(storage.back().data() + storage.back().size() - bytes);
      fill(const_cast<void*>(srcs.back()), count, type, random);
    }
    guarded.assign(bytes + 64 + skew + 64, kGuard);
    const size_t misfit = reinterpret_cast<uintptr_t>(guarded.data()) % 64;
    dst = guarded.data() + (64 - misfit) + skew;
  }
  void expect_guards() const {
    for (const uint8_t* at = guarded.data(); at < dst; at++) ASSERT_EQ(*at, kGuard);
    for (const uint8_t* at = dst + bytes; at < guarded.data() + guarded.size(); at++)
      ASSERT_EQ(*at, kGuard) << "overrun by " << at - (dst + bytes) + 1 << " bytes";
  }
  size_t bytes;
  std::vector<std::vector<uint8_t>> storage;
  std::vector<const void*> srcs;
  std::vector<uint8_t> guarded;
  uint8_t* dst;
};

/// Reduces and compares; alias >= 0 makes that source the destination.
void check(Operands& operands, size_t count, Datatype type, Reduction op, const Scale& pre,
           const Scale& post, Store store, int alias) {
  const int n_srcs = static_cast<int>(operands.srcs.size());
  std::vector<uint8_t> expected(operands.bytes);
  for (size_t i = 0; i < count; i++)
    reference::reduce(expected.data(), operands.srcs.data(), n_srcs, i, type, op, pre, post);

  std::vector<const void*> srcs = operands.srcs;
  if (alias >= 0) {
    if (count > 0) std::memcpy(operands.dst, srcs[static_cast<size_t>(alias)], operands.bytes);
    srcs[static_cast<size_t>(alias)] = operands.dst;
  }
  reduce(operands.dst, srcs.data(), n_srcs, count, type, op, pre, post, store);

  operands.expect_guards();
  for (size_t i = 0; i < count; i++) {
    if (same(operands.dst, expected.data(), i, type)) continue;
    std::string inputs;
    for (const void* src : operands.srcs) inputs.append(" ").append(show(src, i, type));
    FAIL() << name_of(op) << " of " << n_srcs << " " << name_of(type) << ", element " << i << " of "
           << count << ": got " << show(operands.dst, i, type) << ", want "
           << show(expected.data(), i, type) << ", from" << inputs << "; pre "
           << static_cast<int>(pre.kind) << " " << pre.value << "/" << pre.integer << ", post "
           << static_cast<int>(post.kind) << " " << post.value << "/" << post.integer << ", alias "
           << alias;
  }
}

Scale factor_for_tests() {
  Scale factor;
  factor.kind = Scale::Kind::multiply;
  factor.value = 0.7;
  factor.integer = -3;
  return factor;
}

// Lengths 0 to beyond four vectors, at every number of sources with a loop of its own and more.
TEST(Reduce, EveryLengthOnEveryTarget) {
  Random random(1);
  on_each_target([&] {
    for (const Datatype type : datatypes()) {
      // Four vectors of the widest target and of the narrowest codec, plus a remainder.
      const size_t longest = is_float(type) && size_of(type) < 4 ? 80 : 4 * 64 / size_of(type) + 9;
      for (const Reduction op : reductions()) {
        const Scaling scaling = scaling_of(op, type, 3, factor_for_tests());
        for (size_t count = 0; count <= longest; count++) {
          const int n_srcs = 1 + static_cast<int>((count + random.below(2)) % 6);
          Operands operands(n_srcs, count, type, random.below(64), random);
          check(operands, count, type, op, scaling.pre, scaling.post, Store::by_size, -1);
          if (HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(Reduce, EveryAliasAndMisalignment) {
  Random random(2);
  on_each_target([&] {
    for (const Datatype type : datatypes()) {
      for (const Reduction op : reductions()) {
        const Scaling scaling = scaling_of(op, type, 4, factor_for_tests());
        for (int n_srcs = 1; n_srcs <= 6; n_srcs++) {
          for (int alias = -1; alias < n_srcs; alias++) {
            const size_t count = 60 + random.below(300);
            Operands operands(n_srcs, count, type, random.below(64), random);
            check(operands, count, type, op, scaling.pre, scaling.post, Store::by_size, alias);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

// More sources than a cache has ways, and more than the integer tiles take at once.
TEST(Reduce, ManySources) {
  Random random(3);
  for (const Datatype type : datatypes()) {
    for (const Reduction op : reductions()) {
      for (const int n_srcs : {17, 64, 65, 66, 150}) {
        const Scaling scaling = scaling_of(op, type, n_srcs, factor_for_tests());
        Operands operands(n_srcs, 133, type, 3, random);
        const int alias = static_cast<int>(random.below(static_cast<uint64_t>(n_srcs)));
        check(operands, 133, type, op, scaling.pre, scaling.post, Store::by_size, alias);
        ASSERT_FALSE(HasFatalFailure());
      }
    }
  }
}

// A factor before and a divisor after, over more sources than the integer tiles take at once: each
// must be applied once.
TEST(Reduce, ManySourcesScaledOnBothSides) {
  Random random(10);
  const Scale divisor{Scale::Kind::divide, 7, 7};
  for (const Datatype type : datatypes()) {
    for (const int n_srcs : {3, 65, 130}) {
      Operands operands(n_srcs, 77, type, 1, random);
      check(operands, 77, type, Reduction::sum, factor_for_tests(), divisor, Store::by_size, 0);
      ASSERT_FALSE(HasFatalFailure());
      check(operands, 77, type, Reduction::sum, divisor, factor_for_tests(), Store::by_size, -1);
      ASSERT_FALSE(HasFatalFailure());
    }
  }
}

// Every combination of scalings, also those that no operator asks for, and divisors that are
// powers of two (which become factors), primes, one, and larger than the datatype.
TEST(Reduce, EveryScaling) {
  Random random(4);
  std::vector<Scale> scales(1);
  for (const int64_t integer :
       {int64_t{1}, int64_t{2}, int64_t{3}, int64_t{7}, int64_t{128}, int64_t{255}, int64_t{641},
        int64_t{1} << 31, int64_t{1} << 62, INT64_MAX})
    scales.push_back({Scale::Kind::divide, static_cast<double>(integer), integer});
  scales.push_back({Scale::Kind::divide, 0x1p-149, 5});
  scales.push_back({Scale::Kind::divide, 0.3, 6});
  for (const int64_t integer : {int64_t{0}, int64_t{-1}, int64_t{2}, int64_t{77}, INT64_MIN})
    scales.push_back({Scale::Kind::multiply, static_cast<double>(integer) * 1.1, integer});
  on_each_target([&] {
    for (const Datatype type : datatypes()) {
      for (const Reduction op : {Reduction::sum, Reduction::max, Reduction::prod}) {
        for (const Scale& pre : scales) {
          const Scale& post = scales[random.below(scales.size())];
          const int n_srcs = 1 + static_cast<int>(random.below(3));
          const size_t count = 40 + random.below(60);
          Operands operands(n_srcs, count, type, random.below(64), random);
          check(operands, count, type, op, pre, post, Store::by_size, n_srcs - 1);
          if (HasFatalFailure()) return;
          check(operands, count, type, op, post, pre, Store::cached, -1);
          if (HasFatalFailure()) return;
        }
      }
    }
  });
}

// Every pair of the 256 codes of each one-byte datatype, so each sum, product and order there is.
TEST(Reduce, EveryPairOfBytes) {
  std::vector<uint8_t> left(65536);
  std::vector<uint8_t> right(65536);
  for (size_t i = 0; i < 65536; i++) {
    left[i] = static_cast<uint8_t>(i >> 8);
    right[i] = static_cast<uint8_t>(i);
  }
  const void* srcs[2] = {left.data(), right.data()};
  for (const Datatype type : datatypes()) {
    if (size_of(type) != 1) continue;
    for (const Reduction op : reductions()) {
      const Scaling scaling = scaling_of(op, type, 2, factor_for_tests());
      std::vector<uint8_t> expected(65536);
      for (size_t i = 0; i < 65536; i++)
        reference::reduce(expected.data(), srcs, 2, i, type, op, scaling.pre, scaling.post);
      on_each_target([&] {
        std::vector<uint8_t> got(65536);
        reduce(got.data(), srcs, 2, 65536, type, op, scaling.pre, scaling.post);
        for (size_t i = 0; i < 65536; i++)
          ASSERT_TRUE(same(got.data(), expected.data(), i, type))
              << name_of(op) << " of " << show(left.data(), i, type) << " and "
              << show(right.data(), i, type) << ": got " << show(got.data(), i, type) << ", want "
              << show(expected.data(), i, type);
      });
    }
  }
}

// Denormals, NaNs, infinities, ties and overflow, each with each, as one lane among ordinary ones:
// vectors with such a lane may take a way of their own, which must leave the other lanes right, and
// the ordinary way must not let one pass.
TEST(Reduce, OneSpecialLaneAmongMany) {
  struct Codes {
    Datatype type;
    uint16_t ordinary;  // 1.0
    std::vector<uint16_t> special;
  };
  const Codes rows[] = {
      {Datatype::float16, 0x3c00, {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x83ff, 0x0400, 0x8401,
                                   0x1000, 0x1001, 0x3c00, 0x3c01, 0xbc01, 0x4c00, 0x7bff, 0xfbff,
                                   0x7c00, 0xfc00, 0x7c01, 0xfdff, 0x7e00, 0xffff}},
      {Datatype::bfloat16, 0x3f80, {0x0000, 0x8000, 0x0001, 0x8001, 0x007f, 0x807f, 0x0080, 0x8081,
                                    0x00ff, 0x3b80, 0x3b81, 0x3f80, 0x3f81, 0xbf81, 0x7b80, 0x7f7f,
                                    0xff7f, 0x7f80, 0xff80, 0x7f81, 0xff81, 0x7fc0, 0xffff}}};
  Random random(11);
  constexpr size_t kCount = 150;
  on_each_target([&] {
    for (const Codes& row : rows) {
      for (const Reduction op : {Reduction::sum, Reduction::prod, Reduction::pre_mul_sum}) {
        const Scaling scaling = scaling_of(op, row.type, 2, factor_for_tests());
        for (const uint16_t left : row.special) {
          for (const uint16_t right : row.special) {
            Operands operands(2, kCount, row.type, 0, random);
            for (const void* src : operands.srcs)
              for (size_t i = 0; i < kCount; i++)
                reference::store(const_cast<void*>(src), i,
                                 static_cast<uint16_t>(row.ordinary + random.below(128)));
            const size_t lane = random.below(kCount);
            reference::store(const_cast<void*>(operands.srcs[0]), lane, left);
            reference::store(const_cast<void*>(operands.srcs[1]), lane, right);
            check(operands, kCount, row.type, op, scaling.pre, scaling.post, Store::cached, -1);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  });
}

// One rounding at the end, however many sources: 1 + 2^-11 sixteen times is lost in float16 if each
// partial sum is rounded.
TEST(Reduce, NarrowFloatsRoundOnce) {
  on_each_target([&] {
    std::vector<uint16_t> one(100, 0x3c00);
    std::vector<uint16_t> tiny(100, 0x1000);  // 2^-11, half of one's last place
    std::vector<const void*> srcs(17, tiny.data());
    srcs[0] = one.data();
    std::vector<uint16_t> sum(100);
    reduce(sum.data(), srcs.data(), 17, 100, Datatype::float16, Reduction::sum);
    for (const uint16_t code : sum) ASSERT_EQ(code, 0x3c08);  // 1 + 2^-7
  });
}

TEST(Reduce, MaxAndMinOfNanAndZeros) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  on_each_target([&] {
    const std::vector<float> a = {nan, 1, nan, 0.0f, -0.0f};
    const std::vector<float> b = {2, nan, nan, -0.0f, 0.0f};
    const void* srcs[2] = {a.data(), b.data()};
    std::vector<float> got(5);
    for (const Reduction op : {Reduction::max, Reduction::min}) {
      reduce(got.data(), srcs, 2, 5, Datatype::float32, op);
      EXPECT_EQ(got[0], 2);
      EXPECT_EQ(got[1], 1);
      EXPECT_TRUE(std::isnan(got[2]));
      EXPECT_EQ(std::signbit(got[3]), op == Reduction::min);
      EXPECT_EQ(std::signbit(got[4]), op == Reduction::min);
    }
  });
}

TEST(Reduce, IntegerAverageTruncatesTowardsZero) {
  const std::vector<int32_t> a = {7, -7, INT32_MIN, INT32_MAX, -1};
  const std::vector<int32_t> b = {0, 0, 0, 0, 0};
  const void* srcs[2] = {a.data(), b.data()};
  std::vector<int32_t> got(5);
  const Scaling scaling = scaling_of(Reduction::avg, Datatype::int32, 2, {});
  reduce(got.data(), srcs, 2, 5, Datatype::int32, Reduction::avg, scaling.pre, scaling.post);
  EXPECT_EQ(got, (std::vector<int32_t>{3, -3, INT32_MIN / 2, INT32_MAX / 2, 0}));
}

// Streaming stores, forced, at lengths and alignments where head and tail are whole or odd.
TEST(Reduce, StreamingStores) {
  Random random(5);
  on_each_target([&] {
    for (const Datatype type : datatypes()) {
      for (const Reduction op : {Reduction::sum, Reduction::avg}) {
        const Scaling scaling = scaling_of(op, type, 3, {});
        for (int trial = 0; trial < 24; trial++) {
          const size_t count = random.below(trial < 12 ? 100 : 1000);
          const size_t skew = trial % 2 == 0 ? random.below(64) : random.below(8) * 8;
          Operands operands(1 + trial % 4, count, type, skew, random);
          check(operands, count, type, op, scaling.pre, scaling.post, Store::streaming, -1);
          if (HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(Scale, InPlaceAndApart) {
  Random random(6);
  on_each_target([&] {
    for (const Datatype type : datatypes()) {
      for (const Scale::Kind kind :
           {Scale::Kind::none, Scale::Kind::multiply, Scale::Kind::divide}) {
        const Scale by{kind, 1.5, 5};
        Operands operands(1, 111, type, 5, random);
        std::vector<uint8_t> expected(operands.bytes);
        for (size_t i = 0; i < 111; i++)
          reference::reduce(expected.data(), operands.srcs.data(), 1, i, type, Reduction::sum, by,
                            {});
        scale(operands.dst, operands.srcs[0], 111, type, by);
        std::vector<uint8_t> in_place(operands.bytes);
        std::memcpy(in_place.data(), operands.srcs[0], operands.bytes);
        scale(in_place.data(), in_place.data(), 111, type, by);
        operands.expect_guards();
        for (size_t i = 0; i < 111; i++) {
          ASSERT_TRUE(same(operands.dst, expected.data(), i, type)) << name_of(type);
          ASSERT_TRUE(same(in_place.data(), expected.data(), i, type)) << name_of(type);
        }
      }
    }
  });
}

TEST(Scaling, OfEachOperator) {
  const Scale factor = factor_for_tests();
  for (const Datatype type : datatypes()) {
    for (const Reduction op : reductions()) {
      const Scaling scaling = scaling_of(op, type, 5, factor);
      const bool averages = op == Reduction::avg;
      EXPECT_EQ(scaling.pre.kind, op == Reduction::pre_mul_sum ? Scale::Kind::multiply
                                  : averages && is_float(type) ? Scale::Kind::divide
                                                               : Scale::Kind::none);
      EXPECT_EQ(scaling.post.kind,
                averages && !is_float(type) ? Scale::Kind::divide : Scale::Kind::none);
      if (averages) {
        EXPECT_EQ(is_float(type) ? scaling.pre.value : 5.0, 5.0);
        EXPECT_EQ(is_float(type) ? 5 : scaling.post.integer, 5);
      }
    }
  }
}

}  // namespace
}  // namespace railccl::kernels
