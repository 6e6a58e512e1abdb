// Path: one of several ways a link's bytes can take, as multipath sees it: an ordered pipe of bytes
// both ways that can break, and that says how far its bytes have come.
//
// One thread at a time, that of the link.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

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
  /// For how long it may acknowledge nothing, with bytes under way, before it is taken for broken:
  /// kSilentNs, and some round trips where these are long. Less where it knows better, but never
  /// less than kSilentLeastNs: processors are busy, too.
  virtual int64_t patience_ns() { return std::max(kSilentNs, kSilentRoundTrips * round_trip_ns()); }
  /// What it carries while it has work; 0: unknown.
  virtual double bytes_per_s() = 0;
  /// Reads into the ranges; 0: nothing now. Fails when the path is broken or the far end closed it
  /// and everything was read.
  virtual Result<size_t> read(std::span<const iovec> ranges) = 0;
  /// What was read is acknowledged to the far end now: it waits for that. Where acknowledgements
  /// never wait for company there is nothing to do.
  virtual void acknowledge() {}

  /// A receiver that does not read holds its acknowledgements back for 40 ms (Linux:
  /// TCP_DELACK_MIN).
  static constexpr int64_t kSilentNs = 60'000'000, kSilentLeastNs = 20'000'000;
  static constexpr int64_t kSilentRoundTrips = 4;
};

/// A path by one of our NICs, with what links and transports have to know of it.
class NicPath : public Path {
 public:
  /// Our interface's name.
  virtual const std::string& nic() const = 0;
  /// "10.0.0.4:5123, eth1": the far end, and our interface.
  virtual const std::string& name() const = 0;
  virtual uint64_t written() const = 0;
  /// Of the bytes written, how many it needs no more where it was given them.
  virtual uint64_t released() const { return written(); }
  /// Bytes that were read from it, frames included.
  virtual uint64_t received() const = 0;
  /// What became of it since it was made.
  struct Usage {
    uint64_t bytes = 0;     // come across; an estimate, which may shrink by a packet or two
    bool busy = false;      // has it anything to send now, or under way?
    int64_t busy_us = 0;    // while it had
    int64_t waited_us = 0;  // of these, for the far end to make room

    uint64_t bytes_since(const Usage& earlier) const {
      return bytes > earlier.bytes ? bytes - earlier.bytes : 0;
    }
  };
  virtual Usage usage() const = 0;
  /// What epoll (edge-triggered) said of the connection that is the path, or that it was made over.
  virtual void on_events(uint32_t events) = 0;
  /// No more bytes from us; the far end's can still be read, for some seconds.
  virtual void close_writing() = 0;
  /// Did the far end's process close it? (Else the network failed.)
  virtual bool closed_by_peer() const = 0;
  /// Measures bytes_per_s() anew when it has carried enough since the last time; did it?
  virtual bool measure() = 0;
  /// Does it go on sending what was written when nobody calls it any more?
  virtual bool flushed() const { return true; }
  /// Will what was written arrive even if this process ends now? Asks the far end where needed.
  virtual bool settled() = 0;
};

}  // namespace railccl::transport
