// ucx: links between ranks over UCX, for those whom NCCL_NET=UCX asks for it. It is not chosen by
// itself: RDMA devices are served by verbs, and all others by tcp, with a layer less.
//
// UCX chooses among its own transports (UCX_TLS) for each path; paths are NICs (ucx_devices.h). The
// links, and how paths are made, are those of all networks of messages (net_maker.h).
#include <strings.h>

#include "base/log.h"
#include "transport/net_maker.h"
#include "transport/registry.h"
#include "transport/tcp_socket.h"
#include "transport/ucx_net.h"

namespace railccl::transport {
namespace {

Status usable(const Context& context) {
  if (strcasecmp(context.settings.net.c_str(), "UCX") != 0)
    return Status(Code::unsupported, "ucx: used where NCCL_NET=UCX asks for it");
  return ucx_library().is_ok() ? ok() : ucx_library().status().context("ucx");
}

Result<std::unique_ptr<Transport>> create(const Context& context) {
  RAILCCL_TRY(std::vector<TcpEndpoint> control,
              tcp_endpoints(context.settings, context.interfaces));
  std::vector<std::string> interfaces;
  for (const TcpEndpoint& endpoint : control) interfaces.push_back(endpoint.interface);
  auto rows = ucx_devices(context.settings, interfaces, active_ports());
  if (!rows.is_ok()) return rows.status().context("ucx");
  auto net = UcxNet::open(*rows);
  if (!net.is_ok()) return net.status().context("ucx");
  for (const NetDevice& device : (*net)->devices())
    log::info("ucx: rank {} uses {} (UCX {})", context.rank, device.name,
              (*ucx_library()).get_version_string());
  RAILCCL_TRY(std::unique_ptr<PathMaker> maker,
              make_net_maker("ucx", "UCX_NET_DEVICES", context.rank, std::move(net).value()));
  return make_path_transport(context, std::move(control), std::move(maker));
}

}  // namespace

RAILCCL_TRANSPORT(ucx){"ucx", 20, usable, create};

}  // namespace railccl::transport
