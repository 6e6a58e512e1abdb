// Proves a plan right for all ranks at once, and counts what it moves where. Private to this room.
#pragma once

#include "runtime/chooser.h"
#include "runtime/communicator.h"

namespace railccl::runtime {

/// Builds the program of every rank and has the checker run them together: costs what building and
/// running costs on all ranks, so it is not for hot paths. Fails where the plan is wrong.
Result<Proof> prove(const Chosen& chosen, const plan::Request& request,
                    const topology::Topology& topology);

}  // namespace railccl::runtime
