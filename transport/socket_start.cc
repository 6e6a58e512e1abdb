// A greeted connection becomes a SocketPath.
#include "transport/socket_start.h"

#include <utility>

#include "transport/socket_path.h"
#include "transport/tcp_socket.h"

namespace railccl::transport {
namespace {

class SocketStart final : public PathStart {
 public:
  SocketStart(const std::vector<TcpEndpoint>* ours, std::vector<std::byte> card)
      : ours_(ours), card_(std::move(card)) {}
  std::span<const std::byte> card() const override { return card_; }
  Status meet(std::span<const std::byte>) override { return ok(); }
  Result<bool> proven() override { return true; }
  std::unique_ptr<NicPath> finish(UniqueFd connection, bool one_of_several) override {
    std::string nic;
    std::string name = tcp_peer_text(connection.get(), *ours_, &nic);
    tcp_tie_accepted(connection.get(), *ours_, nic);
    return std::make_unique<SocketPath>(std::move(connection), std::move(nic), std::move(name),
                                        one_of_several);
  }

 private:
  const std::vector<TcpEndpoint>* const ours_;
  const std::vector<std::byte> card_;
};

}  // namespace

std::unique_ptr<PathStart> make_socket_start(const std::vector<TcpEndpoint>* ours,
                                             std::vector<std::byte> card) {
  return std::make_unique<SocketStart>(ours, std::move(card));
}

}  // namespace railccl::transport
