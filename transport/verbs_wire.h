// What verbs says to others: the published address, and the card that tells the far end of a path
// how to reach our queue pair and ring; and what the immediate of a message means.
//
// Decoders take hostile bytes and answer with nothing rather than with half. Integers are
// little-endian. Pure functions, any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transport/tcp_wire.h"
#include "transport/verbs_choice.h"

namespace railccl::transport {

/// What a rank publishes: where it listens for connections, and its RDMA ports, nearest first, by
/// their GIDs as addresses and the names of their interfaces (or devices).
struct VerbsAddress {
  TcpAddress control;
  std::vector<TcpEndpoint> ports;
};
std::string encode(const VerbsAddress& address);
std::optional<VerbsAddress> decode_verbs_address(std::string_view bytes);

/// One end of a path.
struct VerbsCard {
  Gid gid{};         // of our port
  Gid far_gid{};     // of theirs, that is meant
  uint32_t qp = 0;   // number of our queue pair
  uint32_t psn = 0;  // of our first packet; 24 bits
  uint16_t lid = 0;
  uint8_t mtu = 0;  // ibv_mtu
  bool infiniband = false;
  uint32_t ring_key = 0;
  uint64_t ring = 0;  // where our ring is
  uint32_t ring_bytes = 0;
  uint16_t messages = 0;  // that may be sent to us before we grant more
  friend bool operator==(const VerbsCard&, const VerbsCard&) = default;
};
inline constexpr size_t kVerbsCardBytes = 80;
using VerbsCardBytes = std::array<std::byte, kVerbsCardBytes>;
/// Rings are powers of two between these.
inline constexpr uint32_t kVerbsRingMin = 64 << 10, kVerbsRingMax = 8 << 20;
VerbsCardBytes encode(const VerbsCard& card);
std::optional<VerbsCard> decode_verbs_card(std::span<const std::byte> bytes);

/// The card of an end that has no RDMA for the path: the connection has to do.
VerbsCardBytes plain_verbs_card();
bool is_plain_verbs_card(std::span<const std::byte> bytes);

/// The immediate of a message: how many bytes it added to the ring, or how many bytes and messages
/// more the far end may send.
struct VerbsImmediate {
  bool grant = false;
  uint32_t bytes = 0;
  uint32_t messages = 0;  // of a grant
};
inline constexpr uint32_t kVerbsGrantMessagesMax = 127;
uint32_t encode(const VerbsImmediate& immediate);
VerbsImmediate decode_verbs_immediate(uint32_t bits);

}  // namespace railccl::transport
