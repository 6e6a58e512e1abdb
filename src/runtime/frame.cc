// Frame: packing and unpacking of message headers.
#include "runtime/frame.h"

#include <bit>
#include <cstring>

namespace railccl::runtime {

static_assert(std::endian::native == std::endian::little,
              "headers are copied as they lie; other byte orders need a swap here");

namespace {

constexpr uint8_t kMagic = 0xc7;

uint8_t nibbles(unsigned high, unsigned low) { return static_cast<uint8_t>(high << 4 | low); }

}  // namespace

bool operator==(const Header& a, const Header& b) {
  return a.kind == b.kind && a.bytes == b.bytes && same_call(a, b);
}

bool same_call(const Header& a, const Header& b) {
  return (a.kind == MessageKind::point_to_point) == (b.kind == MessageKind::point_to_point) &&
         a.sequence == b.sequence && a.request.collective == b.request.collective &&
         a.request.datatype == b.request.datatype && a.request.op == b.request.op &&
         a.request.root == b.request.root && a.request.count == b.request.count;
}

HeaderBytes encode(const Header& header) {
  const plan::Request& request = header.request;
  uint64_t words[3];
  words[0] =
      uint64_t{kMagic} |
      uint64_t{
          nibbles(static_cast<unsigned>(header.kind), static_cast<unsigned>(request.collective))}
          << 8 |
      uint64_t{nibbles(static_cast<unsigned>(request.datatype), static_cast<unsigned>(request.op))}
          << 16 |
      header.bytes << 24;
  words[1] = header.sequence | uint64_t{static_cast<uint32_t>(request.root)} << 32;
  words[2] = request.count;
  HeaderBytes bytes;
  static_assert(sizeof words == kHeaderBytes);
  std::memcpy(bytes.data(), words, kHeaderBytes);
  return bytes;
}

bool decode(const std::byte* bytes, Header* header) {
  uint64_t words[3];
  std::memcpy(words, bytes, kHeaderBytes);
  const unsigned kind = words[0] >> 12 & 15, collective = words[0] >> 8 & 15;
  const unsigned datatype = words[0] >> 20 & 15, op = words[0] >> 16 & 15;
  if ((words[0] & 255) != kMagic || kind < 1 || kind > 4 ||
      collective >= static_cast<unsigned>(kCollectiveCount) ||
      datatype >= static_cast<unsigned>(kDatatypeCount) ||
      op > static_cast<unsigned>(kReductionCount))
    return false;
  header->kind = static_cast<MessageKind>(kind);
  header->bytes = words[0] >> 24;
  header->sequence = static_cast<uint32_t>(words[1]);
  header->request = {static_cast<Collective>(collective),
                     static_cast<Datatype>(datatype),
                     static_cast<Reduction>(op),
                     false,
                     static_cast<int>(static_cast<uint32_t>(words[1] >> 32)),
                     words[2]};
  return true;
}

std::string text_of(const Header& header, bool sender) {
  if (header.kind == MessageKind::point_to_point)
    return fmt::format("{}(count={}, {}) as transfer {}", sender ? "send" : "recv",
                       header.request.count, name_of(header.request.datatype), header.sequence);
  return fmt::format("{} as operation {}", plan::text_of(header.request), header.sequence);
}

}  // namespace railccl::runtime
