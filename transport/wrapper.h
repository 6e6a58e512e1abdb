// TransportWrapper: a transport around another one, to which everything goes that is not
// overridden. For what looks at traffic or disturbs it.
//
// Threads: as the one inside.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transport/link.h"

namespace railccl::transport {

class TransportWrapper : public Transport {
 public:
  const char* name() const override { return inner_->name(); }
  Capabilities capabilities() const override { return inner_->capabilities(); }
  Address address() const override { return inner_->address(); }
  Status set_peers(const Peers& peers) override { return inner_->set_peers(peers); }
  bool reaches(int peer) const override { return inner_->reaches(peer); }
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
  bool settled() override { return inner_->settled(); }
  std::vector<NicSpeed> speeds() const override { return inner_->speeds(); }
  void look_anew() override { inner_->look_anew(); }
  PathReport report() const override { return inner_->report(); }
  void abort(const Status& why) override { inner_->abort(why); }

 protected:
  explicit TransportWrapper(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}
  Transport& inner() { return *inner_; }

 private:
  std::unique_ptr<Transport> inner_;
};

}  // namespace railccl::transport
