// Values: the patterns, their results and their encodings.
#include "values.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

namespace railccl::bench {
namespace {

/// Layout of a float type: exponent and mantissa bits.
struct Format {
  int exponent_bits;
  int mantissa_bits;
};

Format format_of(Datatype type) {
  switch (type) {
    case Datatype::float8e4m3:
      return {4, 3};
    case Datatype::float8e5m2:
      return {5, 2};
    case Datatype::float16:
      return {5, 10};
    case Datatype::bfloat16:
      return {8, 7};
    case Datatype::float32:
      return {8, 23};
    default:
      return {11, 52};
  }
}

/// Largest n such that all integers 0..n are exact in the type (capped: tiles need no more).
int64_t exact_limit(Datatype type) {
  return int64_t{1} << std::min(format_of(type).mantissa_bits + 1, 20);
}

bool representable(int64_t value, Datatype type) {
  if (value == 0) return true;
  while (value % 2 == 0) value /= 2;
  return value <= exact_limit(type);
}

/// A stable mixing hash of (element, rank).
uint64_t mix(uint64_t element, uint64_t rank) {
  uint64_t z = element * 0x9e3779b97f4a7c15ULL + (rank + 1) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

bool is_signed_integer(Datatype type) {
  return type == Datatype::int8 || type == Datatype::int32 || type == Datatype::int64;
}

/// Reads the low bytes as the type would: sign- or zero-extended.
int64_t narrow(uint64_t bits, Datatype type) {
  const int width = static_cast<int>(size_of(type)) * 8;
  if (width == 64) return static_cast<int64_t>(bits);
  bits &= (uint64_t{1} << width) - 1;
  if (is_signed_integer(type) && (bits >> (width - 1)) != 0) bits |= ~uint64_t{0} << width;
  return static_cast<int64_t>(bits);
}

int64_t integer_value(Datatype type, Reduction op, int rank, int ranks, uint64_t element) {
  const uint64_t hash = mix(element, static_cast<uint64_t>(rank));
  if (op == Reduction::avg) {
    // The sum must not wrap, or dividing it would not be the average.
    const int64_t largest = std::max<int64_t>(1, 127 / ranks);
    const int64_t value = static_cast<int64_t>(hash % static_cast<uint64_t>(largest + 1));
    return ranks > 127 && rank >= 127 ? 0 : value;
  }
  return narrow(hash, type);
}

int64_t integer_result(Datatype type, Reduction op, int ranks, uint64_t element) {
  uint64_t all = 0;
  for (int rank = 0; rank < ranks; rank++) {
    const int64_t value = integer_value(type, op, rank, ranks, element);
    const auto bits = static_cast<uint64_t>(value);
    if (rank == 0) {
      all = op == Reduction::pre_mul_sum ? bits * static_cast<uint64_t>(factor_of(0)) : bits;
      continue;
    }
    switch (op) {
      case Reduction::prod:
        all *= bits;
        break;
      case Reduction::max:
      case Reduction::min: {
        const int64_t mine = narrow(all, type);
        const bool less =
            type == Datatype::uint64 ? static_cast<uint64_t>(mine) < bits : mine < value;
        if (less == (op == Reduction::max)) all = bits;
        break;
      }
      case Reduction::pre_mul_sum:
        all += bits * static_cast<uint64_t>(factor_of(rank));
        break;
      default:
        all += bits;
    }
  }
  int64_t result = narrow(all, type);
  if (op == Reduction::avg) result /= ranks;
  return result;
}

/// True for `wanted` of the ranks, spread by element: bounds how many ranks contribute.
bool takes_part(int rank, int ranks, int64_t wanted, uint64_t element) {
  if (wanted >= ranks) return true;
  const auto shifted = (static_cast<uint64_t>(rank) + element) % static_cast<uint64_t>(ranks);
  return shifted < static_cast<uint64_t>(wanted);
}

/// Never minus zero: sums of it depend on the order.
double with_sign(double magnitude, bool negative) {
  return negative && magnitude != 0 ? -magnitude : magnitude;
}

double float_value(Datatype type, Reduction op, int rank, int ranks, uint64_t element) {
  const uint64_t hash = mix(element, static_cast<uint64_t>(rank));
  const int64_t limit = exact_limit(type);
  const bool negative = (hash >> 40) % 2 == 1;
  switch (op) {
    case Reduction::prod: {
      // Up to three ranks bring a factor of 2, the others 1; signs are free.
      const double magnitude = takes_part(rank, ranks, 3, element) ? 2 : 1;
      return with_sign(magnitude, negative);
    }
    case Reduction::max:
    case Reduction::min:
    case Reduction::none: {
      const auto value = static_cast<double>(hash % static_cast<uint64_t>(limit + 1));
      return with_sign(value, negative);
    }
    case Reduction::avg: {
      if (!representable(ranks, type)) return 0;
      // Contributions are ranks * k; k sums to at most the limit.
      if (!takes_part(rank, ranks, limit, element)) return 0;
      int64_t k = std::max<int64_t>(1, limit / (int64_t{ranks} * std::min<int64_t>(ranks, limit)));
      k = static_cast<int64_t>(hash % static_cast<uint64_t>(k + 1));
      if (!representable(k * ranks, type)) k = 1;
      const auto value = static_cast<double>(k * ranks);
      return with_sign(value, negative);
    }
    default: {
      // Factors of pre_mul_sum are at most 2: half the room.
      const int64_t room = op == Reduction::pre_mul_sum ? limit / 2 : limit;
      if (!takes_part(rank, ranks, room, element)) return 0;
      const int64_t largest = std::max<int64_t>(1, room / std::min<int64_t>(ranks, room));
      const auto value = static_cast<double>(hash % static_cast<uint64_t>(largest + 1));
      return with_sign(value, negative);
    }
  }
}

double float_result(Datatype type, Reduction op, int ranks, uint64_t element) {
  double all = 0;
  for (int rank = 0; rank < ranks; rank++) {
    const double value = float_value(type, op, rank, ranks, element);
    if (rank == 0) {
      all = op == Reduction::pre_mul_sum ? value * factor_of(0) : value;
      if (op == Reduction::avg) all = value / ranks;
      continue;
    }
    switch (op) {
      case Reduction::prod:
        all *= value;
        break;
      case Reduction::max:
        all = std::max(all, value);
        break;
      case Reduction::min:
        all = std::min(all, value);
        break;
      case Reduction::avg:
        all += value / ranks;
        break;
      case Reduction::pre_mul_sum:
        all += value * factor_of(rank);
        break;
      default:
        all += value;
    }
  }
  return all == 0 ? 0 : all;
}

void encode_integer(int64_t value, Datatype type, std::byte* out) {
  std::memcpy(out, &value, size_of(type));  // little endian: the low bytes come first
}

template <typename Value>
std::vector<std::byte> tile_of(Datatype type, const Value& value) {
  std::vector<std::byte> tile(kPeriod * size_of(type));
  for (size_t i = 0; i < kPeriod; i++) value(i, tile.data() + i * size_of(type));
  return tile;
}

}  // namespace

double factor_of(int rank) { return rank % 2 == 0 ? 2 : 1; }

void encode(double value, Datatype type, std::byte* out) {
  if (!is_float(type)) return encode_integer(static_cast<int64_t>(value), type, out);
  if (type == Datatype::float32) {
    const auto single = static_cast<float>(value);
    std::memcpy(out, &single, sizeof single);
    return;
  }
  if (type == Datatype::float64) {
    std::memcpy(out, &value, sizeof value);
    return;
  }
  const Format format = format_of(type);
  uint32_t bits = std::signbit(value) ? 1u << (format.exponent_bits + format.mantissa_bits) : 0;
  if (value != 0) {
    int exponent = 0;
    const double fraction = std::frexp(std::fabs(value), &exponent);  // in [0.5, 1)
    const int bias = (1 << (format.exponent_bits - 1)) - 1;
    const auto mantissa = static_cast<uint32_t>(
        std::ldexp(fraction * 2 - 1, format.mantissa_bits));  // exact: value is representable
    bits |= static_cast<uint32_t>(exponent - 1 + bias) << format.mantissa_bits | mantissa;
  }
  std::memcpy(out, &bits, size_of(type));
}

std::vector<std::byte> input_tile(Datatype type, Reduction op, int rank, int ranks) {
  return tile_of(type, [&](size_t i, std::byte* out) {
    if (is_float(type)) {
      encode(float_value(type, op, rank, ranks, i), type, out);
    } else {
      encode_integer(integer_value(type, op, rank, ranks, i), type, out);
    }
  });
}

std::vector<std::byte> reduced_tile(Datatype type, Reduction op, int ranks) {
  return tile_of(type, [&](size_t i, std::byte* out) {
    if (is_float(type)) {
      encode(float_result(type, op, ranks, i), type, out);
    } else {
      encode_integer(integer_result(type, op, ranks, i), type, out);
    }
  });
}

void fill(std::byte* out, const std::vector<std::byte>& tile, size_t element_bytes, size_t from,
          size_t count) {
  size_t at = from % kPeriod;
  while (count > 0) {
    const size_t run = std::min(count, kPeriod - at);
    std::memcpy(out, tile.data() + at * element_bytes, run * element_bytes);
    out += run * element_bytes;
    count -= run;
    at = 0;
  }
}

size_t count_wrong(const std::byte* got, const std::vector<std::byte>& tile, size_t element_bytes,
                   size_t from, size_t count) {
  size_t wrong = 0;
  size_t at = from % kPeriod;
  while (count > 0) {
    const size_t run = std::min(count, kPeriod - at);
    const std::byte* expected = tile.data() + at * element_bytes;
    if (std::memcmp(got, expected, run * element_bytes) != 0) {
      for (size_t i = 0; i < run; i++)
        if (std::memcmp(got + i * element_bytes, expected + i * element_bytes, element_bytes) != 0)
          wrong++;
    }
    got += run * element_bytes;
    count -= run;
    at = 0;
  }
  return wrong;
}

}  // namespace railccl::bench
