// Init: how communicators come about, the subcommand of railccl-bench that measures no collective.
#pragma once

#include <nccl.h>

#include "launch/launch.h"
#include "options.h"

namespace railccl::bench {

/// A fresh unique id, the same in all processes. Ends the process with a message when there is
/// none.
ncclUniqueId next_id(launch::Job& job);

/// Makes communicators of all ranks, one after the other, and prints of each a line: the time from
/// the first rank's call to the last rank's return, messages of the rank that has most, and memory
/// per rank that nobody has talked to yet. Returns the process's exit code.
int run_init(const Options& options, launch::Job& job);

}  // namespace railccl::bench
