// System calls of tcp.
#include "transport/tcp_socket.h"

#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <fstream>
#include <system_error>

#include "base/log.h"

namespace railccl::transport {
namespace {

constexpr int kBacklog = 4096;
constexpr int kKeepIdleS = 10;
constexpr int kKeepIntervalS = 5;
constexpr int kKeepCount = 4;

void set_option(int socket, int level, int name, int value) {
  // None of the options is needed to be right, so a kernel without one is no failure.
  (void)setsockopt(socket, level, name, &value, sizeof(value));
}

void set_port(sockaddr_storage* address, uint16_t port) {
  if (address->ss_family == AF_INET) {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(port);
  }
}

uint16_t port_of(const sockaddr_storage& address) {
  return ntohs(address.ss_family == AF_INET
                   ? reinterpret_cast<const sockaddr_in&>(address).sin_port
                   : reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
}

socklen_t length_of(const sockaddr_storage& address) {
  return address.ss_family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
}

Result<UniqueFd> make_socket(int family) {
  UniqueFd fd(socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
  if (!fd) return system_error(errno, "tcp: socket");
  return fd;
}

// Buffers are left to the kernel's own tuning: a size set by hand is cut to net.core.*mem_max,
// which is often far below what tuning reaches by itself.
void tune(int socket, int64_t timeout_ms) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdleS);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, kKeepIntervalS);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, kKeepCount);
  // Also ends connections whose receiver does not read for that long; hence not shorter than what
  // an operation may take.
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT,
             static_cast<int>(std::min<int64_t>(timeout_ms, INT_MAX)));
}

sockaddr_storage any_address(int family) {
  sockaddr_storage address{};
  address.ss_family = static_cast<sa_family_t>(family);  // all zero means any
  return address;
}

Result<TcpListener> listen_at(const sockaddr_storage& address) {
  RAILCCL_TRY(UniqueFd fd, make_socket(address.ss_family));
  if (address.ss_family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length_of(address)) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return system_error(errno, fmt::format("tcp: cannot listen at {}", text_of(address)));
  }
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) != 0) {
    return system_error(errno, "tcp: getsockname");
  }
  return TcpListener{std::move(fd), port_of(bound)};
}

/// A dual-stack listener shows IPv4 peers as ::ffff:10.0.0.4.
std::string plain_text_of(const sockaddr_storage& address) {
  std::string text = text_of(address);
  if (text.starts_with("::ffff:")) text.erase(0, 7);
  return text;
}

std::string endpoint_text(const std::string& address, uint16_t port, const std::string& interface) {
  const bool brackets = address.find(':') != std::string::npos;
  return fmt::format("{}{}{}:{}{}{}", brackets ? "[" : "", address, brackets ? "]" : "", port,
                     interface.empty() ? "" : ", ", interface);
}

}  // namespace

Result<TcpListener> tcp_listen(const std::vector<TcpEndpoint>& endpoints) {
  if (endpoints.size() == 1) return listen_at(endpoints[0].address.address);
  const bool six = std::any_of(endpoints.begin(), endpoints.end(), [](const TcpEndpoint& endpoint) {
    return endpoint.address.address.ss_family == AF_INET6;
  });
  return listen_at(any_address(six ? AF_INET6 : AF_INET));
}

Result<std::vector<TcpEndpoint>> tcp_endpoints(const Settings& settings,
                                               const std::vector<std::string>& preferred) {
  RAILCCL_TRY(std::vector<Interface> interfaces, usable_interfaces(settings));
  const auto place = [&](const Interface& interface) {
    return std::find(preferred.begin(), preferred.end(), interface.name) - preferred.begin();
  };
  std::stable_sort(interfaces.begin(), interfaces.end(),
                   [&](const Interface& a, const Interface& b) { return place(a) < place(b); });
  std::vector<TcpEndpoint> endpoints;
  for (const Interface& interface : interfaces)
    for (const InterfaceAddress& address : interface.addresses)
      if (endpoints.size() < kTcpEndpointsMax) endpoints.push_back({address, interface.name});
  return endpoints;
}

