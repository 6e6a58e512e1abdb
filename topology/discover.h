// Discover: which NICs of one flat network sit on the same leaf switch, told from measurements.
//
// Where all NICs of a cluster are in one subnet, addresses say nothing about rails. What does: NICs
// of one leaf switch answer each other sooner, and carry their full rate when everybody sends at
// once, while traffic between leaves shares the spine (leaves.h judges). Bandwidth is asked first,
// since it is what rails are for, and a host's own work hides small differences of latency. Where
// neither tells, NICs are paired by their order on the host.
//
// Pure functions of their arguments; any thread. Samples come from other machines: whatever is out
// of range is passed over.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <vector>

#include "topology/topology.h"

namespace railccl::topology {

/// A NIC by place: index of its host in a list of hosts, index among the host's NICs.
struct NicAt {
  int host = 0;
  int nic = 0;
  friend auto operator<=>(const NicAt&, const NicAt&) = default;
};

/// A network whose rails addresses do not tell: one neighbourhood with several NICs of some host.
struct FlatNetwork {
  struct Port {
    int nic = 0;          // index into Host::nics
    bool up = true;       // others are not measured, but get a rail
    std::string address;  // in this network: "10.0.1.2/16"
  };
  std::string name;                      // of the neighbourhood
  std::vector<std::vector<Port>> hosts;  // [host], in order of NICs; empty for hosts not in it
  size_t ports_max() const;              // that are up, of one host
};

/// The flat network that joins the most NICs; none where neighbourhoods tell rails apart, where
/// rails are set by hand, and where there is no IP address to measure from. `hosts` as form_rails()
/// takes them.
std::optional<FlatNetwork> flat_network(const std::vector<Host>& hosts);

/// From a NIC to another.
struct Flow {
  NicAt from, to;
  friend bool operator==(const Flow&, const Flow&) = default;
};

/// Which NICs send to which at a time, round by round: every host to the next one, then, where they
/// have few NICs, to the next but one. Each NIC sends and receives once at most in a round, and
/// each pair of such hosts' NICs has its turn once. As many rounds as a host has NICs that are up
/// at most, or twice as many, however many hosts there are.
std::vector<std::vector<Flow>> probe_rounds(const FlatNetwork& network);

/// What was measured from one NIC to another. Negative: not tried; 0: it failed.
struct Sample {
  NicAt from, to;
  double bytes_per_s = -1;   // while all others send, too
  double round_trip_s = -1;  // the least of many, while nothing else goes on
};

enum class FoundBy { bandwidth, latency, order };

struct Discovery {
  FoundBy by = FoundBy::order;
  std::vector<std::vector<NicAt>> rails;  // by their first NIC; each with one NIC of a host at most
  std::vector<int> leaves;                // of each rail: equal for rails of one leaf switch
  double inside_bytes_per_s = 0, across_bytes_per_s = 0;  // medians; 0: not measured
  double inside_s = 0, across_s = 0;                      // round trips, likewise
  double oversubscription = 1;                            // of the spine, as far as it showed
  friend bool operator==(const Discovery&, const Discovery&) = default;
};

/// Rails out of samples. NICs that no sample speaks of go where their host lacks a rail, in order.
Discovery discover(const FlatNetwork& network, const std::vector<Sample>& samples);

/// Flows that load all rails at once: each NIC sends to the next host's of its own rail, or of a
/// rail on another leaf.
std::vector<Flow> flows_inside(const FlatNetwork& network, const Discovery& found);
std::vector<Flow> flows_across(const FlatNetwork& network, const Discovery& found);

/// Sets the figures of bandwidth, and the spine's share, from samples taken for this purpose: all
/// rails at once inside, then all at once to others. False when `found` goes by bandwidth and they
/// do not differ: then it is not so.
bool confirm(const std::vector<Sample>& samples, Discovery* found);

/// Writes the rails into the NICs as neighbourhoods, of which form_rails() makes rails whose
/// reasons carry the figures. `hosts` as the network lists them; what they lack is passed over.
void mark_rails(const Discovery& found, const std::vector<Host*>& hosts);

/// A sentence for the log.
std::string text_of(const Discovery& found);

}  // namespace railccl::topology
