// The links of traced.
#include "transport/traced.h"

#include "base/clock.h"

namespace railccl::transport {

class TracedLink final : public Link {
 public:
  explicit TracedLink(Link* inner) : inner_(inner) {}

  Result<size_t> send(std::span<const iovec> ranges) override {
    RAILCCL_TRY(const size_t sent, inner_->send(ranges));
    note(&sent_, sent);
    return sent;
  }
  uint64_t released() const override { return inner_->released(); }
  Result<bool> flush() override { return inner_->flush(); }
  Result<std::span<const std::byte>> peek(size_t want) override {
    RAILCCL_TRY(const std::span<const std::byte> view, inner_->peek(want));
    if (view.empty()) note(&received_, 0);
    return view;
  }
  void consume(size_t bytes) override {
    note(&received_, bytes);
    inner_->consume(bytes);
  }
  Result<size_t> receive(void* dst, size_t bytes) override {
    RAILCCL_TRY(const size_t got, inner_->receive(dst, bytes));
    note(&received_, got);
    return got;
  }
  Status state() const override { return inner_->state(); }
  std::string name() const override { return inner_->name(); }

  const Traffic& sent() const { return sent_; }
  const Traffic& received() const { return received_; }

 private:
  static void note(Traffic* traffic, size_t bytes) {
    traffic->calls++;
    if (bytes == 0) {
      traffic->idle_calls++;
      return;
    }
    traffic->last_ns = now_ns();
    if (traffic->bytes == 0) traffic->first_ns = traffic->last_ns;
    traffic->bytes += bytes;
  }
  Link* inner_;
  Traffic sent_;
  Traffic received_;
};

TracedTransport::TracedTransport(std::unique_ptr<Transport> inner)
    : TransportWrapper(std::move(inner)) {}

TracedTransport::~TracedTransport() = default;

Result<Link*> TracedTransport::link(int peer, int channel) {
  RAILCCL_TRY(Link* const link, inner().link(peer, channel));
  std::unique_ptr<TracedLink>& slot = links_[{peer, channel}];
  if (slot == nullptr) slot = std::make_unique<TracedLink>(link);
  return static_cast<Link*>(slot.get());
}

std::vector<LinkTrace> TracedTransport::traces() const {
  std::vector<LinkTrace> traces;
  for (const auto& [key, link] : links_)
    traces.push_back({key.first, key.second, link->name(), link->sent(), link->received()});
  return traces;
}

}  // namespace railccl::transport
