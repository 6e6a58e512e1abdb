// SocketStart: a connection as a path by itself, as soon as both ends have greeted each other.
#pragma once

#include <memory>
#include <vector>

#include "transport/path_maker.h"

namespace railccl::transport {

/// `ours`: where this rank's connections can end; must outlive it. `card`: what it says behind its
/// greeting.
std::unique_ptr<PathStart> make_socket_start(const std::vector<TcpEndpoint>* ours,
                                             std::vector<std::byte> card);

}  // namespace railccl::transport
