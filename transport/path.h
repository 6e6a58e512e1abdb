// Path: one of several ways a link's bytes can take, as multipath sees it: an ordered pipe of bytes
// both ways that can break, and that says how far its bytes have come.
//
// One thread at a time, that of the link.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/status.h"

namespace railccl::transport {

class Path {
 public:
  virtual ~Path() = default;
  /// Writes a prefix of the ranges; 0: no room now. Fails when the path is broken.
  virtual Result<size_t> write(std::span<const iovec> ranges) = 0;
  /// Of all bytes written, how many the far end's system has: they can be read there even if the
  /// path breaks now.
  virtual uint64_t acknowledged() = 0;
  /// Are bytes on their way, not acknowledged? False when the far end takes no more for now.
  virtual bool under_way() = 0;
  /// How long there and back takes lately; 0: unknown.
  virtual int64_t round_trip_ns() = 0;
  /// What it carries while it has work; 0: unknown.
  virtual double bytes_per_s() = 0;
  /// Reads into the ranges; 0: nothing now. Fails when the path is broken or the far end closed it
  /// and everything was read.
  virtual Result<size_t> read(std::span<const iovec> ranges) = 0;
  /// What was read is acknowledged to the far end now: it waits for that. Where acknowledgements
  /// never wait for company there is nothing to do.
  virtual void acknowledge() {}
};

}  // namespace railccl::transport
