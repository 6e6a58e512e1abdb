// Facts: what one rank knows about its host and its own place on it, before anyone else is asked.
//
// Every rank detects its Facts (probe.h), all ranks exchange them as text at initialisation, and
// merge.h makes the same Topology of them everywhere. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "topology/topology.h"

namespace railccl::topology {

struct Facts {
  /// As seen by this rank. Nic::rail is -1 unless RAILCCL_RAILS set it by hand; neighbourhoods are
  /// empty unless something better than an address is known (an InfiniBand subnet, a leaf switch).
  Host host;
  uint64_t process = 0;  // process_id() of base/host_id.h
  int numa = -1;         // the NUMA node this rank is bound to; -1 when it may run on several
  int cache = -1;        // its last-level cache, likewise; named by the lowest CPU that shares it
  std::string cpus;      // what it may run on, Linux list form
  int gpu = -1;          // index into host.gpus; -1 for a rank on host memory
  friend bool operator==(const Facts&, const Facts&) = default;
};

/// Longest text decode() looks at. A host with 8 GPUs and 10 NICs takes about 3 KB.
inline constexpr size_t kFactsTextMax = size_t{1} << 20;

std::string encode(const Facts& facts);
/// Reads what a peer sent. Hostile-safe: bounded memory, every index checked; a failure names the
/// line and the field. Code::invalid_argument.
Result<Facts> decode(std::string_view text);

}  // namespace railccl::topology
