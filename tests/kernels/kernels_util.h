// What the kernel tests share: walking the tables, running on each instruction set, special values,
// and comparing elements when NaN payloads are free.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/random.h"
#include "kernels/reference.h"
#include "kernels/targets.h"
// Separate, because it reads what targets.h defines.
#include <hwy/targets.h>

namespace railccl::kernels {

inline std::vector<Datatype> datatypes() {
  std::vector<Datatype> rows;
  for (int i = 0; i < kDatatypeCount; i++) rows.push_back(static_cast<Datatype>(i));
  return rows;
}

inline std::vector<Reduction> reductions() {
  std::vector<Reduction> rows;
  for (int i = 0; i < kReductionCount; i++) rows.push_back(static_cast<Reduction>(i));
  return rows;
}

/// Calls body(name) once on each instruction set that was compiled and that this machine has.
template <class Body>
void on_each_target(const Body& body) {
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    ASSERT_STREQ(target_name(), hwy::TargetName(target));
    SCOPED_TRACE(hwy::TargetName(target));
    body();
    if (::testing::Test::HasFailure()) break;  // One target's report is enough to read.
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

inline bool is_nan(const void* base, size_t index, Datatype type) {
  return is_float(type) && std::isnan(reference::read(base, index, type));
}

/// Same bits, or both NaN.
inline bool same(const void* a, const void* b, size_t index, Datatype type) {
  const size_t bytes = size_of(type);
  const auto* pa = static_cast<const uint8_t*>(a) + index * bytes;
  const auto* pb = static_cast<const uint8_t*>(b) + index * bytes;
  return std::memcmp(pa, pb, bytes) == 0 || (is_nan(a, index, type) && is_nan(b, index, type));
}

inline std::string show(const void* base, size_t index, Datatype type) {
  uint64_t bits = 0;
  std::memcpy(&bits, static_cast<const uint8_t*>(base) + index * size_of(type), size_of(type));
  char text[64];
  std::snprintf(text, sizeof(text), "%#llx (%.9Lg)", static_cast<unsigned long long>(bits),
                reference::read(base, index, type));
  return text;
}

/// Random elements, most of moderate size so that sums do not all overflow, mixed with the special
/// ones: zeros of both signs, ones, the extremes, denormals, infinities, NaN, any bits at all.
inline void fill(void* base, size_t count, Datatype type, Random& random) {
  static const double kSpecial[] = {0.0,      -0.0,    1.0,    -1.0,    65504.0,  -65520.0,
                                    448.0,    464.,    57344., 61440.,  0x1p-14,  0x1p-24,
                                    0x1p-16,  0x1p-17, 1e38,   -3.4e38, 0x1p-126, 0x1p-140,
                                    0x1p-149, 0x1p127, 1e308,  -1e308,  5e-324,   0x1p-1022};
  const size_t bytes = size_of(type);
  for (size_t i = 0; i < count; i++) {
    uint8_t* at = static_cast<uint8_t*>(base) + i * bytes;
    const uint64_t bits = random.next();
    switch (random.below(8)) {
      case 0:
        std::memcpy(at, &bits, bytes);
        break;
      case 1:
        if (random.below(8) == 0)
          reference::write(at, 0, type, std::numeric_limits<long double>::quiet_NaN());
        else if (random.below(8) == 0)
          reference::write(at, 0, type,
                           random.chance(0.5) ? std::numeric_limits<long double>::infinity()
                                              : -std::numeric_limits<long double>::infinity());
        else
          reference::write(at, 0, type, kSpecial[random.below(std::size(kSpecial))]);
        break;
      case 2:  // integers at their ends: clamped by write()
        reference::write(at, 0, type, random.chance(0.5) ? 1e30L : -1e30L);
        break;
      default:
        reference::write(at, 0, type, static_cast<long double>((random.uniform() - 0.5) * 20));
    }
  }
}

}  // namespace railccl::kernels
