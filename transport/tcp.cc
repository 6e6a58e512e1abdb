// tcp: links between ranks over sockets. How they are connected is path_transport.h's; the paths
// are the connections themselves.
#include "transport/path_maker.h"
#include "transport/registry.h"
#include "transport/socket_start.h"
#include "transport/tcp_socket.h"

namespace railccl::transport {
namespace {

/// A socket is a path as soon as both ends have greeted each other.
class SocketMaker final : public PathMaker {
 public:
  SocketMaker(std::vector<TcpEndpoint> endpoints, int sockets)
      : endpoints_(std::move(endpoints)), sockets_(sockets) {}
  const char* medium() const override { return "tcp"; }
  int paths_per_pair() const override { return sockets_; }
  const char* paths_variable() const override { return "NCCL_NSOCKS_PERTHREAD"; }
  const std::vector<TcpEndpoint>& endpoints() const override { return endpoints_; }
  Address address(const TcpAddress& control) const override { return encode(control); }
  std::optional<MetPlaces> read_address(std::string_view address) const override {
    auto decoded = decode_tcp_address(address);
    if (!decoded) return std::nullopt;
    return MetPlaces{*decoded, decoded->endpoints};
  }
  size_t card_bytes() const override { return 0; }
  Result<std::unique_ptr<PathStart>> start(const TcpPath&) override { return start(); }
  Result<std::unique_ptr<PathStart>> answer(std::span<const std::byte>) override { return start(); }

 private:
  std::unique_ptr<PathStart> start() const { return make_socket_start(&endpoints_, {}); }

  const std::vector<TcpEndpoint> endpoints_;
  const int sockets_;
};

Status usable(const Context& context) {
  Result<std::vector<TcpEndpoint>> endpoints = tcp_endpoints(context.settings, context.interfaces);
  return endpoints.is_ok() ? ok() : endpoints.status().context("tcp");
}

Result<std::unique_ptr<Transport>> create(const Context& context) {
  RAILCCL_TRY(std::vector<TcpEndpoint> endpoints,
              tcp_endpoints(context.settings, context.interfaces));
  auto maker =
      std::make_unique<SocketMaker>(endpoints, static_cast<int>(context.settings.sockets_per_path));
  return make_path_transport(context, std::move(endpoints), std::move(maker));
}

}  // namespace

RAILCCL_TRANSPORT(tcp){"tcp", 10, usable, create};

}  // namespace railccl::transport
