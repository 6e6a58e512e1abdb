// Process memory: reading another process's memory by the system's own copy (process_vm_readv(2)).
//
// One copy and no preparation, for any memory of the other process. The kernel allows it within a
// user's processes where nothing forbids it (Yama's ptrace_scope, seccomp filters, other users or
// process namespaces), which only trying can tell. Thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace railccl::transport {

/// This process as others name it.
int64_t own_process();

/// Copies `bytes` from address `from` of `process` to `to`. Fails with the reason when the process
/// is gone, forbids it or has not got all of that memory; `to` holds no promise then.
Status read_process_memory(int64_t process, void* to, uintptr_t from, size_t bytes);

/// A word in a process's memory with a random value, by which others see whether they can read
/// there, and that it is the right process: numbers mean other processes in other namespaces.
struct Landmark {
  int64_t process = 0;
  uint64_t address = 0;
  uint64_t value = 0;
};
bool can_read(const Landmark& landmark);

}  // namespace railccl::transport
