// Cards, starts, and how long to sleep.
#include "transport/net_maker.h"

#include <sched.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "transport/net_path.h"

namespace railccl::transport {
namespace {

// So long after the last news nobody sleeps.
constexpr int64_t kAwakeNs = 100'000;
// Then a part of the time that nothing has come for, within these.
constexpr int64_t kRestPart = 4, kRestUsMin = 50, kRestUsMax = 1000;

class NetStart final : public PathStart {
 public:
  NetStart(std::unique_ptr<NetPath> path, uint16_t far_device)
      : path_(std::move(path)), card_(encode(path_->card(far_device))) {}
  std::span<const std::byte> card() const override { return card_; }
  Status meet(std::span<const std::byte> card) override {
    const std::optional<NetCard> theirs = decode_net_card(card);
    if (!theirs) return Status(Code::remote, Scope::link, "its network card is malformed");
    return path_->meet(*theirs);
  }
  Result<bool> proven() override { return path_->proven(); }
  std::unique_ptr<NicPath> finish(UniqueFd connection, bool one_of_several) override {
    path_->keep(std::move(connection), one_of_several);
    return std::move(path_);
  }

 private:
  std::unique_ptr<NetPath> path_;
  const std::vector<std::byte> card_;
};

class NetMaker final : public PathMaker {
 public:
  NetMaker(const char* medium, const char* variable, int rank, std::shared_ptr<MessageNet> net,
           std::unique_ptr<NetKeeper> keeper)
      : medium_(medium),
        variable_(variable),
        net_(std::move(net)),
        sleeps_(!net_->descriptors().empty()),
        keeper_(std::move(keeper)) {
    for (const NetDevice& device : net_->devices())
      endpoints_.push_back(place_of(rank, device.number, device.nic));
  }
  const char* medium() const override { return medium_; }
  int paths_per_pair() const override { return 1; }
  const char* paths_variable() const override { return variable_; }
  const std::vector<TcpEndpoint>& endpoints() const override { return endpoints_; }
  Address address(const TcpAddress& control) const override {
    return encode(NetAddress{control, net_->name(), endpoints_});
  }
  std::optional<MetPlaces> read_address(std::string_view address) const override {
    auto decoded = decode_net_address(address);
    if (!decoded) return std::nullopt;
    // Another network speaks another language: another medium has to lead there.
    if (decoded->network != net_->name().substr(0, kNetNameMax)) decoded->devices.clear();
    return MetPlaces{std::move(decoded->control), std::move(decoded->devices)};
  }

  std::string describe(const TcpPath& path, uint16_t) const override {
    return fmt::format("{} of {}, {}", path.to.interface, net_->name(), path.from.interface);
  }

  size_t card_bytes() const override { return kNetCardBytesMin + net_->handle_bytes(); }
  Result<std::unique_ptr<PathStart>> start(const TcpPath& path) override {
    return start(device_of(path.from), static_cast<uint16_t>(device_of(path.to)));
  }
  Result<std::unique_ptr<PathStart>> answer(std::span<const std::byte> card) override {
    const std::optional<NetCard> theirs = decode_net_card(card);
    if (!theirs) return Status(Code::remote, Scope::link, "its network card is malformed");
    return start(theirs->far_device, 0);
  }

  std::vector<int> descriptors() const override {
    std::vector<int> all = net_->descriptors();
    all.push_back(keeper_->bell());
    return all;
  }
  bool polled() const override { return true; }
  bool poll() override {
    const bool any = keeper_->poll();
    if (any) news_ns_ = now_ns();
    return any;
  }
  bool arm() override {
    if (poll()) return true;
    if (sleeps_) return net_->arm();
    if (now_ns() - news_ns_ > kAwakeNs) return false;
    sched_yield();
    return true;
  }
  int64_t rest_us(int64_t timeout_us) const override {
    if (sleeps_) return timeout_us;
    const int64_t since_us = (now_ns() - news_ns_) / 1000;
    return std::min(timeout_us, std::clamp(since_us / kRestPart, kRestUsMin, kRestUsMax));
  }

 private:
  Result<std::unique_ptr<PathStart>> start(int number, uint16_t far_device) {
    for (const NetDevice& device : net_->devices()) {
      if (device.number != number) continue;
      RAILCCL_TRY(std::unique_ptr<NetPath> path, NetPath::make(net_, &device, keeper_.get()));
      return std::unique_ptr<PathStart>(std::make_unique<NetStart>(std::move(path), far_device));
    }
    return Status(Code::remote, Scope::link, "{} has no device {} here", net_->title(), number);
  }

  const char* const medium_;
  const char* const variable_;
  const std::shared_ptr<MessageNet> net_;
  const bool sleeps_;  // on descriptors
  std::vector<TcpEndpoint> endpoints_;
  const std::unique_ptr<NetKeeper> keeper_;
  int64_t news_ns_ = 0;
};

}  // namespace

Result<std::unique_ptr<PathMaker>> make_net_maker(const char* medium, const char* variable,
                                                  int rank, std::shared_ptr<MessageNet> net) {
  RAILCCL_TRY(std::unique_ptr<NetKeeper> keeper, NetKeeper::make(net.get()));
  return std::unique_ptr<PathMaker>(
      std::make_unique<NetMaker>(medium, variable, rank, std::move(net), std::move(keeper)));
}

}  // namespace railccl::transport
