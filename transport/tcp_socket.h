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

/// From which address of ours to which of theirs. In this order: a shared subnet (of one rail
/// before others, then nearest of our interfaces first), then any routable pair, then link-local
/// ones. Loopback only on one host.
struct TcpPath {
  TcpEndpoint from;
  TcpEndpoint to;
  bool tied = false;  // leave by our interface, where the routes may name another
};
std::optional<TcpPath> tcp_path(const std::vector<TcpEndpoint>& ours,
                                const std::vector<TcpEndpoint>& theirs, bool same_host);

/// That path, and after it one for each further pair of interfaces that leads there: in a shared
/// subnet, or of equal names where the first path is routed. None shares an interface with another.
/// In one flat subnet NICs of one rail are paired, then those of equal names. Only the first on one
/// host.
std::vector<TcpPath> tcp_paths(const std::vector<TcpEndpoint>& ours,
                               const std::vector<TcpEndpoint>& theirs, bool same_host);

/// Must connections of our `interface` be tied to it? So it is when others of our interfaces are in
/// its subnet: by the routes all of them would send through the first one. Not where the interface
/// does not keep its address to itself (net.ipv4.conf.*.arp_ignore is 0): a tied connection hears
/// only what comes in by its interface, and there neighbours may have learnt another one's address.
bool tcp_must_tie(const std::vector<TcpEndpoint>& ours, const std::string& interface);
/// Does the kernel answer ARP for this interface's addresses by this interface alone?
bool tcp_answers_alone(const std::string& interface);
/// Ties a socket to an interface. Needs no privilege (since Linux 5.7); where it fails, the routes
/// decide as before.
void tcp_tie(int socket, const std::string& interface);
/// The same for a connection that came in by `interface` of `ours`, where it must be and the far
/// end is not this host.
void tcp_tie_accepted(int socket, const std::vector<TcpEndpoint>& ours,
                      const std::string& interface);

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
