// Values: inputs of which the exact result of every collective is known, in every datatype.
//
// Contributions are small integers (0..3 for sums, powers of two for products, and so on), which
// every datatype holds exactly and whose combination stays within what float8 can hold, so results
// can be compared bit by bit whatever the order of reduction. Also the plain model of what each
// collective must leave in each rank's output.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/random.h"
#include "build_kind.h"
#include "kernels/kernels.h"
#include "plan/plan.h"

namespace railccl::test {

using plan::Request;

inline constexpr Datatype kAllDatatypes[] = {
#define RAILCCL_ROW(name, number, bytes, text) Datatype::name,
    RAILCCL_DATATYPES(RAILCCL_ROW)
#undef RAILCCL_ROW
};

/// The number that `rank` contributes at position `i` of its input.
inline double value_at(const Request& request, int ranks, int rank, uint64_t i) {
  const uint64_t h =
      Random(i ^ Random(static_cast<uint64_t>(rank) * 77 + request.count).next()).next();
  switch (request.op) {
    case Reduction::prod:  // mostly ones: the product stays small
      return h % static_cast<uint64_t>(2 * ranks) == 0 ? 2 : 1;
    case Reduction::max:
    case Reduction::min:
      return static_cast<double>(h % 13);
    case Reduction::avg:  // multiples of the ranks, where float8 holds them: exact quotients
      if (ranks > 8) return 0;
      return (static_cast<uint64_t>(rank) + i) % static_cast<uint64_t>((ranks + 3) / 4) == 0
                 ? static_cast<double>(h % 2 * static_cast<uint64_t>(ranks))
                 : 0;
    case Reduction::pre_mul_sum:  // times 2, summed
    case Reduction::sum:          // few ranks contribute, so that float8 holds the sum exactly
      return (static_cast<uint64_t>(rank) + i) % static_cast<uint64_t>((ranks + 3) / 4) == 0
                 ? static_cast<double>(h % 2)
                 : 0;
    case Reduction::none:
      break;
  }
  return static_cast<double>(h % 16);
}

/// What the ranks' contributions at position i of their inputs combine to.
inline double combined_at(const Request& request, int ranks, uint64_t i) {
  double result = value_at(request, ranks, 0, i);
  for (int r = 1; r < ranks; r++) {
    const double value = value_at(request, ranks, r, i);
    switch (request.op) {
      case Reduction::prod:
        result *= value;
        break;
      case Reduction::max:
        result = std::max(result, value);
        break;
      case Reduction::min:
        result = std::min(result, value);
        break;
      default:
        result += value;
        break;
    }
  }
  if (request.op == Reduction::avg) return result / ranks;
  if (request.op == Reduction::pre_mul_sum) return 2 * result;
  return result;
}

inline std::vector<std::byte> stored(const std::vector<double>& values, Datatype datatype) {
  std::vector<std::byte> bytes(values.size() * size_of(datatype) + 1);
  if (is_float(datatype)) {
    kernels::convert(bytes.data(), datatype, values.data(), Datatype::float64, values.size());
  } else {
    for (size_t i = 0; i < values.size(); i++) {
      const auto whole = static_cast<int64_t>(values[i]);
      std::memcpy(bytes.data() + i * size_of(datatype), &whole, size_of(datatype));
    }
  }
  return bytes;
}

inline std::vector<std::byte> input_of(const Request& request, int ranks, int rank) {
  std::vector<double> values(plan::input_elements(request, ranks, rank));
  for (uint64_t i = 0; i < values.size(); i++) values[i] = value_at(request, ranks, rank, i);
  return stored(values, request.datatype);
}

inline std::vector<std::byte> expected_of(const Request& request, int ranks, int rank) {
  const uint64_t n = request.count;
  std::vector<double> values(plan::output_elements(request, ranks, rank));
  for (uint64_t i = 0; i < values.size(); i++) {
    const uint64_t block = n == 0 ? 0 : i / n, at = n == 0 ? 0 : i % n;
    const auto me = static_cast<uint64_t>(rank);
    switch (request.collective) {
      case Collective::all_reduce:
      case Collective::reduce:
        values[i] = combined_at(request, ranks, i);
        break;
      case Collective::reduce_scatter:
        values[i] = combined_at(request, ranks, me * n + i);
        break;
      case Collective::all_gather:
      case Collective::gather:
        values[i] = value_at(request, ranks, static_cast<int>(block), at);
        break;
      case Collective::broadcast:
        values[i] = value_at(request, ranks, request.root, i);
        break;
      case Collective::all_to_all:
        values[i] = value_at(request, ranks, static_cast<int>(block), me * n + at);
        break;
      case Collective::scatter:
        values[i] = value_at(request, ranks, request.root, me * n + i);
        break;
    }
  }
  return stored(values, request.datatype);
}

/// The buffers of one rank for one call: input and output, apart or in place as NCCL defines it,
/// with a guard behind the output that must stay untouched.
struct Buffers {
  Buffers(const Request& request, int ranks, int rank)
      : request_(request),
        expected(expected_of(request, ranks, rank)),
        output_bytes(plan::output_elements(request, ranks, rank) * size_of(request.datatype)) {
    const std::vector<std::byte> source = input_of(request, ranks, rank);
    const size_t input_bytes =
        plan::input_elements(request, ranks, rank) * size_of(request.datatype);
    const size_t block = request.count * size_of(request.datatype);
    if (!request.in_place) {
      input_memory.assign(source.begin(), source.end());
      output_memory.assign(output_bytes + kGuard, std::byte{0xee});
      input = input_memory.data();
      output = output_memory.data();
      return;
    }
    output_memory.assign(std::max(input_bytes, output_bytes) + kGuard, std::byte{0xee});
    size_t input_at = 0, output_at = 0;
    switch (request.collective) {
      case Collective::reduce_scatter:
        output_at = static_cast<size_t>(rank) * block;
        break;
      case Collective::all_gather:
        input_at = static_cast<size_t>(rank) * block;
        break;
      case Collective::gather:
        if (rank == request.root) input_at = static_cast<size_t>(rank) * block;
        break;
      case Collective::scatter:
        if (rank == request.root) output_at = static_cast<size_t>(rank) * block;
        break;
      default:
        break;
    }
    input = output_memory.data() + input_at;
    output = output_memory.data() + output_at;
    std::memcpy(output_memory.data() + input_at, source.data(), input_bytes);
  }

