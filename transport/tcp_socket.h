// Sockets as tcp uses them: never blocking, closed on exec, tuned for few large streams; and the
// choice of the path between two ranks.
//
// Stateless, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/owners.h"
#include "transport/tcp_wire.h"

namespace railccl::transport {

struct TcpListener {
  UniqueFd socket;
  uint16_t port = 0;
};

/// Listens on a free port: on the one address when there is a single endpoint, else on all
/// addresses of both families.
Result<TcpListener> tcp_listen(const std::vector<TcpEndpoint>& endpoints);

/// The usable interfaces' addresses, `preferred` names first and in that order.
Result<std::vector<TcpEndpoint>> tcp_endpoints(const Settings& settings,
                                               const std::vector<std::string>& preferred);

/// From which address of ours to which of theirs. In this order: a shared subnet (nearest of our
/// interfaces first), then any routable pair, then link-local ones. Loopback only on one host.
struct TcpPath {
  TcpEndpoint from;
  TcpEndpoint to;
};
std::optional<TcpPath> tcp_path(const std::vector<TcpEndpoint>& ours,
                                const std::vector<TcpEndpoint>& theirs, bool same_host);

/// That path, and after it one for each further pair of interfaces that leads there: in a shared
/// subnet, or of equal names where the first path is routed. None shares an interface with another.
/// Only the first on one host.
std::vector<TcpPath> tcp_paths(const std::vector<TcpEndpoint>& ours,
                               const std::vector<TcpEndpoint>& theirs, bool same_host);

/// Starts a connection; it is up or has failed (tcp_error) when the socket becomes writable.
Result<UniqueFd> tcp_connect(const TcpPath& path, uint16_t port, int64_t timeout_ms);
/// The next connection with options set, or an empty one. `timeout_ms`: how long sent bytes may
/// stay unacknowledged.
Result<UniqueFd> tcp_accept(int listener, int64_t timeout_ms);
/// What is wrong with the socket, 0 for nothing.
int tcp_error(int socket);

/// "10.0.0.4:5123, eth1" of a path about to be taken.
std::string tcp_path_text(const TcpPath& path, uint16_t port);
/// "10.0.0.4:5123, eth1" of the far end of a connected socket, with our interface's name; the
/// latter also to *interface, where that is not null.
std::string tcp_peer_text(int socket, const std::vector<TcpEndpoint>& ours,
                          std::string* interface = nullptr);

}  // namespace railccl::transport
