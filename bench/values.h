// Values: inputs whose exact collective result is known, for every datatype and operator.
//
// Element i of rank r is a small number f(i, r), chosen so that no order of combining and no
// rounding to the datatype on the way can change the result: sums stay within the integers that the
// type holds exactly, products have few factors of 2, averages divide evenly; integers use their
// whole range and wrap. Where the number of ranks itself is not representable (avg of fp8_e5m2 on
// 9 ranks, say) nothing but zero divides evenly, and all inputs are zero or a power of two times
// it that is. The pattern repeats after kPeriod elements, a prime, so that a chunk in the wrong
// place shows.
#pragma once

#include <railccl/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace railccl::bench {

inline constexpr size_t kPeriod = 4093;

/// Bytes of the value in the datatype's encoding. `value` must be representable.
void encode(double value, Datatype type, std::byte* out);

/// One period of rank r's input for this operator (none for collectives that only move data).
std::vector<std::byte> input_tile(Datatype type, Reduction op, int rank, int ranks);
/// One period of the reduced result over all ranks.
std::vector<std::byte> reduced_tile(Datatype type, Reduction op, int ranks);
/// PreMulSum's factor of this rank.
double factor_of(int rank);

/// Fills `count` elements from the tile, starting at element `from` of the endless pattern.
void fill(std::byte* out, const std::vector<std::byte>& tile, size_t element_bytes, size_t from,
          size_t count);
/// Number of elements that differ from the pattern.
size_t count_wrong(const std::byte* got, const std::vector<std::byte>& tile, size_t element_bytes,
                   size_t from, size_t count);

}  // namespace railccl::bench
