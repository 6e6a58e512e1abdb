// Probes: what this rank finds out about its host.
#pragma once

#include "base/settings.h"
#include "base/status.h"
#include "topology/facts.h"

namespace railccl::topology {

/// Runs all probes: hwloc (NUMA, caches, cores, binding of the calling thread), sysfs (network
/// interfaces that NCCL_SOCKET_IFNAME allows, PCI places), RDMA devices, NVML when there is a
/// driver; then RAILCCL_RAILS. Takes 10-100 ms. Thread-safe. Fails when hwloc cannot see the
/// machine or a setting is malformed; a host without any network is fine and has no NICs.
Result<Facts> detect(const Settings& settings);

}  // namespace railccl::topology
