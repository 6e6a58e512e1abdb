// Encoders and decoders of what networks of messages say.
#include "transport/net_wire.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "base/random.h"
#include "transport/little_endian.h"

namespace railccl::transport {
namespace {

constexpr std::string_view kAddressMagic = "rnn1";
constexpr uint32_t kCardMagic = 0x6e636c72;  // "rlcn"
constexpr uint16_t kHeaderMagic = 0x6e72;    // "rn"
constexpr uint16_t kVersion = 1;
constexpr size_t kNicNameMax = 16;
constexpr ptrdiff_t kHandleAt = 40;
constexpr std::array<uint8_t, 8> kSubnet = {0xfd, 'r', 'a', 'i', 'l', 'n', 'e', 't'};
constexpr int kSubnetBits = 64;

bool printable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

TcpEndpoint place_of(int rank, int device, const std::string& nic) {
  TcpEndpoint place{.address = {}, .interface = nic};
  auto& address = reinterpret_cast<sockaddr_in6&>(place.address.address);
  address.sin6_family = AF_INET6;
  std::copy(kSubnet.begin(), kSubnet.end(), address.sin6_addr.s6_addr);
  for (size_t i = 0; i < sizeof(rank); i++)
    address.sin6_addr.s6_addr[8 + i] = static_cast<uint8_t>(rank >> (8 * i));
  // Counted from one: zero would mean the subnet itself.
  address.sin6_addr.s6_addr[14] = static_cast<uint8_t>((device + 1) >> 8);
  address.sin6_addr.s6_addr[15] = static_cast<uint8_t>(device + 1);
  place.address.prefix_bits = kSubnetBits;
  return place;
}

int device_of(const TcpEndpoint& place) {
  const auto& address = reinterpret_cast<const sockaddr_in6&>(place.address.address);
  if (address.sin6_family != AF_INET6 ||
      !std::equal(kSubnet.begin(), kSubnet.end(), address.sin6_addr.s6_addr))
    return -1;
  return (address.sin6_addr.s6_addr[14] << 8 | address.sin6_addr.s6_addr[15]) - 1;
}

// address: magic 4, bytes of the first part 4, bytes of the name 1, the first part and the last as
// tcp writes addresses (where to connect; the devices), the name between them.
std::string encode(const NetAddress& address) {
  const std::string control = encode(address.control);
  const std::string network = address.network.substr(0, kNetNameMax);
  std::string bytes(kAddressMagic);
  std::array<std::byte, 5> lengths;
  put<uint32_t>(lengths.data(), static_cast<uint32_t>(control.size()));
  put<uint8_t>(&lengths[4], static_cast<uint8_t>(network.size()));
  bytes.append(reinterpret_cast<const char*>(lengths.data()), lengths.size());
  bytes += control;
  bytes += network;
  bytes += encode(TcpAddress{address.control.port, address.devices});
  return bytes;
}

std::optional<NetAddress> decode_net_address(std::string_view bytes) {
  if (!bytes.starts_with(kAddressMagic) || bytes.size() < kAddressMagic.size() + 5)
    return std::nullopt;
  bytes.remove_prefix(kAddressMagic.size());
  const auto* const lengths = reinterpret_cast<const std::byte*>(bytes.data());
  const size_t control_bytes = get<uint32_t>(lengths);
  const size_t name_bytes = get<uint8_t>(lengths + 4);
  bytes.remove_prefix(5);
  if (control_bytes > bytes.size() || name_bytes > bytes.size() - control_bytes ||
      name_bytes > kNetNameMax)
    return std::nullopt;
  const auto control = decode_tcp_address(bytes.substr(0, control_bytes));
  const auto devices = decode_tcp_address(bytes.substr(control_bytes + name_bytes));
  if (!control || !devices || devices->port != control->port) return std::nullopt;
  for (const TcpEndpoint& device : devices->endpoints)
    if (device_of(device) < 0) return std::nullopt;
  return NetAddress{*control, std::string(bytes.substr(control_bytes, name_bytes)),
                    devices->endpoints};
}

// card: magic 4, version 2, far device 2, secret 8, message bytes 4, zero 4, name 16, handle, check
// 8
std::vector<std::byte> encode(const NetCard& card) {
  std::vector<std::byte> bytes(kNetCardBytesMin + card.handle.size());
  put<uint32_t>(&bytes[0], kCardMagic);
  put<uint16_t>(&bytes[4], kVersion);
  put<uint16_t>(&bytes[6], card.far_device);
  put<uint64_t>(&bytes[8], card.secret);
  put<uint32_t>(&bytes[16], card.message_bytes);
  std::memcpy(&bytes[24], card.nic.data(), std::min(card.nic.size(), kNicNameMax));
  std::copy(card.handle.begin(), card.handle.end(), bytes.begin() + kHandleAt);
  const size_t check = bytes.size() - sizeof(uint64_t);
  put<uint64_t>(&bytes[check], hash_bytes(bytes.data(), check));
  return bytes;
}

std::optional<NetCard> decode_net_card(std::span<const std::byte> bytes) {
  if (bytes.size() < kNetCardBytesMin) return std::nullopt;
  const size_t check = bytes.size() - sizeof(uint64_t);
  if (get<uint32_t>(&bytes[0]) != kCardMagic || get<uint16_t>(&bytes[4]) != kVersion ||
      get<uint32_t>(&bytes[20]) != 0 ||
      get<uint64_t>(&bytes[check]) != hash_bytes(bytes.data(), check))
    return std::nullopt;
  NetCard card;
  card.far_device = get<uint16_t>(&bytes[6]);
  card.secret = get<uint64_t>(&bytes[8]);
  card.message_bytes = get<uint32_t>(&bytes[16]);
  const auto* const name = reinterpret_cast<const char*>(&bytes[24]);
  const char* const end = std::find(name, name + kNicNameMax, '\0');
  card.nic.assign(name, end);
  card.handle.assign(bytes.begin() + kHandleAt, bytes.begin() + static_cast<ptrdiff_t>(check));
  if (card.message_bytes < kNetMessageMin || card.message_bytes > kNetMessageMax ||
      !printable(card.nic) ||
      !std::all_of(end, name + kNicNameMax, [](char c) { return c == '\0'; }))
    return std::nullopt;
  return card;
}

// header: magic 2, kind 1, ask 1, bytes 4, arrived 8, freed 8
NetHeaderBytes encode(const NetHeader& header) {
  NetHeaderBytes bytes{};
  put<uint16_t>(&bytes[0], kHeaderMagic);
  put<uint8_t>(&bytes[2], static_cast<uint8_t>(header.kind));
  put<uint8_t>(&bytes[3], header.ask ? 1 : 0);
  put<uint32_t>(&bytes[4], header.bytes);
  put<uint64_t>(&bytes[8], header.arrived);
  put<uint64_t>(&bytes[16], header.freed);
  return bytes;
}

std::optional<NetHeader> decode_net_header(std::span<const std::byte> message) {
  if (message.size() < kNetHeaderBytes || get<uint16_t>(&message[0]) != kHeaderMagic ||
      get<uint8_t>(&message[2]) > static_cast<uint8_t>(NetHeader::Kind::control) ||
      get<uint8_t>(&message[3]) > 1 ||
      get<uint32_t>(&message[4]) != message.size() - kNetHeaderBytes)
    return std::nullopt;
  NetHeader header;
  header.kind = static_cast<NetHeader::Kind>(get<uint8_t>(&message[2]));
  header.ask = get<uint8_t>(&message[3]) == 1;
  header.bytes = get<uint32_t>(&message[4]);
  header.arrived = get<uint64_t>(&message[8]);
  header.freed = get<uint64_t>(&message[16]);
  // Only data have anything behind the header, and always something.
  if ((header.kind == NetHeader::Kind::data) != (header.bytes > 0)) return std::nullopt;
  return header;
}

}  // namespace railccl::transport
