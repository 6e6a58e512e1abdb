// Find rails: where addresses do not tell which NICs share a leaf switch, the hosts measure it.
//
// Collective over all ranks of a new communicator; the lowest rank of each host does the measuring,
// the others wait in the exchanges. Nothing happens where subnets separate the rails, where rails
// are set by hand, with one host, or one NIC per host (topology/discover.h: flat_network). Else
// rank 0 offers what it remembers of this fabric (rails_file.h), and without that all hosts probe:
//
//   1. round trips between each host's NICs and those of the next hosts, for 60 ms;
//   2. rounds in which every NIC sends to one NIC of the next host, all at the same time: traffic
//      within leaves runs at full rate, what crosses the spine shares it; by and by all pairs;
//   3. rank 0 makes rails of that, and two more rounds try them: all inside, all to other leaves.
//
// A round takes 20 to 60 ms, all together less than a second, however many hosts there are; each
// NIC sends for less than half a second in all, and at most 1 GiB per round. Then everyone has
// rank 0's verdict. A host that cannot take part, or connections that fail, make the result poorer
// (its NICs go where rails are left for them), and without any result the network is one rail as
// before; the log says why. Only what ends the communicator anyway, a rank that dies, is an error.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/settings.h"
#include "base/status.h"
#include "topology/discover.h"

namespace railccl::runtime {

/// One rank's part.
struct RailSearch {
  int rank = 0;
  uint64_t job = 0;                   // the communicator's secret
  std::vector<topology::Host> hosts;  // as merged; equal on all ranks
  std::vector<int> probers;           // of each host the rank that measures
  /// Everyone's bytes, in the order of ranks; collective.
  std::function<Result<std::vector<std::string>>(const std::string&)> exchange;
};

/// RAILCCL_PROBE is one of auto, force, off?
Status check_probe_setting(const Settings& settings);

/// The same on all ranks; nothing where there is nothing to find, or nothing was found.
Result<std::optional<topology::Discovery>> find_rails(const Settings& settings,
                                                      const RailSearch& search);

/// What hosts tell of one phase: values by number of the flow. Hostile-safe: what does not parse,
/// or is no such number, is left out.
std::string encode_values(const std::map<uint64_t, double>& values);
std::map<uint64_t, double> decode_values(const std::string& bytes);

}  // namespace railccl::runtime
