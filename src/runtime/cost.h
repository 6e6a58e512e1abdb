// Cost: seconds for what a plan costs, and the least that any plan can take.
//
// The alpha-beta-gamma model (Hockney 1994 for messages, plus a term per byte touched locally):
// every term of plan::Cost times the topology's constant for it, for the slowest host. Inside a
// host whose speeds were measured (topology/speeds.h) there are six constants:
//
//   round      a flag's way between cores plus what the ranks do for a message; when the host has
//              fewer cores than ranks, also the yielding until everyone has had a turn
//   message    per byte: copied out by the sender, then copied or combined by the receiver
//   peer       per byte loaded from a peer's memory, which is in the peer's cache
//   cross      per byte, on top of these, that crosses between NUMA nodes or last-level caches
//   local      per byte copied or reduced in the own cache
//   memory     per byte of the call's buffers, once they are too big for the caches together: what
//              memory takes longer than the caches would have
//
// When a host has fewer cores than ranks, they take turns, and everything but memory takes that
// much longer. Without measured speeds the topology's coarse figures serve. Pure functions of
// agreed data: every rank gets the same figures.
#pragma once

#include "plan/plan.h"
#include "topology/topology.h"

namespace railccl::runtime {

double seconds_of(const plan::Cost& cost, const plan::Request& request,
                  const topology::Topology& topology, const plan::Tuning& tuning);

/// No algorithm can be faster: the larger of what each host's memory must carry (every input read
/// once, every output written once), what each host's NICs must carry (its cut), and one latency.
/// Counts data as coming from memory; below the cache's size real runs can beat it.
double bound_seconds(const plan::Request& request, const topology::Topology& topology);

}  // namespace railccl::runtime
