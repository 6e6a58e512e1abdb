// Merge: the facts of all ranks become one Topology, the same on every rank.
//
// Ranks with equal host ids share a host (the lowest of them describes it); ranks with equal
// process ids are threads of one process. Rails are formed (rails.h), then each rank gets a NIC:
// among the host's NICs that are up, preferably on a rail and not far slower than the best, the
// nearest one by PCI and NUMA, with no NIC serving more ranks than an even spread needs. Ranks at
// equal distance take rail `local index modulo rails`, so that same-numbered ranks of all hosts
// meet on one rail. Pure functions; safe from any thread.
#pragma once

#include <string>
#include <vector>

#include "topology/facts.h"
#include "topology/topology.h"

namespace railccl::topology {

/// `facts[r]` is rank r's; `oversubscription` of the spine, where a probe found it out.
Topology merge(const std::vector<Facts>& facts, double oversubscription = 1);

/// Whose facts describe the hosts, in the order of the hosts in the merged topology.
std::vector<size_t> describers_of(const std::vector<Facts>& facts);

/// What merge() does once hosts are told apart: forms rails, assigns NICs. `ranks` carry host,
/// process, numa and gpu; nic and rail are set here.
Topology assemble(std::vector<Host> hosts, std::vector<Rank> ranks, double network_alpha_s = 15e-6,
                  double oversubscription = 1);

/// How far a rank and a NIC of its host are apart.
enum class Distance : int { same_switch = 0, same_numa = 1, unknown = 2, other_numa = 3 };
const char* name_of(Distance distance);
Distance distance_of(const Host& host, const Rank& rank, const Nic& nic);

/// Why rank r got its NIC (or none), as a sentence; for people.
std::string why_nic(const Topology& topology, int r);

}  // namespace railccl::topology
