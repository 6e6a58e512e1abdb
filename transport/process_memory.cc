// Process memory: the system call.
#include "transport/process_memory.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace railccl::transport {

int64_t own_process() { return getpid(); }

Status read_process_memory(int64_t process, void* to, uintptr_t from, size_t bytes) {
  auto* at = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const iovec here = {at, bytes};
    const iovec there = {reinterpret_cast<void*>(from), bytes};
    const ssize_t got = process_vm_readv(static_cast<pid_t>(process), &here, 1, &there, 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      // Nothing, without an error: the next page is missing.
      const int error = got == 0 ? EFAULT : errno;
      return Status(Code::remote, Scope::communicator,
                    "cannot read {} bytes from {:#x} on of process {}: {}", bytes, from, process,
                    error == EFAULT ? "there is no such memory, or none that may be copied"
                                    : std::strerror(error));
    }
    at += got;
    from += static_cast<uintptr_t>(got);
    bytes -= static_cast<size_t>(got);
  }
  return ok();
}

bool can_read(const Landmark& landmark) {
  uint64_t seen = 0;
  return read_process_memory(landmark.process, &seen, landmark.address, sizeof seen).is_ok() &&
         seen == landmark.value;
}

}  // namespace railccl::transport
