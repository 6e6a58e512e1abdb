// HostReport: what a host tells the others about itself: its NICs, limits and settings.
//
// Travels as JSON text between processes of one job. Pure data; gathering reads the system.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/settings.h"
#include "base/status.h"

namespace railccl::doctor {

struct NicReport {
  std::string name;
  std::vector<std::string> addresses;  // "10.0.1.2/24"
  std::string hardware_address;        // "02:42:..."; empty where there is none
  int mtu = 0;
  double bytes_per_s = 0;  // nominal; 0: unknown
  bool up = false;         // administratively and with a carrier
  bool usable = false;     // by the settings
};

struct GidReport {  // a row of a port's table
  int index = 0;
  std::string type;       // "RoCE v2", "IB/RoCE v1"
  bool of_subnet = true;  // made of an address that leads further than the link
};

struct RdmaReport {  // a port of an RDMA device
  std::string name;  // "mlx5_0/1"
  std::string state;
  bool ethernet = false;
  std::vector<GidReport> gids;  // those that there are
};

struct HostReport {
  std::string name;
  uint64_t id = 0;  // base/host_id.h
  std::string version;
  int processes = 1;                            // of the job on this host
  int cores = 1;                                // that the process may run on
  uint64_t files_soft = 0, files_hard = 0;      // open files
  uint64_t locked_soft = 0;                     // bytes that may be locked in memory; ~0: no limit
  uint64_t shm_bytes = 0;                       // of /dev/shm; 0: there is none
  std::string settings_error;                   // what is malformed; empty: nothing
  std::string interfaces_error;                 // why no interface can be used; empty: some can
  std::map<std::string, std::string> settings;  // NCCL_ and RAILCCL_ variables that are set
  std::vector<NicReport> nics;
  std::vector<RdmaReport> rdma;
  std::vector<uint8_t> tcp;  // the published address of its listener (transport/tcp_wire.h)
};

/// Looks at this host. Never fails: what cannot be found out is left at its default or said in one
/// of the error texts. `version`: of the library.
HostReport look_at_host(const std::string& version);

std::string encode(const HostReport& report);
/// Code::remote for text that is none. Hostile-safe.
Result<HostReport> decode_host_report(std::string_view text);

}  // namespace railccl::doctor
