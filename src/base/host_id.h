// Who shares what with whom: ids of this host, of its machine and of this process.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/settings.h"

namespace railccl {

/// Equal for processes that can share memory and name each other's sockets, different otherwise:
/// a hash of host name, boot id, network namespace and the device behind /dev/shm (two containers
/// of one machine differ in the latter). NCCL_HOSTID replaces all of it. Never 0. Thread-safe.
uint64_t host_id(const Settings& settings);

/// Equal for processes that have the same cores to run on, also in different containers: a hash of
/// the boot id and of `cores`, the text of what the processes may use of the machine. Never 0.
/// Thread-safe.
uint64_t machine_id(std::string_view cores);

/// Equal for the threads of one process only, also after fork and across containers: a hash of the
/// boot id, the pid namespace, the process id and its start time. Never 0. Thread-safe.
uint64_t process_id();

}  // namespace railccl