std::optional<TcpPath> tcp_path(const std::vector<TcpEndpoint>& ours,
                                const std::vector<TcpEndpoint>& theirs, bool same_host) {
  const auto find = [&](const auto& good) -> std::optional<TcpPath> {
    for (const TcpEndpoint& from : ours) {
      for (const TcpEndpoint& to : theirs) {
        const sockaddr_storage& a = from.address.address;
        const sockaddr_storage& b = to.address.address;
        if (a.ss_family != b.ss_family || is_loopback(a) != is_loopback(b)) continue;
        if (is_loopback(a) && !same_host) continue;
        if (good(from, to))
          return TcpPath{from, to, !same_host && tcp_must_tie(ours, from.interface)};
      }
    }
    return std::nullopt;
  };
  const auto link_local = [](const TcpEndpoint& a, const TcpEndpoint& b) {
    return is_link_local(a.address.address) || is_link_local(b.address.address);
  };
  const auto near = [&](const TcpEndpoint& from, const TcpEndpoint& to) {
    return !link_local(from, to) && same_subnet(from.address, to.address.address);
  };
  auto path = find([&](const TcpEndpoint& from, const TcpEndpoint& to) {
    return near(from, to) && from.rail >= 0 && from.rail == to.rail;
  });
  if (!path) path = find(near);
  if (!path) path = find([&](const auto& from, const auto& to) { return !link_local(from, to); });
  if (!path) path = find([&](const auto&, const auto&) { return true; });
  return path;
}

std::vector<TcpPath> tcp_paths(const std::vector<TcpEndpoint>& ours,
                               const std::vector<TcpEndpoint>& theirs, bool same_host) {
  std::vector<TcpPath> paths;
  const std::optional<TcpPath> first = tcp_path(ours, theirs, same_host);
  if (!first) return paths;
  paths.push_back(*first);
  if (same_host) return paths;
  const auto text = [](const TcpEndpoint& endpoint) { return text_of(endpoint.address.address); };
  const bool routed = !same_subnet(first->from.address, first->to.address.address);
  const auto used = [&](const TcpEndpoint& from, const TcpEndpoint& to) {
    return std::any_of(paths.begin(), paths.end(), [&](const TcpPath& path) {
      return path.from.interface == from.interface || path.to.interface == to.interface;
    });
  };
  const auto leads_there = [&](const TcpEndpoint& from, const TcpEndpoint& to) {
    const sockaddr_storage& a = from.address.address;
    const sockaddr_storage& b = to.address.address;
    if (a.ss_family != b.ss_family || is_link_local(a) || is_link_local(b)) return false;
    if (is_loopback(a) || is_loopback(b) || text(from) == text(to)) return false;
    return same_subnet(from.address, b) || (routed && from.interface == to.interface);
  };
  // In one flat subnet every pair leads there.
  enum class Alike : uint8_t { rail, name, nothing };
  const auto alike = [](const TcpEndpoint& from, const TcpEndpoint& to, Alike how) {
    if (how == Alike::rail) return from.rail >= 0 && from.rail == to.rail;
    return how == Alike::nothing || from.interface == to.interface;
  };
  for (const Alike how : {Alike::rail, Alike::name, Alike::nothing}) {
    for (const TcpEndpoint& from : ours) {
      for (const TcpEndpoint& to : theirs) {
        if (alike(from, to, how) && !used(from, to) && leads_there(from, to))
          paths.push_back({from, to, tcp_must_tie(ours, from.interface)});
      }
    }
  }
  return paths;
}

bool tcp_answers_alone(const std::string& interface) {
  int ignore = 0;
  for (const std::string& which : {std::string("all"), interface}) {
    std::ifstream file("/proc/sys/net/ipv4/conf/" + which + "/arp_ignore");
    int value = 0;
    if (file >> value) ignore = std::max(ignore, value);  // as the kernel takes the two together
  }
  return ignore > 0;
}

