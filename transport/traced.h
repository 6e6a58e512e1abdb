// traced: counts what goes over each link of a transport, around any other: bytes, calls, calls
// that moved nothing, and when the first and last byte went.
//
// Same threading rules as the transport inside; traces() belongs to the same thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transport/wrapper.h"

namespace railccl::transport {

/// One direction of one link. Times are now_ns(), 0 while nothing has moved.
struct Traffic {
  uint64_t bytes = 0;
  uint64_t calls = 0;
  uint64_t idle_calls = 0;  // of these, calls that moved nothing
  int64_t first_ns = 0;
  int64_t last_ns = 0;
};

struct LinkTrace {
  int peer = 0;
  int channel = 0;
  std::string name;
  Traffic sent;
  Traffic received;  // as consumed by the caller
};

class TracedTransport final : public TransportWrapper {
 public:
  explicit TracedTransport(std::unique_ptr<Transport> inner);
  ~TracedTransport() override;

  /// All links asked for so far, by peer and channel.
  std::vector<LinkTrace> traces() const;

  Result<Link*> link(int peer, int channel) override;

 private:
  std::map<std::pair<int, int>, std::unique_ptr<class TracedLink>> links_;
};

}  // namespace railccl::transport
