// Topology files: a whole Topology as readable text, for RAILCCL_TOPO_FILE, bug reports and tests.
//
//     railccl-topology version=1
//     network alpha=1.5e-05 oversubscription=1
//     rail speed=5e+10 reason="leaf 0 joins nic0 of 4 hosts"
//     host name=node-0 id=0x1 cores=64 cache=33554432 copy=1e+10 inner=1e+10 inner-alpha=5e-07
//       speeds signal=6e-08 yield=7e-07 ...      (when measured)
//       numa memory=68719476736 cpus=0-31
//       gpu name=H100 numa=0
//       nic name=nic0 numa=0 speed=5e+10 up=yes neighbourhood="leaf 0" rail=0
//     rank host=0 process=0x1 numa=0 gpu=0 nic=0 rail=0
//
// Records may only refer to records above them. What is written reads back equal, doubles included.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "topology/topology.h"

namespace railccl::topology {

/// Limits of a topology file; beyond them it is refused.
inline constexpr size_t kTopologyTextMax = size_t{256} << 20;
inline constexpr int kHostsMax = 1 << 16;
inline constexpr int kRanksMax = 1 << 18;

std::string to_text(const Topology& topology);
/// Hostile-safe; failures name the line and what was expected. Code::invalid_argument.
Result<Topology> from_text(std::string_view text);

/// As above, from and to a file; failures name the file. Code::system when it cannot be read.
Result<Topology> load_topology(const std::string& path);
/// Replaces the file.
Status save_topology(const Topology& topology, const std::string& path);

}  // namespace railccl::topology
