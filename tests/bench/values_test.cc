// The benchmark's patterns: known results must be what combining the inputs gives, in any order and
// with a rounding to the datatype after every step. Checked against an arithmetic of its own:
// values are decoded from the tiles' bits and combined in float64 with explicit rounding to the
// format.
#include "values.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

namespace railccl::bench {
namespace {

int mantissa_bits(Datatype type) {
  switch (type) {
    case Datatype::float8e4m3:
      return 3;
    case Datatype::float8e5m2:
      return 2;
    case Datatype::float16:
      return 10;
    case Datatype::bfloat16:
      return 7;
    case Datatype::float32:
      return 23;
    default:
      return 52;
  }
}

int exponent_bits(Datatype type) {
  switch (type) {
    case Datatype::float8e4m3:
      return 4;
    case Datatype::float8e5m2:
    case Datatype::float16:
      return 5;
    case Datatype::float64:
      return 11;
    default:
      return 8;
  }
}

double decode_float(const std::byte* at, Datatype type) {
  uint64_t bits = 0;
  std::memcpy(&bits, at, size_of(type));
  const int m = mantissa_bits(type), e = exponent_bits(type);
  const bool negative = (bits >> (m + e) & 1) != 0;
  const auto exponent = static_cast<int>(bits >> m & ((uint64_t{1} << e) - 1));
  const auto mantissa = static_cast<double>(bits & ((uint64_t{1} << m) - 1));
  const int bias = (1 << (e - 1)) - 1;
  const double magnitude = exponent == 0
                               ? std::ldexp(mantissa, 1 - bias - m)
                               : std::ldexp(mantissa + std::ldexp(1, m), exponent - bias - m);
  return negative ? -magnitude : magnitude;
}

/// Nearest value with the format's mantissa (range is never left by the patterns).
double rounded(double value, Datatype type) {
  if (value == 0) return 0;
  int exponent = 0;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1, exponent - 1 - mantissa_bits(type));
  return std::nearbyint(value / unit) * unit;
}

class Values : public testing::TestWithParam<std::tuple<int, int, int>> {};

TEST_P(Values, FloatResultsDoNotDependOnOrderOrRounding) {
  const auto type = static_cast<Datatype>(std::get<0>(GetParam()));
  const auto op = static_cast<Reduction>(std::get<1>(GetParam()));
  const int ranks = std::get<2>(GetParam());
  ASSERT_TRUE(is_float(type)) << "integers have their own test";
  std::vector<std::vector<std::byte>> inputs;
  for (int r = 0; r < ranks; r++) inputs.push_back(input_tile(type, op, r, ranks));
  const std::vector<std::byte> expected = reduced_tile(type, op, ranks);
  std::vector<int> order(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; r++) order[static_cast<size_t>(r)] = r;
  std::mt19937 random(7);
  size_t nonzero = 0;
  for (size_t i = 0; i < kPeriod; i++) {
    std::shuffle(order.begin(), order.end(), random);
    double all = 0;
    for (size_t k = 0; k < order.size(); k++) {
      double value =
          decode_float(inputs[static_cast<size_t>(order[k])].data() + i * size_of(type), type);
      if (op == Reduction::avg) value = rounded(value / ranks, type);
      if (op == Reduction::pre_mul_sum) value = rounded(value * factor_of(order[k]), type);
      if (k == 0) {
        all = value;
      } else if (op == Reduction::prod) {
        all *= value;
      } else if (op == Reduction::max) {
        all = std::max(all, value);
      } else if (op == Reduction::min) {
        all = std::min(all, value);
      } else {
        all += value;
      }
      all = rounded(all, type);
    }
    const double want = decode_float(expected.data() + i * size_of(type), type);
    ASSERT_EQ(all, want) << "element " << i;
    if (want != 0) nonzero++;
  }
  // A pattern of zeros would verify nothing; only where no multiple of ranks fits may it be so.
  if (op != Reduction::avg || ranks <= 8) {
    EXPECT_GT(nonzero, kPeriod / 8);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Values,
                         testing::Combine(testing::Range(static_cast<int>(Datatype::float16),
                                                         kDatatypeCount),
                                          testing::Range(0, kReductionCount),
                                          testing::Values(1, 2, 3, 4, 7, 9, 16, 40)));

TEST(Values, IntegersWrapAsTheTypeDoes) {
  for (int ranks : {1, 2, 5, 9}) {
    std::vector<std::vector<std::byte>> inputs;
    for (int r = 0; r < ranks; r++)
      inputs.push_back(input_tile(Datatype::int8, Reduction::sum, r, ranks));
    const std::vector<std::byte> expected = reduced_tile(Datatype::int8, Reduction::sum, ranks);
    for (size_t i = 0; i < kPeriod; i++) {
      unsigned sum = 0;
      for (const auto& input : inputs) sum += std::to_integer<unsigned>(input[i]);
      ASSERT_EQ(sum & 0xff, std::to_integer<unsigned>(expected[i]));
    }
  }
}

TEST(Values, UnsignedMaximumIsUnsigned) {
  const std::vector<std::byte> a = input_tile(Datatype::uint64, Reduction::max, 0, 2);
  const std::vector<std::byte> b = input_tile(Datatype::uint64, Reduction::max, 1, 2);
  const std::vector<std::byte> expected = reduced_tile(Datatype::uint64, Reduction::max, 2);
  for (size_t i = 0; i < kPeriod; i++) {
    uint64_t x, y, want;
    std::memcpy(&x, a.data() + i * 8, 8);
    std::memcpy(&y, b.data() + i * 8, 8);
    std::memcpy(&want, expected.data() + i * 8, 8);
    ASSERT_EQ(std::max(x, y), want);
  }
}

TEST(Values, CountWrongSeesOneElementAndAShiftedChunk) {
  const std::vector<std::byte> tile = input_tile(Datatype::float32, Reduction::sum, 1, 4);
  std::vector<std::byte> buffer(10000 * 4);
  fill(buffer.data(), tile, 4, 123, 10000);
  EXPECT_EQ(count_wrong(buffer.data(), tile, 4, 123, 10000), 0u);
  buffer[5000 * 4] ^= std::byte{1};
  EXPECT_EQ(count_wrong(buffer.data(), tile, 4, 123, 10000), 1u);
  EXPECT_GT(count_wrong(buffer.data(), tile, 4, 124, 10000), 5000u);
}

}  // namespace
}  // namespace railccl::bench
