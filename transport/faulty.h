// faulty: a transport that behaves as badly as the contract allows, around any other: it sends and
// receives less than it could, now and then nothing at all, and can fail a link after so many
// bytes. Seeded. For tests; production code has no hooks for it.
//
// Same threading rules as the transport inside.
#pragma once

#include <map>
#include <memory>

#include "base/random.h"
#include "transport/link.h"

namespace railccl::transport {

struct FaultOptions {
  uint64_t seed = 1;
  double short_chance = 0.3;                 // a call moves only a random part of what it could
  double idle_chance = 0.2;                  // a call moves nothing
  uint64_t fail_after_bytes = ~uint64_t{0};  // per link, both directions together
};

class FaultyTransport final : public Transport {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, FaultOptions options);
  ~FaultyTransport() override;

  const char* name() const override { return inner_->name(); }
  Capabilities capabilities() const override { return inner_->capabilities(); }
  Address address() const override { return inner_->address(); }
  Status set_peers(const Peers& peers) override { return inner_->set_peers(peers); }
  bool reaches(int peer) const override { return inner_->reaches(peer); }
  Result<Link*> link(int peer, int channel) override;
  Status progress() override { return inner_->progress(); }
  void wait(int64_t timeout_us) override;
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
  friend class FaultyLink;
  std::unique_ptr<Transport> inner_;
  const FaultOptions options_;
  Random random_;
  bool held_back_ = false;  // a call did less than it could: no sleep before the next look
  std::map<std::pair<int, int>, std::unique_ptr<Link>> links_;
};

}  // namespace railccl::transport
