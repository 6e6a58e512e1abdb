// Mirrored memory: a ring buffer's bytes mapped twice in a row, so that every part of the ring is
// one contiguous range, also across its end: no reader ever sees an element cut in two.
//
// Sizes are multiples of the page size. Owners unmap on destruction. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/owners.h"
#include "base/status.h"

namespace railccl::transport {

class Mirrored {
 public:
  Mirrored() = default;
  /// `bytes` of private memory, twice. Fails with Code::system when memory or address space is
  /// short.
  static Result<Mirrored> create(size_t bytes);
  /// `header` + `bytes` of a file from `offset`: the header once, the bytes twice.
  static Result<Mirrored> map(int fd, uint64_t offset, size_t header, size_t bytes);

  std::byte* header() const { return all_.bytes(); }
  std::byte* data() const { return all_.bytes() + header_bytes_; }
  size_t size() const { return bytes_; }
  explicit operator bool() const { return static_cast<bool>(all_); }

 private:
  Mapping all_;
  size_t header_bytes_ = 0;
  size_t bytes_ = 0;
};

}  // namespace railccl::transport
