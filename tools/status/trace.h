// Trace: what the processes remember of their operations, as Perfetto and Chrome's tracing read it:
// a process for each communicator, in it a track for each rank, one for what happened to its rails,
// and a counter for each rail's speed. Pure function.
#pragma once

#include <string>
#include <vector>

#include "status/view.h"

namespace railccl::status {

std::string trace_of(const std::vector<Process>& processes);

}  // namespace railccl::status
