// Control messages on the wire; see control_wire.h.
#include "runtime/control_wire.h"

#include "runtime/pack.h"
#include "runtime/rendezvous_wire.h"

namespace railccl::runtime {
namespace {

bool gathers(ControlKind kind) {
  return kind == ControlKind::gather_up || kind == ControlKind::gather_down;
}

}  // namespace

const char* name_of(ControlKind kind) {
  switch (kind) {
    case ControlKind::intro:
      return "intro";
    case ControlKind::leave:
      return "leave";
    case ControlKind::fail:
      return "fail";
    case ControlKind::stall:
      return "stall";
    case ControlKind::gather_up:
      return "gather_up";
    case ControlKind::gather_down:
      return "gather_down";
    case ControlKind::ask:
      return "ask";
    case ControlKind::probe:
      return "probe";
    case ControlKind::report:
      return "report";
    case ControlKind::answer:
      return "answer";
  }
  return "unknown";
}

std::string encode(const ControlMessage& message) {
  const std::string_view text = message.text;
  Packer packer;
  packer.add(static_cast<uint64_t>(message.kind))
      .add(static_cast<uint64_t>(message.rank))
      .add(message.sequence)
      .add(message.number)
      .add(message.extra)
      .add(gathers(message.kind) ? text : text.substr(0, kControlTextBytesMax));
  return std::move(packer).take();
}

Result<ControlMessage> parse_control(std::string_view bytes, int ranks) {
  Unpacker unpacker(bytes);
  uint64_t kind = 0, rank = 0;
  ControlMessage message;
  if (!unpacker.get(&kind) || kind < 1 || kind > kControlKindLast || !unpacker.get(&rank) ||
      rank >= static_cast<uint64_t>(ranks) || !unpacker.get(&message.sequence) ||
      !unpacker.get(&message.number) || !unpacker.get(&message.extra) ||
      !unpacker.get(&message.text) || !unpacker.at_end())
    return Status(Code::remote, "malformed control message of {} bytes", bytes.size());
  message.kind = static_cast<ControlKind>(kind);
  message.rank = static_cast<int>(rank);
  if (!gathers(message.kind) && message.text.size() > kControlTextBytesMax)
    return Status(Code::remote, "a {} message with {} bytes of text; at most {} are allowed",
                  name_of(message.kind), message.text.size(), kControlTextBytesMax);
  return message;
}

uint64_t control_frame_bytes_max(int ranks) {
  constexpr uint64_t kFields = 6 * sizeof(uint64_t);
  return kFields + contributions_bytes_max(ranks);
}

bool comes_down(ControlKind kind) {
  switch (kind) {
    case ControlKind::intro:
    case ControlKind::leave:
    case ControlKind::fail:
    case ControlKind::gather_down:
    case ControlKind::probe:
    case ControlKind::answer:
      return true;
    default:
      return false;
  }
}

bool comes_up(ControlKind kind) {
  switch (kind) {
    case ControlKind::gather_down:
    case ControlKind::probe:
    case ControlKind::answer:
      return false;
    default:
      return true;
  }
}

}  // namespace railccl::runtime
