// verbs: links between ranks over RDMA devices: InfiniBand, RoCE.
//
// The links and how they are connected are tcp's (path_maker.h): each rank listens, the lower one
// of two connects once for each pair of ports and queue pair between them, and greets; the cards
// behind the greetings carry what the queue pairs have to know of each other. A path is the link's
// when a packet of full size has passed by RDMA (verbs_path.h). The connection goes by the port's
// own interface where it has an address that both can use, else by any.
//
// Where a link gets no path of RDMA at all, because none passes or one side cannot have any, its
// connections are its paths, as in tcp; unless NCCL_NET=IB asks for RDMA alone.
//
// A port is known by its GID, which is an address: of the interface on RoCE, of the port on
// InfiniBand, whose subnets have prefixes of their own. So tcp's rules for pairing interfaces pair
// ports, too: equal subnets, and so equal rails, first.
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "transport/path_maker.h"
#include "transport/registry.h"
#include "transport/socket_start.h"
#include "transport/verbs_path.h"

namespace railccl::transport {
namespace {

constexpr int kTimeoutOfMany = 14, kTimeoutOfOne = 18;

/// The GID that the address was made of.
Gid gid_of(const sockaddr_storage& address) {
  Gid gid{};
  if (address.ss_family == AF_INET) {
    gid[10] = gid[11] = 0xff;
    std::memcpy(&gid[12], &reinterpret_cast<const sockaddr_in&>(address).sin_addr, 4);
  } else {
    std::memcpy(gid.data(), &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, gid.size());
  }
  return gid;
}

class VerbsStart final : public PathStart {
 public:
  VerbsStart(std::unique_ptr<VerbsPath> path, bool knocks)
      : path_(std::move(path)), knocks_(knocks), card_(encode(path_->card())) {}
  std::span<const std::byte> card() const override { return card_; }
  Status meet(std::span<const std::byte> card) override {
    const std::optional<VerbsCard> theirs = decode_verbs_card(card);
    if (!theirs) return Status(Code::remote, Scope::link, "its RDMA card is malformed");
    return path_->connect(*theirs, knocks_);
  }
  Result<bool> proven() override {
    Result<bool> proven = path_->proven();
    if (proven.is_ok()) return proven;
    return proven.status().context("no RDMA packet passes, though TCP does");
  }
  // Our packets may pass while theirs, which say so, do not.
  bool waits_for_word() const override { return true; }
  std::unique_ptr<NicPath> finish(UniqueFd connection, bool one_of_several) override {
    path_->keep(std::move(connection), one_of_several);
    return std::move(path_);
  }

 private:
  std::unique_ptr<VerbsPath> path_;
  const bool knocks_;
  const VerbsCardBytes card_;
};

class VerbsMaker final : public PathMaker {
 public:
  VerbsMaker(std::vector<std::unique_ptr<VerbsPort>> ports, std::vector<TcpEndpoint> endpoints,
             std::vector<TcpEndpoint> control, const Settings& settings)
      : ports_(std::move(ports)),
        endpoints_(std::move(endpoints)),
        control_(std::move(control)),
        queue_pairs_(static_cast<int>(settings.ib_qps)),
        verbs_only_(!settings.net.empty()) {
    habits_.traffic_class = static_cast<int>(settings.ib_traffic_class);
    habits_.service_level = static_cast<int>(settings.ib_service_level);
    habits_.retries = static_cast<int>(settings.ib_retries);
    habits_.timeout = static_cast<int>(settings.ib_timeout);
    // Where others take over, silence should be short; where nobody can, patience long.
    if (habits_.timeout == 0)
      habits_.timeout = ports_.size() > 1 || queue_pairs_ > 1 ? kTimeoutOfMany : kTimeoutOfOne;
  }
  const char* medium() const override { return "verbs"; }
  int paths_per_pair() const override { return queue_pairs_; }
  const char* paths_variable() const override { return "NCCL_IB_QPS_PER_CONNECTION"; }
  const std::vector<TcpEndpoint>& endpoints() const override { return endpoints_; }
  Address address(const TcpAddress& control) const override {
    return encode(VerbsAddress{control, endpoints_});
  }
  std::optional<MetPlaces> read_address(std::string_view address) const override {
    auto decoded = decode_verbs_address(address);
    if (!decoded) return std::nullopt;
    return MetPlaces{std::move(decoded->control), std::move(decoded->ports)};
  }

  std::vector<TcpPath> pairs(const std::vector<TcpEndpoint>& ours,
                             const std::vector<TcpEndpoint>& theirs,
                             bool same_host) const override {
    return verbs_pairs(ours, theirs, same_host);
  }

