// Seeded pseudo-random numbers (SplitMix64, Steele, Lea & Flood 2014) for tests, simulated worlds
// and jitter; and secret bytes from the kernel for nonces.
#pragma once

#include <sys/random.h>

#include <cstddef>
#include <cstdint>

namespace railccl {

/// Deterministic for a seed; not secret; not thread-safe.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  /// Uniform in [0, bound); bound > 0. The modulo bias is below 2^-32 for the bounds used here.
  uint64_t below(uint64_t bound) { return next() % bound; }
  /// Uniform in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  bool chance(double probability) { return uniform() < probability; }

 private:
  uint64_t state_;
};

/// Fills `bytes` from the kernel's generator; false when the kernel has none.
inline bool secret_bytes(void* data, size_t bytes) {
  return getrandom(data, bytes, 0) == static_cast<ssize_t>(bytes);
}

/// 64-bit mixing hash of a byte range (FNV-1a with a SplitMix finish); stable across machines.
inline uint64_t hash_bytes(const void* data, size_t bytes, uint64_t seed = 0) {
  uint64_t hash = 0xcbf29ce484222325ULL ^ seed;
  for (size_t i = 0; i < bytes; i++)
    hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001b3ULL;
  return Random(hash).next();
}

}  // namespace railccl
