// Encoders and decoders of tcp's messages.
#include "transport/tcp_wire.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <array>
#include <cstring>

#include "base/random.h"
#include "transport/little_endian.h"

namespace railccl::transport {
namespace {

constexpr std::string_view kAddressMagic = "rtc1";
constexpr uint32_t kHelloMagic = 0x68636c72;   // "rlch"
constexpr uint32_t kAnswerMagic = 0x61636c72;  // "rlca"
constexpr uint32_t kFrameMagic = 0x66636c72;   // "rlcf"
constexpr uint16_t kVersion = 2;
constexpr size_t kNameMax = 15;  // IFNAMSIZ - 1

size_t address_bytes(int family) { return family == AF_INET ? sizeof(in_addr) : sizeof(in6_addr); }

const void* address_of(const sockaddr_storage& storage) {
  return storage.ss_family == AF_INET
             ? static_cast<const void*>(&reinterpret_cast<const sockaddr_in&>(storage).sin_addr)
             : static_cast<const void*>(&reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr);
}

}  // namespace

std::string encode(const TcpAddress& address) {
  std::string bytes(kAddressMagic);
  bytes.push_back(static_cast<char>(address.port & 0xff));
  bytes.push_back(static_cast<char>(address.port >> 8));
  bytes.push_back(static_cast<char>(address.endpoints.size()));
  for (const TcpEndpoint& endpoint : address.endpoints) {
    const sockaddr_storage& storage = endpoint.address.address;
    bytes.push_back(storage.ss_family == AF_INET ? 4 : 6);
    bytes.push_back(static_cast<char>(endpoint.address.prefix_bits));
    bytes.push_back(static_cast<char>(endpoint.interface.size()));
    bytes.append(endpoint.interface);
    bytes.append(static_cast<const char*>(address_of(storage)), address_bytes(storage.ss_family));
  }
  return bytes;
}

std::optional<TcpAddress> decode_tcp_address(std::string_view bytes) {
  if (!bytes.starts_with(kAddressMagic)) return std::nullopt;
  bytes.remove_prefix(kAddressMagic.size());
  if (bytes.size() < 3) return std::nullopt;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  TcpAddress address;
  address.port = static_cast<uint16_t>(byte(0) | byte(1) << 8);
  const size_t count = byte(2);
  bytes.remove_prefix(3);
  if (address.port == 0 || count == 0 || count > kTcpEndpointsMax) return std::nullopt;
  for (size_t i = 0; i < count; i++) {
    if (bytes.size() < 3) return std::nullopt;
    const int family = byte(0) == 4 ? AF_INET : byte(0) == 6 ? AF_INET6 : AF_UNSPEC;
    const int prefix = byte(1);
    const size_t name = byte(2);
    bytes.remove_prefix(3);
    if (family == AF_UNSPEC || name > kNameMax) return std::nullopt;
    const size_t size = address_bytes(family);
    if (prefix > static_cast<int>(8 * size) || bytes.size() < name + size) return std::nullopt;
    TcpEndpoint endpoint;
    endpoint.interface.assign(bytes.substr(0, name));
    for (char& c : endpoint.interface)
      if (c <= ' ' || c > '~') c = '?';  // it will be printed
    endpoint.address.prefix_bits = prefix;
    endpoint.address.address.ss_family = static_cast<sa_family_t>(family);
    std::memcpy(const_cast<void*>(address_of(endpoint.address.address)), bytes.data() + name, size);
    bytes.remove_prefix(name + size);
    address.endpoints.push_back(std::move(endpoint));
  }
  if (!bytes.empty()) return std::nullopt;
  return address;
}

// hello: magic 4, version 2, lanes 2, job 8, from 4, to 4, channel 4, lane 2, sockets 1, home 1,
// check 8
TcpHelloBytes encode(const TcpHello& hello) {
  TcpHelloBytes bytes{};
  put<uint32_t>(&bytes[0], kHelloMagic);
  put<uint16_t>(&bytes[4], kVersion);
  put<uint16_t>(&bytes[6], hello.lanes);
  put<uint64_t>(&bytes[8], hello.job);
  put<uint32_t>(&bytes[16], hello.from);
  put<uint32_t>(&bytes[20], hello.to);
  put<uint32_t>(&bytes[24], hello.channel);
  put<uint16_t>(&bytes[28], hello.lane);
  put<uint8_t>(&bytes[30], hello.sockets);
  put<uint8_t>(&bytes[31], hello.home ? 1 : 0);
  put<uint64_t>(&bytes[32], hash_bytes(bytes.data(), 32));
  return bytes;
}

std::optional<TcpHello> decode_tcp_hello(std::span<const std::byte> bytes) {
  if (bytes.size() != kTcpHelloBytes || get<uint32_t>(&bytes[0]) != kHelloMagic ||
      get<uint16_t>(&bytes[4]) != kVersion || get<uint8_t>(&bytes[31]) > 1 ||
      get<uint64_t>(&bytes[32]) != hash_bytes(bytes.data(), 32)) {
    return std::nullopt;
  }
  TcpHello hello;
  hello.lanes = get<uint16_t>(&bytes[6]);
  hello.job = get<uint64_t>(&bytes[8]);
  hello.from = get<uint32_t>(&bytes[16]);
  hello.to = get<uint32_t>(&bytes[20]);
  hello.channel = get<uint32_t>(&bytes[24]);
  hello.lane = get<uint16_t>(&bytes[28]);
  hello.sockets = get<uint8_t>(&bytes[30]);
  hello.home = get<uint8_t>(&bytes[31]) == 1;
  if (hello.lane >= hello.lanes || hello.lanes > kTcpLanesMax || hello.sockets == 0)
    return std::nullopt;
  return hello;
}

uint64_t proof_of(const TcpHello& hello) {
  const TcpHelloBytes bytes = encode(hello);
  return hash_bytes(bytes.data(), bytes.size(), kAnswerMagic);
}

// answer: magic 4, version 2, sockets 2, proof 8
TcpAnswerBytes encode(const TcpAnswer& answer) {
  TcpAnswerBytes bytes{};
  put<uint32_t>(&bytes[0], kAnswerMagic);
  put<uint16_t>(&bytes[4], kVersion);
  put<uint16_t>(&bytes[6], answer.sockets);
  put<uint64_t>(&bytes[8], answer.proof);
  return bytes;
}

std::optional<TcpAnswer> decode_tcp_answer(std::span<const std::byte> bytes) {
  if (bytes.size() != kTcpAnswerBytes || get<uint32_t>(&bytes[0]) != kAnswerMagic ||
      get<uint16_t>(&bytes[4]) != kVersion) {
    return std::nullopt;
  }
  return TcpAnswer{get<uint16_t>(&bytes[6]), get<uint64_t>(&bytes[8])};
}

// frame: magic 4, bytes 4, offset 8
TcpFrameBytes encode(const TcpFrame& frame) {
  TcpFrameBytes bytes{};
  put<uint32_t>(&bytes[0], kFrameMagic);
  put<uint32_t>(&bytes[4], frame.bytes);
  put<uint64_t>(&bytes[8], frame.offset);
  return bytes;
}

std::optional<TcpFrame> decode_tcp_frame(std::span<const std::byte> bytes) {
  if (bytes.size() != kTcpFrameBytes || get<uint32_t>(&bytes[0]) != kFrameMagic)
    return std::nullopt;
  const TcpFrame frame{get<uint64_t>(&bytes[8]), get<uint32_t>(&bytes[4])};
  if (frame.bytes == 0 || frame.bytes > kTcpSegmentMax || frame.offset + frame.bytes < frame.offset)
    return std::nullopt;
  return frame;
}

}  // namespace railccl::transport