  bool reads_in_place() const override { return true; }
  size_t card_bytes() const override { return kVerbsCardBytes; }
  Result<std::unique_ptr<PathStart>> start(const TcpPath& path) override {
    const Gid ours = gid_of(path.from.address.address);
    return start(ours, gid_of(path.to.address.address), true);
  }
  Result<std::unique_ptr<PathStart>> answer(std::span<const std::byte> card) override {
    if (is_plain(card)) {
      std::unique_ptr<PathStart> start = plain();
      if (start) return start;
      return Status(Code::remote, Scope::link, "NCCL_NET allows no TCP in place of RDMA here");
    }
    const std::optional<VerbsCard> theirs = decode_verbs_card(card);
    if (!theirs) return Status(Code::remote, Scope::link, "its RDMA card is malformed");
    return start(theirs->far_gid, theirs->gid, false);
  }

  std::unique_ptr<PathStart> plain() override {
    if (verbs_only_) return nullptr;
    const VerbsCardBytes card = plain_verbs_card();
    return make_socket_start(&control_, {card.begin(), card.end()});
  }
  bool is_plain(std::span<const std::byte> card) const override {
    return is_plain_verbs_card(card);
  }

  std::vector<int> descriptors() const override {
    std::vector<int> all;
    for (const auto& port : ports_)
      for (const int fd : port->descriptors()) all.push_back(fd);
    return all;
  }
  void on_descriptor(int fd) override {
    for (const auto& port : ports_) port->on_descriptor(fd);
  }
  bool polled() const override { return true; }
  bool poll() override {
    bool any = false;
    for (const auto& port : ports_) any |= port->poll();
    return any;
  }
  bool arm() override {
    for (const auto& port : ports_) port->arm();
    return poll();
  }

 private:
  Result<std::unique_ptr<PathStart>> start(const Gid& ours, const Gid& theirs, bool knocks) {
    for (const auto& port : ports_) {
      if (port->gid().gid != ours) continue;
      RAILCCL_TRY(std::unique_ptr<VerbsPath> path, VerbsPath::make(port.get(), habits_, theirs));
      return std::unique_ptr<PathStart>(std::make_unique<VerbsStart>(std::move(path), knocks));
    }
    return Status(Code::remote, Scope::link, "no RDMA port here has the GID {}",
                  text_of(address_of(ours).address));
  }

  const std::vector<std::unique_ptr<VerbsPort>> ports_;
  const std::vector<TcpEndpoint> endpoints_;
  const std::vector<TcpEndpoint> control_;  // where connections end
  const int queue_pairs_;
  const bool verbs_only_;
  VerbsHabits habits_;
};

/// The ports' GIDs as addresses, in the subnets of their interfaces.
Result<std::vector<TcpEndpoint>> places_of(const std::vector<std::unique_ptr<VerbsPort>>& ports) {
  RAILCCL_TRY(const std::vector<Interface> interfaces, all_interfaces());
  std::vector<TcpEndpoint> places;
  for (const auto& port : ports) {
    TcpEndpoint place{address_of(port->gid().gid), port->interface()};
    for (const Interface& interface : interfaces) {
      for (const InterfaceAddress& address : interface.addresses) {
        if (interface.name == place.interface &&
            text_of(address.address) == text_of(place.address.address))
          place.address.prefix_bits = address.prefix_bits;
      }
    }
    places.push_back(std::move(place));
  }
  return places;
}

Status usable(const Context& context) {
  if (context.settings.ib_disable)
    return Status(Code::unsupported, "verbs: NCCL_IB_DISABLE is set");
  return verbs_library().is_ok() ? ok() : verbs_library().status().context("verbs");
}

Result<std::unique_ptr<Transport>> create(const Context& context) {
  auto ports = VerbsPort::open_all(context.settings);
  if (!ports.is_ok()) return ports.status().context("verbs");
  RAILCCL_TRY(std::vector<TcpEndpoint> control,
              tcp_endpoints(context.settings, context.interfaces));
  // What this process may not do shows now, while ranks can still agree on another medium.
  const auto trial = VerbsPath::make(ports->front().get(), VerbsHabits(), Gid());
  if (!trial.is_ok()) return trial.status().context("verbs");
  RAILCCL_TRY(std::vector<TcpEndpoint> places, places_of(*ports));
  for (const auto& port : *ports)
    log::info("verbs: rank {} uses {} ({}, GID {} {})", context.rank, port->name(),
              port->interface(), port->gid().index, text_of(address_of(port->gid().gid).address));
  auto maker = std::make_unique<VerbsMaker>(std::move(ports).value(), std::move(places), control,
                                            context.settings);
  return make_path_transport(context, std::move(control), std::move(maker));
}

}  // namespace

RAILCCL_TRANSPORT(verbs){"verbs", 30, usable, create};

}  // namespace railccl::transport
