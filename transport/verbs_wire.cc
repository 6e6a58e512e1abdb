// Encoders and decoders of verbs' messages.
#include "transport/verbs_wire.h"

#include <algorithm>
#include <cstring>

#include "base/random.h"
#include "transport/little_endian.h"

namespace railccl::transport {
namespace {

constexpr std::string_view kAddressMagic = "rvb1";
constexpr uint32_t kCardMagic = 0x76636c72;   // "rlcv"
constexpr uint32_t kPlainMagic = 0x70636c72;  // "rlcp"
constexpr uint16_t kVersion = 1;
constexpr uint32_t kGrant = uint32_t{1} << 31;
constexpr uint32_t kBytesBits = 24;

}  // namespace

// address: magic 4, bytes of the first part 4, then two addresses as tcp writes them: where to
// connect, and the ports.
std::string encode(const VerbsAddress& address) {
  const std::string control = encode(address.control);
  std::string bytes(kAddressMagic);
  std::array<std::byte, 4> length;
  put<uint32_t>(length.data(), static_cast<uint32_t>(control.size()));
  bytes.append(reinterpret_cast<const char*>(length.data()), length.size());
  bytes += control;
  bytes += encode(TcpAddress{address.control.port, address.ports});
  return bytes;
}

std::optional<VerbsAddress> decode_verbs_address(std::string_view bytes) {
  if (!bytes.starts_with(kAddressMagic) || bytes.size() < kAddressMagic.size() + 4)
    return std::nullopt;
  bytes.remove_prefix(kAddressMagic.size());
  const auto length = get<uint32_t>(reinterpret_cast<const std::byte*>(bytes.data()));
  bytes.remove_prefix(4);
  if (length > bytes.size()) return std::nullopt;
  const auto control = decode_tcp_address(bytes.substr(0, length));
  const auto ports = decode_tcp_address(bytes.substr(length));
  if (!control || !ports || ports->port != control->port) return std::nullopt;
  return VerbsAddress{*control, ports->endpoints};
}

// card: magic 4, version 2, lid 2, gid 16, far gid 16, qp 4, psn 4, ring 8, key 4, ring bytes 4,
// messages 2, mtu 1, infiniband 1, check 8
VerbsCardBytes encode(const VerbsCard& card) {
  VerbsCardBytes bytes{};
  put<uint32_t>(&bytes[0], kCardMagic);
  put<uint16_t>(&bytes[4], kVersion);
  put<uint16_t>(&bytes[6], card.lid);
  std::memcpy(&bytes[8], card.gid.data(), card.gid.size());
  std::memcpy(&bytes[24], card.far_gid.data(), card.far_gid.size());
  put<uint32_t>(&bytes[40], card.qp);
  put<uint32_t>(&bytes[44], card.psn);
  put<uint64_t>(&bytes[48], card.ring);
  put<uint32_t>(&bytes[56], card.ring_key);
  put<uint32_t>(&bytes[60], card.ring_bytes);
  put<uint16_t>(&bytes[64], card.messages);
  put<uint8_t>(&bytes[66], card.mtu);
  put<uint8_t>(&bytes[67], card.infiniband ? 1 : 0);
  put<uint64_t>(&bytes[72], hash_bytes(bytes.data(), 72));
  return bytes;
}

std::optional<VerbsCard> decode_verbs_card(std::span<const std::byte> bytes) {
  if (bytes.size() != kVerbsCardBytes || get<uint32_t>(&bytes[0]) != kCardMagic ||
      get<uint16_t>(&bytes[4]) != kVersion || get<uint8_t>(&bytes[67]) > 1 ||
      get<uint32_t>(&bytes[68]) != 0 || get<uint64_t>(&bytes[72]) != hash_bytes(bytes.data(), 72))
    return std::nullopt;
  VerbsCard card;
  card.lid = get<uint16_t>(&bytes[6]);
  std::memcpy(card.gid.data(), &bytes[8], card.gid.size());
  std::memcpy(card.far_gid.data(), &bytes[24], card.far_gid.size());
  card.qp = get<uint32_t>(&bytes[40]);
  card.psn = get<uint32_t>(&bytes[44]);
  card.ring = get<uint64_t>(&bytes[48]);
  card.ring_key = get<uint32_t>(&bytes[56]);
  card.ring_bytes = get<uint32_t>(&bytes[60]);
  card.messages = get<uint16_t>(&bytes[64]);
  card.mtu = get<uint8_t>(&bytes[66]);
  card.infiniband = get<uint8_t>(&bytes[67]) == 1;
  constexpr uint32_t k24Bits = (uint32_t{1} << 24) - 1;
  constexpr uint8_t kMtuMin = 1, kMtuMax = 5;  // IBV_MTU_256 to IBV_MTU_4096
  const bool power = (card.ring_bytes & (card.ring_bytes - 1)) == 0;
  if (card.qp > k24Bits || card.psn > k24Bits || !power || card.ring_bytes < kVerbsRingMin ||
      card.ring_bytes > kVerbsRingMax || card.ring + card.ring_bytes < card.ring ||
      card.messages < 16 || card.mtu < kMtuMin || card.mtu > kMtuMax)
    return std::nullopt;
  return card;
}

// plain card: magic 4, version 2, nothing 66, check 8
VerbsCardBytes plain_verbs_card() {
  VerbsCardBytes bytes{};
  put<uint32_t>(&bytes[0], kPlainMagic);
  put<uint16_t>(&bytes[4], kVersion);
  put<uint64_t>(&bytes[72], hash_bytes(bytes.data(), 72));
  return bytes;
}

bool is_plain_verbs_card(std::span<const std::byte> bytes) {
  return std::ranges::equal(bytes, plain_verbs_card());
}

uint32_t encode(const VerbsImmediate& immediate) {
  if (!immediate.grant) return immediate.bytes;
  return kGrant | immediate.messages << kBytesBits | immediate.bytes;
}

VerbsImmediate decode_verbs_immediate(uint32_t bits) {
  if ((bits & kGrant) == 0) return {.grant = false, .bytes = bits};
  return {.grant = true,
          .bytes = bits & ((uint32_t{1} << kBytesBits) - 1),
          .messages = (bits & ~kGrant) >> kBytesBits};
}

}  // namespace railccl::transport
