// traced: counts what goes over each link of a transport, around any other: bytes, calls, calls
// that moved nothing, and when the first and last byte went.
//
// Same threading rules as the transport inside; traces() belongs to the same thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transport/link.h"

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

class TracedTransport final : public Transport {
 public:
  explicit TracedTransport(std::unique_ptr<Transport> inner);
  ~TracedTransport() override;

  /// All links asked for so far, by peer and channel.
  std::vector<LinkTrace> traces() const;

  const char* name() const override { return inner_->name(); }
  Capabilities capabilities() const override { return inner_->capabilities(); }
  Address address() const override { return inner_->address(); }
  Status set_peers(const Peers& peers) override { return inner_->set_peers(peers); }
  bool reaches(int peer) const override { return inner_->reaches(peer); }
  Result<Link*> link(int peer, int channel) override;
  Status progress() override { return inner_->progress(); }
  void wait(int64_t timeout_us) override { inner_->wait(timeout_us); }
  void wake() override { inner_->wake(); }
  Result<std::byte*> shared_memory(size_t bytes) override { return inner_->shared_memory(bytes); }
  Result<std::byte*> peer_memory(int peer, size_t bytes) override {
    return inner_->peer_memory(peer, bytes);
  }
  Offer offer(const std::shared_ptr<MemoryFile>& file) override { return inner_->offer(file); }
  Result<std::shared_ptr<const Mapping>> offered(int peer, uint64_t id) override {
    return inner_->offered(peer, id);
  }
  void abort(const Status& why) override { inner_->abort(why); }

 private:
  std::unique_ptr<Transport> inner_;
  std::map<std::pair<int, int>, std::unique_ptr<class TracedLink>> links_;
};

}  // namespace railccl::transport
