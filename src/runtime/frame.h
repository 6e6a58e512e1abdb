// Frame: the 24 bytes in front of every message, which say what the sender is calling.
//
// A header describes the sender's call completely (not as a hash), so that a receiver that expected
// something else can name both calls before it combines a single byte. Layout, little endian:
//
//   byte 0      magic
//   byte 1      kind (high 4 bits), collective (low 4 bits)
//   byte 2      datatype (high 4 bits), reduction (low 4 bits)
//   byte 3-7    payload bytes (40 bits)
//   byte 8-11   sequence number of the operation, modulo 2^32
//   byte 12-15  root
//   byte 16-23  count of the request
//
// in_place is left out on purpose: ranks may differ in it.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#include "plan/plan.h"

namespace railccl::runtime {

inline constexpr size_t kHeaderBytes = 24;
inline constexpr uint64_t kMessageBytesMax = (uint64_t{1} << 40) - 1;

enum class MessageKind : uint8_t { data = 1, signal = 2, point_to_point = 3, buffers = 4 };

struct Header {
  MessageKind kind = MessageKind::data;
  uint32_t sequence = 0;
  uint64_t bytes = 0;
  plan::Request request;

  friend bool operator==(const Header& a, const Header& b);
};

/// Do both belong to one call? (It may have messages of several kinds and sizes.)
bool same_call(const Header& a, const Header& b);

using HeaderBytes = std::array<std::byte, kHeaderBytes>;
HeaderBytes encode(const Header& header);
/// Changes the sequence number of an encoded header.
inline void set_sequence(HeaderBytes* bytes, uint32_t sequence) {
  std::memcpy(bytes->data() + 8, &sequence, sizeof sequence);
}
/// False when the bytes are no header of ours; nothing in them may be trusted then.
bool decode(const std::byte* bytes, Header* header);

/// "all_reduce(count=8, float, sum) as operation 3", "send(count=8, float) as transfer 3".
std::string text_of(const Header& header, bool sender);

}  // namespace railccl::runtime
