// MemoryFile: memory that the process can give to processes of the same host, as ncclMemAlloc
// makes.
//
// A memfd without a name, mapped here. Whoever gets the descriptor maps the same pages, and keeps
// them valid for as long as it likes: the file is sealed against shrinking, so that neither the
// owner's release nor its death takes mapped pages away from a peer. All live files of the process
// are in one registry, by address.
//
// Where memfds are not to be had, or half of the process's descriptors are in use, the memory is
// private, works the same, and is never shared.
//
// It is registered memory, too (registered_memory.h), until release().
//
// Thread-safe. A file lives until release() and the last shared_ptr; so a find() that races with a
// release gives a file that is still whole. Ids are never used again within a process.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/owners.h"
#include "base/status.h"
#include "transport/registered_memory.h"

namespace railccl::transport {

class MemoryFile {
 public:
  /// Zero-filled memory of at least `bytes` (>= 1), aligned to a page; large ones to 2 MiB and on
  /// huge pages where the machine allows them. Pages are committed when first touched.
  /// Code::system when the memory, address space or file size are not to be had.
  static Result<std::shared_ptr<MemoryFile>> create(size_t bytes);
  /// Takes the file that starts at `address` out of the registry; false when there is none.
  static bool release(void* address);
  /// The shareable file that holds all of [address, address + bytes), or null.
  static std::shared_ptr<MemoryFile> find(const void* address, size_t bytes);
  /// Changes with every create() and release(): what find() said holds while it stays the same.
  static uint64_t generation();

  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  uint64_t id() const { return id_; }
  std::byte* data() const { return mapping_.bytes(); }
  size_t size() const { return mapping_.size(); }
  bool shareable() const { return static_cast<bool>(file_); }
  int fd() const { return file_.get(); }
  /// Another process has been given the file: from now on the end of it gives its pages back at
  /// once, although the peer may keep the mapping for a while.
  void note_shared() { shared_.store(true, std::memory_order_relaxed); }

 private:
  MemoryFile() = default;
  uint64_t id_ = 0;
  UniqueFd file_;
  Mapping mapping_;
  std::atomic<bool> shared_{false};
  std::shared_ptr<const RegisteredMemory> registered_;  // until release()
};

/// Maps `bytes` of a descriptor that a peer sent. Code::remote unless it is a memfd of exactly that
/// size, sealed against shrinking: touching the mapping can then not fail. The descriptor is not
/// needed any more afterwards.
Result<std::shared_ptr<const Mapping>> map_peer_file(int fd, uint64_t bytes);

}  // namespace railccl::transport