  /// Index of the first wrong byte of the output, or -1.
  int64_t first_wrong() const {
    // Almost always all is right, and sanitizers look at every byte of a loop.
    const bool right = output_bytes == 0 || std::memcmp(output, expected.data(), output_bytes) == 0;
    for (size_t i = 0; i < output_bytes && !right; i++)
      if (output[i] != expected[i]) return static_cast<int64_t>(i);
    for (size_t i = output_memory.size() - kGuard; i < output_memory.size(); i++)
      if (output_memory[i] != std::byte{0xee}) return static_cast<int64_t>(i);
    return -1;
  }

  static constexpr size_t kGuard = 16;
  Request request_;
  std::vector<std::byte> expected;
  size_t output_bytes;
  std::vector<std::byte> input_memory, output_memory;
  const std::byte* input = nullptr;
  std::byte* output = nullptr;
};

inline kernels::Scale factor_of(const Request& request) {
  if (request.op != Reduction::pre_mul_sum) return {};
  return {kernels::Scale::Kind::multiply, 2.0, 2};
}

/// A random request of `collective` that is valid on `ranks` ranks; at most `count_max` elements
/// in the largest buffer.
inline Request random_request(Random& random, Collective collective, int ranks,
                              uint64_t count_max) {
  Request request;
  request.collective = collective;
  request.datatype = kAllDatatypes[random.below(kDatatypeCount)];
  request.op =
      reduces(collective) ? static_cast<Reduction>(random.below(kReductionCount)) : Reduction::none;
  request.in_place = collective != Collective::all_to_all && random.chance(0.4);
  request.root =
      rooted(collective) ? static_cast<int>(random.below(static_cast<uint64_t>(ranks))) : 0;
  const bool blocks = collective == Collective::all_gather ||
                      collective == Collective::reduce_scatter ||
                      collective == Collective::all_to_all || collective == Collective::gather ||
                      collective == Collective::scatter;
  const uint64_t limit =
      blocks ? std::max<uint64_t>(1, count_max / static_cast<uint64_t>(ranks)) : count_max;
  // Sizes over all orders of magnitude, zero and one included.
  request.count =
      random.below(8) == 0 ? random.below(3) : random.below(1 + (limit >> random.below(10)));
  return request;
}

}  // namespace railccl::test
