// Host records: how a Host with its NUMA nodes, GPUs and NICs is written as records and read back;
// shared by topology files (text.h) and exchanged facts (facts.h).
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "topology/records.h"
#include "topology/topology.h"

namespace railccl::topology {

// Limits that keep a hostile text from asking for more than a machine could ever have.
inline constexpr int kPartsPerHostMax = 1024;  // NUMA nodes, GPUs, NICs: each
inline constexpr int kCpuMax = 1 << 20;        // the operating system's number of a CPU
inline constexpr int kRailsMax = 4096;
inline constexpr int kAddressesPerNicMax = 64;

/// Appends the host's record and those of its parts, one line each.
void write_host(const Host& host, std::string& text);

/// Reads a "host" record; its parts follow in records of their own.
Result<Host> read_host(RecordReader& record);

/// Speeds as one record, and back; for exchanges that are about nothing else. Hostile-safe.
std::string speeds_to_text(const Speeds& speeds);
Result<Speeds> speeds_from_text(std::string_view text);

/// Is this the word of a part of a host (speeds, numa, gpu, nic)?
bool is_host_part(std::string_view word);

/// Reads a part and adds it to `host`. NUMA nodes must come before what refers to them; rails must
/// be below `rails`.
Status read_host_part(RecordReader& record, int rails, Host& host);

}  // namespace railccl::topology
