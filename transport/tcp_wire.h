// What tcp says on the wire: the published address, the greeting of a new connection, and frames.
//
// All decoders take hostile bytes: they check every length and range, allocate no more than the
// input's size allows, and answer with nothing rather than with half. Integers are little-endian.
// Pure functions, any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/interfaces.h"

namespace railccl::transport {

/// One place where a rank can be reached.
struct TcpEndpoint {
  InterfaceAddress address;  // port 0
  std::string interface;     // its name over there
  int rail = -1;             // the topology's word, not published; -1: none or not known
};

/// What a rank publishes: where it listens, nearest interface first.
struct TcpAddress {
  uint16_t port = 0;
  std::vector<TcpEndpoint> endpoints;
};
inline constexpr size_t kTcpEndpointsMax = 64;

std::string encode(const TcpAddress& address);
std::optional<TcpAddress> decode_tcp_address(std::string_view bytes);

/// The connecting rank's first words: which job, which link, which of its sockets (lanes).
struct TcpHello {
  uint64_t job = 0;
  uint32_t from = 0;
  uint32_t to = 0;
  uint32_t channel = 0;
  uint16_t lane = 0;
  uint16_t lanes = 1;   // of the link: all sockets of all pairs of interfaces
  uint8_t sockets = 1;  // of each pair of interfaces
  bool home = true;     // is the lane one that the link uses while all is well?
  friend bool operator==(const TcpHello&, const TcpHello&) = default;
};
inline constexpr int kTcpLanesMax = 128;
inline constexpr size_t kTcpHelloBytes = 40;
using TcpHelloBytes = std::array<std::byte, kTcpHelloBytes>;
TcpHelloBytes encode(const TcpHello& hello);
std::optional<TcpHello> decode_tcp_hello(std::span<const std::byte> bytes);

/// The accepting rank's answer; the proof shows that it knows the job, too.
struct TcpAnswer {
  uint16_t sockets = 0;  // for each pair of interfaces: good when that is the hello's number
  uint64_t proof = 0;
  friend bool operator==(const TcpAnswer&, const TcpAnswer&) = default;
};
inline constexpr size_t kTcpAnswerBytes = 16;
using TcpAnswerBytes = std::array<std::byte, kTcpAnswerBytes>;
TcpAnswerBytes encode(const TcpAnswer& answer);
std::optional<TcpAnswer> decode_tcp_answer(std::span<const std::byte> bytes);
uint64_t proof_of(const TcpHello& hello);

/// In front of each segment of a link with several paths: where in the stream its bytes belong.
struct TcpFrame {
  uint64_t offset = 0;
  uint32_t bytes = 0;
};
inline constexpr size_t kTcpFrameBytes = 16;
inline constexpr uint32_t kTcpSegmentMax = 1 << 20;
using TcpFrameBytes = std::array<std::byte, kTcpFrameBytes>;
TcpFrameBytes encode(const TcpFrame& frame);
/// Nothing unless the frame has 1 to kTcpSegmentMax bytes and the right magic.
std::optional<TcpFrame> decode_tcp_frame(std::span<const std::byte> bytes);

}  // namespace railccl::transport
