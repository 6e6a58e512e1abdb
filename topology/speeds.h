// Speeds: what the cost model needs to know about a host's cores, caches and memory, as measured
// there (never from a table about another machine). One table gives the members, the text of
// topology files, the cache file and what railccl-topo shows. Plain values.
#pragma once

#include <cstdint>

namespace railccl::topology {

// RAILCCL_SPEEDS(X): X(member, key in texts, unit, meaning)
// Rates and times are those that a quarter of the samples were better than: other load only ever
// slows a machine down, so the middle would say more about the load than about the machine.
#define RAILCCL_SPEEDS(X)                                                                        \
  X(signal_s, "signal", seconds, "a flag's way from one core to another that spins")             \
  X(yield_s, "yield", seconds, "handing one core over to another thread by yielding")            \
  X(wake_s, "wake", seconds, "waking a thread that sleeps on another core")                      \
  X(copy_bytes_per_s, "copy", bytes_per_s, "one core copying in its own cache, bytes copied")    \
  X(reduce_bytes_per_s, "reduce", bytes_per_s,                                                   \
    "one core adding two floats in its own cache, bytes of the sum")                             \
  X(peer_small_bytes_per_s, "peer-small", bytes_per_s,                                           \
    "copying 64 KiB that another core has just written, bytes copied")                           \
  X(peer_large_bytes_per_s, "peer-large", bytes_per_s,                                           \
    "copying 1 MiB that another core has just written, bytes copied")                            \
  X(fetch_small_bytes_per_s, "fetch-small", bytes_per_s,                                         \
    "two cores having the system copy 64 KiB that the other has just written, bytes copied")     \
  X(fetch_large_bytes_per_s, "fetch-large", bytes_per_s, "the same with 1 MiB")                  \
  X(message_bytes_per_s, "message", bytes_per_s,                                                 \
    "two cores sending each other 128 KiB through memory, bytes of a message")                   \
  X(cross_bytes_per_s, "cross", bytes_per_s,                                                     \
    "the same across NUMA nodes or caches; where nothing is across, as message")                 \
  X(core_traffic_bytes_per_s, "core-traffic", bytes_per_s,                                       \
    "one core copying outside the caches, bytes read and written")                               \
  X(core_streaming_bytes_per_s, "core-streaming", bytes_per_s, "the same with streaming stores") \
  X(host_traffic_bytes_per_s, "host-traffic", bytes_per_s,                                       \
    "all cores copying outside the caches, bytes read and written")                              \
  X(host_streaming_bytes_per_s, "host-streaming", bytes_per_s, "the same with streaming stores")

enum class SpeedUnit : uint8_t { seconds, bytes_per_s };

struct Speeds {
#define RAILCCL_ROW(member, key, unit, meaning) double member = 0;
  RAILCCL_SPEEDS(RAILCCL_ROW)
#undef RAILCCL_ROW

  /// All are known, or none is.
  bool known() const { return signal_s > 0; }
  friend bool operator==(const Speeds&, const Speeds&) = default;
};

struct SpeedRow {
  double Speeds::*member;
  const char* name;  // "signal_s"
  const char* key;   // "signal"
  SpeedUnit unit;
  const char* meaning;
};

inline constexpr SpeedRow kSpeedRows[] = {
#define RAILCCL_ROW(member, key, unit, meaning) \
  {&Speeds::member, #member, key, SpeedUnit::unit, meaning},
    RAILCCL_SPEEDS(RAILCCL_ROW)
#undef RAILCCL_ROW
};

/// What a speed may be at all; beyond it a text or file is wrong.
constexpr bool plausible(const SpeedRow& row, double value) {
  return row.unit == SpeedUnit::seconds ? value >= 1e-10 && value <= 1
                                        : value >= 1e5 && value <= 1e15;
}

}  // namespace railccl::topology
