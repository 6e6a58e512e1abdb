// Which devices UCX shall use for which paths.
//
// UCX chooses among all devices that it is given, and uses several at a time, but does not go on
// with the others when one fails. So each of our paths gets the devices of one NIC: the interface,
// and the RDMA ports that belong to it, by the names that UCX has for them (UCX_NET_DEVICES).
//
// Reads sysfs; keeps nothing. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/settings.h"
#include "base/status.h"

namespace railccl::transport {

struct UcxDevices {
  std::string nic;    // the name by which others know it
  std::string names;  // "eth1,mlx5_1:1"
  friend bool operator==(const UcxDevices&, const UcxDevices&) = default;
};

/// An RDMA port that is active.
struct UcxPort {
  std::string device;
  int number = 1;
  std::string interface;  // that it belongs to; empty: none
};

/// The ports of `root`/sys/class/infiniband that are active, in the order of their names.
std::vector<UcxPort> active_ports(const std::string& root = "");

/// One row for each of the interfaces, nearest first, with its ports; then one for each port of
/// other interfaces, or none. Where any has a port, those without are left out. NCCL_IB_HCA says
/// which ports, NCCL_IB_DISABLE none. Where UCX_NET_DEVICES is set it is the only row.
Result<std::vector<UcxDevices>> ucx_devices(const Settings& settings,
                                            const std::vector<std::string>& interfaces,
                                            const std::vector<UcxPort>& ports);

}  // namespace railccl::transport
