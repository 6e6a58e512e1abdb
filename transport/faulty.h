// faulty: a transport that behaves as badly as the contract allows, around any other: it sends and
// receives less than it could, now and then nothing at all, and can fail a link after so many
// bytes. Seeded. For tests; production code has no hooks for it.
//
// Same threading rules as the transport inside.
#pragma once

#include <map>
#include <memory>

#include "base/random.h"
#include "transport/wrapper.h"

namespace railccl::transport {

struct FaultOptions {
  uint64_t seed = 1;
  double short_chance = 0.3;                 // a call moves only a random part of what it could
  double idle_chance = 0.2;                  // a call moves nothing
  uint64_t fail_after_bytes = ~uint64_t{0};  // per link, both directions together
};

class FaultyTransport final : public TransportWrapper {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, FaultOptions options);
  ~FaultyTransport() override;

  Result<Link*> link(int peer, int channel) override;
  void wait(int64_t timeout_us) override;

 private:
  friend class FaultyLink;
  const FaultOptions options_;
  Random random_;
  bool held_back_ = false;  // a call did less than it could: no sleep before the next look
  std::map<std::pair<int, int>, std::unique_ptr<Link>> links_;
};

}  // namespace railccl::transport
