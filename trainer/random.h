// Seeded random numbers (SplitMix64; Steele, Lea and Flood, 2014): the same on every rank and
// machine, which shuffling and initial weights rely on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace railccl::train {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// Uniform in [-limit, limit).
  float symmetric(float limit) {
    return (static_cast<float>(next() >> 40) * 0x1.0p-23f - 1.0f) * limit;
  }

 private:
  uint64_t state_;
};

/// The numbers 0 to count-1 in an order that depends on the seed and epoch only.
inline std::vector<uint32_t> shuffled(size_t count, uint64_t seed, int epoch) {
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  Random random(seed * 1000003u + static_cast<uint64_t>(epoch));
  for (size_t i = count; i > 1; i--) std::swap(order[i - 1], order[random.next() % i]);
  return order;
}

}  // namespace railccl::train
