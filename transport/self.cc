// self: the link of a rank to itself, a ring in its own memory.
//
// Shared memory with oneself is plain memory, so shared_memory and peer_memory work too.
#include <map>

#include "transport/abort_flag.h"
#include "transport/mirrored.h"
#include "transport/registry.h"
#include "transport/ring.h"

namespace railccl::transport {
namespace {

constexpr size_t kRingBytes = 256 << 10;
constexpr int kChannelsMax = 256;

class SelfLink final : public Link {
 public:
  SelfLink(Mirrored memory, Doorbell* bell, const AbortFlag& abort, int rank, int channel)
      : memory_(std::move(memory)),
        abort_(abort),
        rank_(rank),
        channel_(channel),
        writer_(&header_, memory_.data(), memory_.size(), bell),
        reader_(&header_, memory_.data(), memory_.size(), bell) {}

  Result<size_t> send(std::span<const iovec> ranges) override {
    if (abort_.raised()) return abort_.why();
    return writer_.write(ranges);
  }
  uint64_t released() const override { return writer_.accepted(); }
  Result<bool> flush() override {
    if (abort_.raised()) return abort_.why();
    return true;
  }
  Result<std::span<const std::byte>> peek(size_t want) override {
    if (abort_.raised()) return abort_.why();
    return reader_.view(want);
  }
  void consume(size_t bytes) override { reader_.consume(bytes); }
  Result<size_t> receive(void* dst, size_t bytes) override {
    if (abort_.raised()) return abort_.why();
    return reader_.read(dst, bytes);
  }
  std::string name() const override {
    return fmt::format("self to rank {} channel {}", rank_, channel_);
  }

 private:
  Mirrored memory_;
  RingHeader header_{};
  const AbortFlag& abort_;
  int rank_;
  int channel_;
  RingWriter writer_;
  RingReader reader_;
};

class SelfTransport final : public Transport {
 public:
  explicit SelfTransport(const Context& context) : rank_(context.rank) {}

  const char* name() const override { return "self"; }
  Capabilities capabilities() const override {
    return {.load_store = true, .zero_copy = false, .in_place_view = true};
  }
  Address address() const override { return {}; }
  Status set_peers(const Peers& peers) override {
    const size_t me = static_cast<size_t>(rank_);
    if (me < peers.addresses.size() && !peers.addresses[me].empty()) {
      return Status(Code::remote, "the self address of rank {} is not empty", rank_);
    }
    return ok();
  }
  bool reaches(int peer) const override { return peer == rank_; }

  Result<Link*> link(int peer, int channel) override {
    if (peer != rank_ || channel < 0 || channel >= kChannelsMax) {
      return Status(Code::invalid_argument, "self cannot link rank {} to rank {} on channel {}",
                    rank_, peer, channel);
    }
    std::unique_ptr<SelfLink>& slot = links_[channel];
    if (slot == nullptr) {
      RAILCCL_TRY(Mirrored memory, Mirrored::create(kRingBytes));
      slot = std::make_unique<SelfLink>(std::move(memory), &bell_, abort_, rank_, channel);
    }
    return static_cast<Link*>(slot.get());
  }

  Status progress() override { return abort_.raised() ? abort_.why() : ok(); }
  void wait(int64_t timeout_us) override {
    if (!abort_.raised()) sleeper_.wait(timeout_us);
  }
  void wake() override { bell_.ring(); }

  Result<std::byte*> shared_memory(size_t bytes) override {
    if (bytes > shared_bytes_) {
      // The reservation keeps the address; pages come into being when they are first touched.
      if (!shared_) {
        void* base = mmap(nullptr, kSharedBytesMax, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base == MAP_FAILED) return system_error(errno, "self: cannot reserve memory");
        shared_ = Mapping(base, kSharedBytesMax);
      }
      if (bytes > kSharedBytesMax) {
        return Status(Code::unsupported, "self: {} bytes of shared memory are more than {}", bytes,
                      kSharedBytesMax);
      }
      shared_bytes_ = bytes;
    }
    return shared_.bytes();
  }
  Result<std::byte*> peer_memory(int peer, size_t bytes) override {
    if (peer != rank_) {
      return Status(Code::invalid_argument, "self: rank {} is somebody else", peer);
    }
    return bytes <= shared_bytes_ ? shared_.bytes() : nullptr;
  }

  void abort(const Status& why) override {
    abort_.raise(why);
    bell_.ring();
  }

 private:
  static constexpr size_t kSharedBytesMax = size_t{16} << 30;
  const int rank_;
  AbortFlag abort_;
  Doorbell bell_;
  Sleeper sleeper_{&bell_};
  std::map<int, std::unique_ptr<SelfLink>> links_;
  Mapping shared_;
  size_t shared_bytes_ = 0;
};

Status usable(const Context&) { return ok(); }

Result<std::unique_ptr<Transport>> create(const Context& context) {
  return std::unique_ptr<Transport>(std::make_unique<SelfTransport>(context));
}

}  // namespace

RAILCCL_TRANSPORT(self){"self", 100, usable, create};

}  // namespace railccl::transport
