// Mapping one range of memory twice in a row.
#include "transport/mirrored.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace railccl::transport {
namespace {

// Address space of `bytes` that nothing else will be mapped into.
Result<Mapping> reserve(size_t bytes) {
  void* base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return system_error(errno, fmt::format("cannot reserve {} bytes of address space", bytes));
  }
  return Mapping(base, bytes);
}

}  // namespace

Result<Mirrored> Mirrored::create(size_t bytes) {
  RAILCCL_TRY(Mapping all, reserve(2 * bytes));
  if (mmap(all.get(), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
           0) == MAP_FAILED) {
    return system_error(errno, fmt::format("cannot map {} bytes", bytes));
  }
  // An old size of 0 on a shared mapping asks for a second mapping of the same pages (mremap(2)).
  // Not by the C library's function: where UCX before 1.15 is in the process, which it may be for
  // others' sake, it has put its own in place of that, which loses the last argument.
  if (syscall(SYS_mremap, all.get(), 0, bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
              all.bytes() + bytes) == -1) {
    return system_error(errno, fmt::format("cannot map {} bytes twice", bytes));
  }
  Mirrored mirrored;
  mirrored.all_ = std::move(all);
  mirrored.bytes_ = bytes;
  return mirrored;
}

Result<Mirrored> Mirrored::map(int fd, uint64_t offset, size_t header, size_t bytes) {
  RAILCCL_TRY(Mapping all, reserve(header + 2 * bytes));
  const int protection = PROT_READ | PROT_WRITE;
  // Page faults now, not one after the other while messages wait.
  const int flags = MAP_SHARED | MAP_FIXED | MAP_POPULATE;
  if (mmap(all.get(), header + bytes, protection, flags, fd, static_cast<off_t>(offset)) ==
          MAP_FAILED ||
      mmap(all.bytes() + header + bytes, bytes, protection, flags, fd,
           static_cast<off_t>(offset + header)) == MAP_FAILED) {
    return system_error(errno, fmt::format("cannot map a ring of {} bytes", bytes));
  }
  Mirrored mirrored;
  mirrored.all_ = std::move(all);
  mirrored.header_bytes_ = header;
  mirrored.bytes_ = bytes;
  return mirrored;
}

}  // namespace railccl::transport
