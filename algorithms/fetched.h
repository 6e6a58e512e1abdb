// Fetched: plans over the inputs of all ranks of a host, out of which everyone can have the system
// copy (process_vm_readv).
//
// For ordinary memory of several processes: one copy where a message through shared memory makes
// two. Only for collectives that move data: a reduction has to fetch contributions into scratch
// first and results from their owners afterwards, which measured no faster than shared scratch, and
// slower where memory was the limit. The runtime has seen to it that all ranks have entered; the
// meeting in the end keeps them there while others still read from them.
#pragma once

#include "algorithms/open.h"

namespace railccl::algorithms {

/// Rounds as open_cost() has them.
inline plan::Cost fetched_cost(int ranks, double own_bytes, double fetched_bytes) {
  plan::Cost cost = open_cost(ranks, own_bytes, 0);
  cost.fetched_bytes = fetched_bytes;
  return cost;
}

}  // namespace railccl::algorithms
