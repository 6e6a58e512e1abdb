// The field's facts with one row per item: datatypes, reductions, collectives.
//
// Every enum, name table, size table, test sweep and help text is generated from the three lists
// below; a new row is the only change a new item needs here. Visible to every floor.
#pragma once

#include <cstddef>
#include <cstdint>

// RAILCCL_DATATYPES(X): X(enumerator, number in nccl.h, bytes per element, text name)
// Numbers are NCCL 2.28's ncclDataType_t, so a cast converts between the two.
#define RAILCCL_DATATYPES(X)       \
  X(int8, 0, 1, "int8")            \
  X(uint8, 1, 1, "uint8")          \
  X(int32, 2, 4, "int32")          \
  X(uint32, 3, 4, "uint32")        \
  X(int64, 4, 8, "int64")          \
  X(uint64, 5, 8, "uint64")        \
  X(float16, 6, 2, "half")         \
  X(float32, 7, 4, "float")        \
  X(float64, 8, 8, "double")       \
  X(bfloat16, 9, 2, "bfloat16")    \
  X(float8e4m3, 10, 1, "fp8_e4m3") \
  X(float8e5m2, 11, 1, "fp8_e5m2")

// RAILCCL_REDUCTIONS(X): X(enumerator, number in nccl.h, text name)
// Numbers are ncclRedOp_t's for the five builtin operators; pre_mul_sum (user-made, see
// ncclRedOpCreatePreMulSum) and none (collectives that do not reduce) have none of their own.
#define RAILCCL_REDUCTIONS(X) \
  X(sum, 0, "sum")            \
  X(prod, 1, "prod")          \
  X(max, 2, "max")            \
  X(min, 3, "min")            \
  X(avg, 4, "avg")            \
  X(pre_mul_sum, 5, "mulsum") \
  X(none, 6, "none")

// RAILCCL_COLLECTIVES(X): X(enumerator, text name, input blocks, output blocks, reduces, rooted)
// Blocks are multiples of Request::count elements: 1, or n meaning the number of ranks. A rooted
// collective's input (broadcast, scatter) or output (reduce, gather) exists at the root only.
#define RAILCCL_COLLECTIVES(X)                           \
  X(all_reduce, "all_reduce", 1, 1, true, false)         \
  X(reduce_scatter, "reduce_scatter", n, 1, true, false) \
  X(all_gather, "all_gather", 1, n, false, false)        \
  X(broadcast, "broadcast", 1, 1, false, true)           \
  X(reduce, "reduce", 1, 1, true, true)                  \
  X(all_to_all, "all_to_all", n, n, false, false)        \
  X(gather, "gather", 1, n, false, true)                 \
  X(scatter, "scatter", n, 1, false, true)

namespace railccl {

enum class Datatype : uint8_t {
#define RAILCCL_ROW(name, number, bytes, text) name = number,
  RAILCCL_DATATYPES(RAILCCL_ROW)
#undef RAILCCL_ROW
};
inline constexpr int kDatatypeCount = 12;

enum class Reduction : uint8_t {
#define RAILCCL_ROW(name, number, text) name = number,
  RAILCCL_REDUCTIONS(RAILCCL_ROW)
#undef RAILCCL_ROW
};
inline constexpr int kReductionCount = 6;  // without none

enum class Collective : uint8_t {
#define RAILCCL_ROW(name, text, in, out, reduces, rooted) name,
  RAILCCL_COLLECTIVES(RAILCCL_ROW)
#undef RAILCCL_ROW
};
inline constexpr int kCollectiveCount = 8;

constexpr size_t size_of(Datatype type) {
  switch (type) {
#define RAILCCL_ROW(name, number, bytes, text) \
  case Datatype::name:                         \
    return bytes;
    RAILCCL_DATATYPES(RAILCCL_ROW)
#undef RAILCCL_ROW
  }
  return 0;
}

constexpr const char* name_of(Datatype type) {
  switch (type) {
#define RAILCCL_ROW(name, number, bytes, text) \
  case Datatype::name:                         \
    return text;
    RAILCCL_DATATYPES(RAILCCL_ROW)
#undef RAILCCL_ROW
  }
  return "invalid";
}

constexpr const char* name_of(Reduction op) {
  switch (op) {
#define RAILCCL_ROW(name, number, text) \
  case Reduction::name:                 \
    return text;
    RAILCCL_REDUCTIONS(RAILCCL_ROW)
#undef RAILCCL_ROW
  }
  return "invalid";
}

constexpr const char* name_of(Collective collective) {
  switch (collective) {
#define RAILCCL_ROW(name, text, in, out, reduces, rooted) \
  case Collective::name:                                  \
    return text;
    RAILCCL_COLLECTIVES(RAILCCL_ROW)
#undef RAILCCL_ROW
  }
  return "invalid";
}

constexpr bool reduces(Collective collective) {
  switch (collective) {
#define RAILCCL_ROW(name, text, in, out, reduces, rooted) \
  case Collective::name:                                  \
    return reduces;
    RAILCCL_COLLECTIVES(RAILCCL_ROW)
#undef RAILCCL_ROW
  }
  return false;
}

constexpr bool rooted(Collective collective) {
  switch (collective) {
#define RAILCCL_ROW(name, text, in, out, reduces, rooted) \
  case Collective::name:                                  \
    return rooted;
    RAILCCL_COLLECTIVES(RAILCCL_ROW)
#undef RAILCCL_ROW
  }
  return false;
}

constexpr bool is_float(Datatype type) {
  switch (type) {
    case Datatype::float16:
    case Datatype::float32:
    case Datatype::float64:
    case Datatype::bfloat16:
    case Datatype::float8e4m3:
    case Datatype::float8e5m2:
      return true;
    default:
      return false;
  }
}

}  // namespace railccl
