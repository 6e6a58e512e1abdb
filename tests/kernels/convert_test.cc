// Shows that convert() rounds correctly: every 8- and 16-bit code survives a round trip through
// float32, every midpoint between neighbouring codes and its neighbours in float32 round as the
// plain definition does, and all pairs of datatypes agree with it. The plain definition itself is
// pinned by values worked out by hand.
#include "kernels/kernels.h"
#include "kernels_util.h"

namespace railccl::kernels {
namespace {

const Datatype kNarrow[] = {Datatype::float16, Datatype::bfloat16, Datatype::float8e4m3,
                            Datatype::float8e5m2};

void expect_conversion(const std::vector<float>& values, Datatype type) {
  std::vector<uint8_t> got(values.size() * size_of(type));
  convert(got.data(), type, values.data(), Datatype::float32, values.size());
  std::vector<uint8_t> expected(got.size());
  for (size_t i = 0; i < values.size(); i++) {
    reference::write(expected.data(), i, type, values[i]);
    ASSERT_TRUE(same(got.data(), expected.data(), i, type))
        << name_of(type) << " of " << values[i] << ": got " << show(got.data(), i, type)
        << ", want " << show(expected.data(), i, type);
  }
}

TEST(Convert, EveryCodeAndMidpoint) {
  on_each_target([&] {
    for (const Datatype type : kNarrow) {
      const size_t codes = size_t{1} << (8 * size_of(type));
      std::vector<uint8_t> all(codes * size_of(type));
      for (size_t i = 0; i < codes; i++) std::memcpy(&all[i * size_of(type)], &i, size_of(type));

      std::vector<float> wide(codes);
      convert(wide.data(), Datatype::float32, all.data(), type, codes);
      std::vector<float> probes;
      for (size_t i = 0; i < codes; i++) {
        const auto expected = static_cast<float>(reference::read(all.data(), i, type));
        ASSERT_TRUE(wide[i] == expected || (std::isnan(wide[i]) && std::isnan(expected)))
            << name_of(type) << " code " << i << ": got " << wide[i] << ", want " << expected;
        ASSERT_EQ(std::signbit(wide[i]), (i & (codes / 2)) != 0 || false) << i;
        // Halfway to the next larger magnitude, where that is a number.
        if (i + 1 < codes && std::isfinite(wide[i]) && !std::isnan(wide[i + 1])) {
          const float next =
              std::isinf(wide[i + 1]) ? std::copysign(65536.0f, wide[i]) : wide[i + 1];
          const float middle = wide[i] + (next - wide[i]) / 2;
          probes.push_back(middle);
          probes.push_back(std::nextafter(middle, 0.0f));
          probes.push_back(std::nextafter(middle, next));
        }
      }
      std::vector<uint8_t> back(all.size());
      convert(back.data(), type, wide.data(), Datatype::float32, codes);
      const bool saturates = type == Datatype::float8e5m2;
      for (size_t i = 0; i < codes; i++) {
        if (saturates && std::isinf(wide[i])) continue;
        ASSERT_TRUE(same(back.data(), all.data(), i, type)) << name_of(type) << " code " << i;
      }
      expect_conversion(probes, type);
    }
  });
}

TEST(Convert, RandomAndExtremeFloats) {
  Random random(7);
  std::vector<float> values = {
      0.0f,       -0.0f,           INFINITY,        -INFINITY,       NAN,
      -NAN,       65504.0f,        65519.996f,      65520.0f,        448.0f,
      464.0f,     464.00003f,      480.0f,          57344.0f,        61440.0f,
      61440.004f, 0x1p-24f,        0x1p-25f,        0x1.000002p-25f, 0x1p-9f,
      0x1p-10f,   0x1.000002p-10f, 0x1p-17f,        0x1p-149f,       3.4e38f,
      -3.4e38f,   0x1.fep127f,     0x1.ff7ffep127f, 0x1.ffp127f,     0x1p-133f,
      0x1p-134f};
  for (int i = 0; i < 200000; i++) {
    const auto bits = static_cast<uint32_t>(random.next());
    values.push_back(std::bit_cast<float>(bits));
    // Exponents near those of the small formats, which random bits rarely hit.
    const uint32_t exponent = 127 - 28 + static_cast<uint32_t>(random.below(48));
    values.push_back(std::bit_cast<float>((bits & 0x807fffffu) | exponent << 23));
  }
  on_each_target([&] {
    for (const Datatype type : kNarrow) expect_conversion(values, type);
  });
}

TEST(Convert, EveryPairOfDatatypes) {
  Random random(8);
  for (const Datatype from : datatypes()) {
    for (const Datatype to : datatypes()) {
      for (const size_t count : {0, 1, 3, 15, 16, 17, 100}) {
        std::vector<uint8_t> src(count * size_of(from));
        fill(src.data(), count, from, random);
        std::vector<uint8_t> got(count * size_of(to) + 1, 0x5a);
        convert(got.data(), to, src.data(), from, count);
        std::vector<uint8_t> expected(got);
        for (size_t i = 0; i < count; i++) {
          if (from == to)
            std::memcpy(&expected[i * size_of(to)], &src[i * size_of(to)], size_of(to));
          else
            reference::write(expected.data(), i, to, reference::read(src.data(), i, from));
          ASSERT_TRUE(same(got.data(), expected.data(), i, to))
              << name_of(from) << " " << show(src.data(), i, from) << " to " << name_of(to)
              << ": got " << show(got.data(), i, to) << ", want " << show(expected.data(), i, to);
        }
        ASSERT_EQ(got.back(), 0x5a);
      }
    }
  }
}

// The definition, against numbers worked out by hand from the formats' descriptions.
TEST(Reference, KnownCodes) {
  using namespace reference;
  EXPECT_EQ(encode(1.0L, 16, kFloat16), 0x3c00u);
  EXPECT_EQ(encode(-2.0L, 16, kFloat16), 0xc000u);
  EXPECT_EQ(encode(65504.0L, 16, kFloat16), 0x7bffu);
  EXPECT_EQ(encode(65520.0L, 16, kFloat16), 0x7c00u);
  EXPECT_EQ(encode(65519.9L, 16, kFloat16), 0x7bffu);
  EXPECT_EQ(encode(0x1p-24L, 16, kFloat16), 0x0001u);
  EXPECT_EQ(encode(0x1p-25L, 16, kFloat16), 0x0000u);
  EXPECT_EQ(encode(0x1.8p-24L, 16, kFloat16), 0x0002u);
  EXPECT_EQ(encode(1.0L, 16, kBfloat16), 0x3f80u);
  EXPECT_EQ(encode(1.0L + 0x1p-8L, 16, kBfloat16), 0x3f80u);
  EXPECT_EQ(encode(1.0L + 0x3p-8L, 16, kBfloat16), 0x3f82u);
  EXPECT_EQ(encode(3.4e38L, 16, kBfloat16), 0x7f80u);
  EXPECT_EQ(encode(1.0L, 8, kFloat8e4m3), 0x38u);
  EXPECT_EQ(encode(448.0L, 8, kFloat8e4m3), 0x7eu);
  EXPECT_EQ(encode(1e9L, 8, kFloat8e4m3), 0x7eu);
  EXPECT_EQ(encode(-INFINITY, 8, kFloat8e4m3), 0xfeu);
  EXPECT_EQ(encode(NAN, 8, kFloat8e4m3), 0x7fu);
  EXPECT_EQ(encode(0x1p-9L, 8, kFloat8e4m3), 0x01u);
  EXPECT_EQ(encode(0x1p-10L, 8, kFloat8e4m3), 0x00u);
  EXPECT_EQ(encode(1.0L, 8, kFloat8e5m2), 0x3cu);
  EXPECT_EQ(encode(INFINITY, 8, kFloat8e5m2), 0x7bu);
  EXPECT_EQ(encode(0x1p-16L, 8, kFloat8e5m2), 0x01u);
  EXPECT_TRUE(std::isnan(decode(0x7d, 8, kFloat8e5m2)));
  EXPECT_TRUE(std::isinf(decode(0xfc, 8, kFloat8e5m2)));
  EXPECT_EQ(decode(0x08, 8, kFloat8e4m3), 0x1p-6L);
  EXPECT_EQ(decode(0x07, 8, kFloat8e4m3), 0x7p-9L);
}

TEST(Reference, Combining) {
  using reference::combined;
  EXPECT_EQ(combined<int8_t>(100, 100, Reduction::sum), -56);
  EXPECT_EQ(combined<int8_t>(100, 100, Reduction::prod), 16);
  EXPECT_EQ(combined<uint8_t>(200, 100, Reduction::sum), 44);
  EXPECT_EQ(combined<int32_t>(INT32_MIN, -1, Reduction::prod), INT32_MIN);
  EXPECT_EQ(combined<int64_t>(-5, 3, Reduction::min), -5);
  EXPECT_EQ(combined<uint64_t>(UINT64_MAX, 3, Reduction::min), 3u);
  EXPECT_EQ(combined<float>(NAN, 3, Reduction::max), 3);
  EXPECT_FALSE(std::signbit(combined<float>(-0.0f, 0.0f, Reduction::max)));
  EXPECT_TRUE(std::signbit(combined<float>(0.0f, -0.0f, Reduction::min)));
}

}  // namespace
}  // namespace railccl::kernels
