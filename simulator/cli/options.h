// Options of railccl-sim.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "railccl/types.h"
#include "simulator/simulation.h"
#include "topology/topology.h"

namespace railccl::simulator {

struct SimOptions {
  Collective collective = Collective::all_reduce;
  topology::Topology topology;
  uint64_t min_bytes = 1 << 20;
  uint64_t max_bytes = 1 << 20;
  uint64_t step_bytes = 0;
  double factor = 0;
  Datatype type = Datatype::float32;
  Reduction op = Reduction::sum;
  int root = 0;
  std::string algorithm = "auto";
  int channels = 0;          // 0: chosen
  uint64_t chunk_bytes = 0;  // 0: chosen
  Options simulation;
  bool json = false;

  /// Sizes from -b to -e.
  std::vector<uint64_t> sizes() const;
};

/// False when the program is to end now, with `exit_code`: help, version, or what was wrong, which
/// has been printed.
bool parse_options(int argc, char** argv, SimOptions* options, int* exit_code);

/// "HOST/NIC" by names or indices, "TIME:HOST/NIC:FACTOR" and "RANK:FACTOR".
Result<Fault> parse_fault(const std::string& text, const topology::Topology& topology);
Result<SlowRank> parse_slow(const std::string& text);

}  // namespace railccl::simulator
