// The links of faulty.
#include "transport/faulty.h"

#include <algorithm>
#include <array>

namespace railccl::transport {

class FaultyLink final : public Link {
 public:
  FaultyLink(FaultyTransport* transport, Link* inner) : transport_(transport), inner_(inner) {}

  Result<size_t> send(std::span<const iovec> ranges) override {
    RAILCCL_CHECK(failure());
    size_t total = 0;
    for (const iovec& range : ranges) total += range.iov_len;
    size_t allowed = allow(total);
    std::array<iovec, 4> cut{};
    size_t count = 0;
    for (const iovec& range : ranges) {
      cut[count] = {range.iov_base, std::min(range.iov_len, allowed)};
      allowed -= cut[count++].iov_len;
    }
    RAILCCL_TRY(const size_t sent, inner_->send({cut.data(), count}));
    moved_ += sent;
    return sent;
  }
  uint64_t released() const override { return inner_->released(); }
  Result<bool> flush() override {
    RAILCCL_CHECK(failure());
    return inner_->flush();
  }
  Result<std::span<const std::byte>> peek(size_t want) override {
    RAILCCL_CHECK(failure());
    RAILCCL_TRY(const std::span<const std::byte> view, inner_->peek(want));
    // A view may be late, but it never shrinks.
    shown_ = std::max(shown_, allow(view.size()));
    return view.first(shown_);
  }
  void consume(size_t bytes) override {
    moved_ += bytes;
    shown_ -= bytes;
    inner_->consume(bytes);
  }
  Result<size_t> receive(void* dst, size_t bytes) override {
    RAILCCL_CHECK(failure());
    // Also with nothing to move: the failures of the link inside are told at once.
    RAILCCL_TRY(const size_t got, inner_->receive(dst, allow(bytes)));
    moved_ += got;
    shown_ -= std::min(shown_, got);
    return got;
  }
  Status state() const override {
    RAILCCL_CHECK(failure());
    return inner_->state();
  }
  std::string name() const override { return inner_->name(); }

 private:
  Status failure() const {
    if (moved_ < transport_->options_.fail_after_bytes) return ok();
    return Status(Code::remote, Scope::link, "{}: injected failure after {} bytes", name(), moved_);
  }
  // How much of `bytes` this call may move.
  size_t allow(size_t bytes) {
    size_t allowed = bytes;
    if (transport_->random_.chance(transport_->options_.idle_chance)) {
      allowed = 0;
    } else if (transport_->random_.chance(transport_->options_.short_chance)) {
      allowed = transport_->random_.below(bytes + 1);
    }
    if (allowed < bytes) transport_->held_back_ = true;
    return allowed;
  }

  FaultyTransport* transport_;
  Link* inner_;
  uint64_t moved_ = 0;
  size_t shown_ = 0;  // size of the last view
};

FaultyTransport::FaultyTransport(std::unique_ptr<Transport> inner, FaultOptions options)
    : TransportWrapper(std::move(inner)), options_(options), random_(options.seed) {}

FaultyTransport::~FaultyTransport() = default;

Result<Link*> FaultyTransport::link(int peer, int channel) {
  RAILCCL_TRY(Link* const link, inner().link(peer, channel));
  std::unique_ptr<Link>& slot = links_[{peer, channel}];
  if (slot == nullptr) slot = std::make_unique<FaultyLink>(this, link);
  return slot.get();
}

void FaultyTransport::wait(int64_t timeout_us) {
  // The medium inside has told its news already; what we held back will not be told again.
  inner().wait(held_back_ ? 0 : timeout_us);
  held_back_ = false;
}

}  // namespace railccl::transport