bool tcp_must_tie(const std::vector<TcpEndpoint>& ours, const std::string& interface) {
  const auto crowded = [&](const TcpEndpoint& mine) {
    return std::any_of(ours.begin(), ours.end(), [&](const TcpEndpoint& other) {
      return other.interface != interface && !is_link_local(other.address.address) &&
             same_subnet(mine.address, other.address.address);
    });
  };
  const bool any = std::any_of(ours.begin(), ours.end(), [&](const TcpEndpoint& mine) {
    return mine.interface == interface && crowded(mine);
  });
  return any && tcp_answers_alone(interface);
}

void tcp_tie(int socket, const std::string& interface) {
  if (setsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, interface.c_str(),
                 static_cast<socklen_t>(interface.size())) != 0)
    log::trace("tcp: a socket cannot be tied to {}: {}", interface,
               std::system_category().message(errno));
}

void tcp_tie_accepted(int socket, const std::vector<TcpEndpoint>& ours,
                      const std::string& interface) {
  sockaddr_storage far{};
  socklen_t length = sizeof(far);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&far), &length) != 0) return;
  const std::string text = plain_text_of(far);
  const bool own = std::any_of(ours.begin(), ours.end(), [&](const TcpEndpoint& endpoint) {
    return text_of(endpoint.address.address) == text;
  });
  if (!own && tcp_must_tie(ours, interface)) tcp_tie(socket, interface);
}

Result<UniqueFd> tcp_connect(const TcpPath& path, uint16_t port, int64_t timeout_ms) {
  sockaddr_storage source = path.from.address.address;
  sockaddr_storage target = path.to.address.address;
  set_port(&source, 0);
  set_port(&target, port);
  if (target.ss_family == AF_INET6 && is_link_local(target)) {
    // The peer's scope number means nothing here: the link is the one of our address.
    reinterpret_cast<sockaddr_in6&>(target).sin6_scope_id =
        reinterpret_cast<const sockaddr_in6&>(source).sin6_scope_id;
  }
  RAILCCL_TRY(UniqueFd fd, make_socket(target.ss_family));
  tune(fd.get(), timeout_ms);
  if (path.tied) tcp_tie(fd.get(), path.from.interface);
  // The port is chosen at connect, when the pair of addresses is known: more connections fit.
  set_option(fd.get(), IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&source), length_of(source)) != 0) {
    return system_error(
        errno, fmt::format("cannot bind to {} ({})", text_of(source), path.from.interface));
  }
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&target), length_of(target)) != 0 &&
      errno != EINPROGRESS && errno != EINTR) {
    return system_error(errno, "cannot connect");
  }
  return fd;
}

Result<UniqueFd> tcp_accept(int listener, int64_t timeout_ms) {
  UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd) {
    tune(fd.get(), timeout_ms);
    return fd;
  }
  // Errors of the one connection that was to be accepted are no errors of ours (accept(2)).
  switch (errno) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EBADF:
    case EINVAL:
      return system_error(errno, "tcp: accept");
    default:
      return fd;
  }
}

int tcp_error(int socket) {
  int error = 0;
  socklen_t length = sizeof(error);
  return getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &length) == 0 ? error : errno;
}

std::string tcp_path_text(const TcpPath& path, uint16_t port) {
  return endpoint_text(text_of(path.to.address.address), port, path.from.interface);
}

std::string tcp_peer_text(int socket, const std::vector<TcpEndpoint>& ours,
                          std::string* interface_name) {
  sockaddr_storage far{};
  sockaddr_storage near{};
  socklen_t far_length = sizeof(far);
  socklen_t near_length = sizeof(near);
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&far), &far_length) != 0 ||
      getsockname(socket, reinterpret_cast<sockaddr*>(&near), &near_length) != 0 ||
      (far.ss_family != AF_INET && far.ss_family != AF_INET6)) {
    return "address unknown";
  }
  std::string interface;
  const std::string near_text = plain_text_of(near), far_text = plain_text_of(far);
  for (const TcpEndpoint& endpoint : ours)
    if (text_of(endpoint.address.address) == near_text) interface = endpoint.interface;
  if (interface_name != nullptr) *interface_name = interface;
  return endpoint_text(far_text, port_of(far), interface);
}

}  // namespace railccl::transport
