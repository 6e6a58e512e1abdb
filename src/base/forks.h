// How often this process and those that it was forked from have forked: what was made before a fork
// is not the child's. Its threads are not there, its locks may be held for ever, and connections
// belong to the parent, too.
#pragma once

namespace railccl {

/// Forks since the first call, so equal in a process until it is a child. Any thread.
unsigned forks_so_far();

}  // namespace railccl
