// nccl_net: links between ranks over a network plugin of NCCL: libnccl-net.so, or what
// NCCL_NET_PLUGIN names. Plugins have no descriptor that tells that something came (net_maker.h).
#include "base/log.h"
#include "base/plugin.h"
#include "transport/nccl_net_plugin.h"
#include "transport/net_maker.h"
#include "transport/registry.h"
#include "transport/tcp_socket.h"

namespace railccl::transport {
namespace {

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
  RAILCCL_TRY(
      std::unique_ptr<PathMaker> maker,
      make_net_maker("nccl_net", "NCCL_NET_PLUGIN", context.rank, std::move(plugin).value()));
  return make_path_transport(context, std::move(control), std::move(maker));
}

}  // namespace

RAILCCL_TRANSPORT(nccl_net){"nccl_net", 40, usable, create};

}  // namespace railccl::transport
