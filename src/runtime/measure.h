// Measure: finds out how fast this machine's cores, caches and memory are for the cost model.
//
// Threads pinned to two cores, for the memory system to up to eight, do in miniature
// what collectives do: pass flags, copy, add, read what another core wrote, yield, sleep and wake.
// The caller's own affinity is left alone. Takes about 0.5 s, 0.2 s when quick, and in any case at
// most kMeasureMsMax. Any thread; at best nobody else uses the machine meanwhile.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "topology/speeds.h"

namespace railccl::runtime {

/// Threads that measure the memory system together: on bigger machines its full speed may need
/// more, which makes the figure a safe one.
inline constexpr int kMeasuredCoresMax = 8;
/// After this long a measurement gives up (Code::timeout). On a machine with nothing else to do it
/// takes half a second; with ten other threads to each core a few.
inline constexpr int64_t kMeasureMsMax = 10'000;

enum class Effort : uint8_t { quick, full };

/// `last_level_cache_bytes`: of one such cache, 0 = unknown.
Result<topology::Speeds> measure(const std::vector<int>& cpus, uint64_t last_level_cache_bytes,
                                 Effort effort);

}  // namespace railccl::runtime
