// How railccl-topo shows a topology: as a tree, as reasons, as JSON.
#pragma once

#include <string>

#include "topology/topology.h"

namespace railccl::tools {

/// Cluster, machines and rails as a tree of lines. Hosts that are built as the one before are
/// folded into a line unless `all`.
std::string tree_of(const topology::Topology& topology, bool all);

/// Why each rail was formed, why NICs are on none, and which NIC each rank got.
std::string reasons_of(const topology::Topology& topology);

/// Everything, as one JSON object, indented.
std::string json_of(const topology::Topology& topology);

}  // namespace railccl::tools
