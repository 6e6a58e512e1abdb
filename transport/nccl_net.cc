// nccl_net: links between ranks over a network plugin of NCCL: libnccl-net.so, or what
// NCCL_NET_PLUGIN names.
//
// The links and how they are connected are tcp's (path_maker.h): each rank listens, the lower one
// of two connects once for each pair of devices, and greets; the cards behind the greetings carry
// the plugin's handles. A path is the link's when a message has come by the plugin
// (nccl_net_path.h).
//
// Plugins have no descriptor that tells that something came. A rank that waits looks often at
// first, between looks lets others have the processor, and sleeps longer the longer nothing has
// come, never over a millisecond. For a rank that does not wait its keeper looks
// (nccl_net_keeper.h).
#include <sched.h>

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "transport/nccl_net_path.h"
#include "transport/path_maker.h"
#include "transport/registry.h"
#include "transport/tcp_socket.h"

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
    path_->meet(*theirs);
    return ok();
  }
  Result<bool> proven() override { return path_->proven(); }
  std::unique_ptr<NicPath> finish(UniqueFd connection, bool one_of_several) override {
    path_->keep(std::move(connection), one_of_several);
    return std::move(path_);
  }

 private:
  std::unique_ptr<NetPath> path_;
  const NetCardBytes card_;
};

class NetMaker final : public PathMaker {
 public:
  NetMaker(int rank, std::shared_ptr<NetPlugin> plugin) : plugin_(std::move(plugin)) {
    for (const NetDevice& device : plugin_->devices())
      endpoints_.push_back(place_of(rank, device.number, device.nic));
  }
  const char* medium() const override { return "nccl_net"; }
  int paths_per_pair() const override { return 1; }
  const char* paths_variable() const override { return "NCCL_NET_PLUGIN"; }
  const std::vector<TcpEndpoint>& endpoints() const override { return endpoints_; }
  Address address(const TcpAddress& control) const override {
    return encode(NetAddress{control, plugin_->name(), endpoints_});
  }
  std::optional<MetPlaces> read_address(std::string_view address) const override {
    auto decoded = decode_net_address(address);
    if (!decoded) return std::nullopt;
    // Another plugin speaks another language: another medium has to lead there.
    if (decoded->plugin != plugin_->name().substr(0, kNetPluginNameMax)) decoded->devices.clear();
    return MetPlaces{std::move(decoded->control), std::move(decoded->devices)};
  }

  std::string describe(const TcpPath& path, uint16_t) const override {
    return fmt::format("{} of {}, {}", path.to.interface, plugin_->name(), path.from.interface);
  }

  size_t card_bytes() const override { return kNetCardBytes; }
  Result<std::unique_ptr<PathStart>> start(const TcpPath& path) override {
    return start(device_of(path.from), static_cast<uint16_t>(device_of(path.to)));
  }
  Result<std::unique_ptr<PathStart>> answer(std::span<const std::byte> card) override {
    const std::optional<NetCard> theirs = decode_net_card(card);
    if (!theirs) return Status(Code::remote, Scope::link, "its network card is malformed");
    return start(theirs->far_device, 0);
  }

  bool polled() const override { return true; }
  bool poll() override {
    const bool any = keeper_.poll();
    if (any) news_ns_ = now_ns();
    return any;
  }
  bool arm() override {
    if (poll()) return true;
    if (now_ns() - news_ns_ > kAwakeNs) return false;
    sched_yield();
    return true;
  }
  int64_t rest_us(int64_t timeout_us) const override {
    const int64_t since_us = (now_ns() - news_ns_) / 1000;
    return std::min(timeout_us, std::clamp(since_us / kRestPart, kRestUsMin, kRestUsMax));
  }

 private:
  Result<std::unique_ptr<PathStart>> start(int number, uint16_t far_device) {
    for (const NetDevice& device : plugin_->devices()) {
      if (device.number != number) continue;
      RAILCCL_TRY(std::unique_ptr<NetPath> path, NetPath::make(plugin_, &device, &keeper_));
      return std::unique_ptr<PathStart>(std::make_unique<NetStart>(std::move(path), far_device));
    }
    return Status(Code::remote, Scope::link, "the network plugin has no device {} here", number);
  }

  const std::shared_ptr<NetPlugin> plugin_;
  std::vector<TcpEndpoint> endpoints_;
  NetKeeper keeper_;
  int64_t news_ns_ = 0;
};

Status usable(const Context& context) {
  if (plugin_names(context.settings.net_plugin).empty() && !context.settings.net_plugin.empty())
    return Status(Code::unsupported, "nccl_net: NCCL_NET_PLUGIN is none");
  return ok();
}

Result<std::unique_ptr<Transport>> create(const Context& context) {
  auto plugin = NetPlugin::open(context.settings, context.job);
  if (!plugin.is_ok()) return plugin.status().context("nccl_net");
  RAILCCL_TRY(std::vector<TcpEndpoint> control,
              tcp_endpoints(context.settings, context.interfaces));
  for (const NetDevice& device : (*plugin)->devices())
    log::info("nccl_net: rank {} uses {} (device {} of {}, v{}; {}, port {}, {} Mbit/s, {:.1f} us)",
              context.rank, device.nic, device.name, (*plugin)->name(), (*plugin)->version(),
              device.pci_path.empty() ? "no PCI device" : device.pci_path, device.port, device.mbps,
              device.latency_us);
  return make_path_transport(context, std::move(control),
                             std::make_unique<NetMaker>(context.rank, std::move(plugin).value()));
}

}  // namespace

RAILCCL_TRANSPORT(nccl_net){"nccl_net", 40, usable, create};

}  // namespace railccl::transport
