// The single probes behind probe.h, each adding what it can see to the Facts of this rank.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/settings.h"
#include "base/status.h"
#include "topology/facts.h"

namespace railccl::topology {

/// Where a probe looks for sysfs. Tests point it at a recorded tree.
inline constexpr const char* kSysfs = "/sys";

/// From the operating system's number of a NUMA node (may have gaps) to its index in Host::numas.
using NumaIndex = std::map<int, int>;

/// NUMA nodes, cores, last-level cache, and where the calling thread may run.
Status probe_hwloc(Facts& facts, NumaIndex& numas);

/// Network interfaces as NICs: those the settings select, and those that would be if they were up.
Status probe_interfaces(const Settings& settings, const NumaIndex& numas, Facts& facts);

/// RDMA devices: joined to the NIC of their network interface, or NICs of their own when they have
/// no interface (InfiniBand without IP). Those whose interface was not selected are left out.
Status probe_rdma(const std::string& sysfs, const NumaIndex& numas, Facts& facts);

/// GPUs through NVML, loaded at run time; adds nothing where there is no driver.
Status probe_nvml(const std::string& sysfs, const NumaIndex& numas, Facts& facts);

/// Where a PCI device sits.
struct PciPlace {
  std::string address;   // "0000:17:00.0"; empty for a device that is not behind PCI
  std::string upstream;  // the bridges above it, root first, separated by slashes
  int numa = -1;         // index into Host::numas
};

/// The place of what `path` (a sysfs device directory or a link to one) is part of.
PciPlace pci_place(const std::string& path, const NumaIndex& numas);

/// First line of a file, without blanks at its end; empty when it cannot be read.
std::string read_line(const std::string& path);

}  // namespace railccl::topology
