// What paths over networks of messages say to others: the published address, the card that tells
// the far end of a path how to connect to our device, and the header of each message.
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

namespace railccl::transport {

/// What a rank publishes: where it listens for connections, and the devices of which network it
/// has.
struct NetAddress {
  TcpAddress control;
  std::string network;
  std::vector<TcpEndpoint> devices;
};
/// No more of a network's name is published.
inline constexpr size_t kNetNameMax = 64;
std::string encode(const NetAddress& address);
std::optional<NetAddress> decode_net_address(std::string_view bytes);

/// A rank's device as a place where paths end: all are in one made-up subnet, so that tcp's rules
/// pair them.
TcpEndpoint place_of(int rank, int device, const std::string& nic);
/// The device that a place stands for; -1: none.
int device_of(const TcpEndpoint& place);

/// One end of a path.
struct NetCard {
  uint16_t far_device = 0;        // theirs, that is meant
  uint64_t secret = 0;            // with which their first message shows that it is theirs
  uint32_t message_bytes = 0;     // that may be sent to us at once, the header included
  std::string nic;                // ours
  std::vector<std::byte> handle;  // as many bytes as the network's handles have
  friend bool operator==(const NetCard&, const NetCard&) = default;
};
inline constexpr size_t kNetCardBytesMin = 48;  // and the handle
inline constexpr uint32_t kNetMessageMin = 4 << 10, kNetMessageMax = 1 << 20;
std::vector<std::byte> encode(const NetCard& card);
std::optional<NetCard> decode_net_card(std::span<const std::byte> bytes);

/// In front of each message.
struct NetHeader {
  enum class Kind : uint8_t { knock, data, control };
  Kind kind = Kind::data;
  bool ask = false;      // tell us soon what has arrived
  uint32_t bytes = 0;    // behind it
  uint64_t arrived = 0;  // bytes of data that have come to the sender of this; a knock's secret
  uint64_t freed = 0;    // messages of data that it has read
  friend bool operator==(const NetHeader&, const NetHeader&) = default;
};
inline constexpr size_t kNetHeaderBytes = 24;
using NetHeaderBytes = std::array<std::byte, kNetHeaderBytes>;
NetHeaderBytes encode(const NetHeader& header);
/// Of a message of so many bytes: nothing unless that is the header's length and what it announces.
std::optional<NetHeader> decode_net_header(std::span<const std::byte> message);

}  // namespace railccl::transport
