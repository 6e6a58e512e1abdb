// Cost: seconds for what a plan costs, and the least that any plan can take.
//
// The alpha-beta-gamma model (Hockney 1994 for messages, plus a term per byte touched locally):
// every term of plan::Cost times the topology's constant for it, for the slowest host. When a host
// has fewer cores than ranks, they take turns, and everything local takes that much longer.
// Pure functions of agreed data: every rank gets the same figures.
#pragma once

#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::runtime {

double seconds_of(const plan::Cost& cost, const topology::Topology& topology,
                  const plan::Tuning& tuning);

/// No algorithm can be faster: the larger of what each host's memory must carry (every input read
/// once, every output written once), what each host's NICs must carry (its cut), and one latency.
/// Counts data as coming from memory; below the cache's size real runs can beat it.
double bound_seconds(const plan::Request& request, const topology::Topology& topology);

}  // namespace railccl::runtime
