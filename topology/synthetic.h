// Synthetic topologies: clusters nobody has to own, from one line of text.
//
//     hosts=4,gpus=8,rails=8,nic=50GB/s,nvlink=370GB/s,spine=1:4
//     hosts=4,gpus=8:8:4:8,nics=4:4:3:4         unequal hosts, one value per host
//     hosts=4,ranks=8,nic=100Gb/s               hosts without GPUs
//     dgx-h100:16,spine=1:2                     a named machine, then changes to it
//     cpu:4x8                                   4 hosts of 8 ranks on host memory
//     hosts=1,ranks=16,numas=2,caches=4         16 ranks, two to each of 8 last-level caches
//
// Ranks are all GPUs (or `ranks`) in host order, one process each. NIC i of a host is wired to leaf
// switch i modulo rails. For planning, simulating, tests and documentation. Pure; thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "topology/topology.h"

namespace railccl::topology {

/// Failures name the offending key and say what it takes. Code::invalid_argument.
Result<Topology> synthetic(std::string_view description);

/// One key or named machine with its meaning, for help texts and documentation.
struct SyntheticRow {
  const char* name;
  const char* meaning;
};
std::vector<SyntheticRow> synthetic_keys();
std::vector<SyntheticRow> synthetic_machines();

/// "50GB/s", "400Gb/s", "12.5MB/s": bytes per second. Decimal units; b is bits, B bytes.
Result<double> parse_speed(std::string_view text);
/// "15us", "500ns", "1.5ms", "2s": seconds.
Result<double> parse_duration(std::string_view text);

}  // namespace railccl::topology
