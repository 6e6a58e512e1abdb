// The messages of the control tree. One form for all kinds, so that one parser guards the door: it
// takes arbitrary bytes and gives a message that passed all checks, or a Status. Pure functions.
// Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace railccl::runtime {

/// Up: towards rank 0. Down: away from it, to everyone. An operation's "count" is its sequence
/// number plus one: how many operations there are up to and with it.
enum class ControlKind : uint8_t {
  intro = 1,    // to each neighbour, first: number = process id, text = host name
  leave,        // to each neighbour, then up: number = count of finished operations
  fail,         // to all: number = Code, extra = Scope, text = why; rank = where it was noticed
  stall,        // up: rank waits in operation `sequence`; text = the call
  gather_up,    // up: sequence = round, text = contributions
  gather_down,  // down: sequence = round, text = all contributions
  ask,          // up: rank wants to know who misses operation `sequence`; number = its query
  probe,        // down: sequence = operation, number = rank 0's query
  report,       // up: number = rank 0's query, extra = count of operations that rank has entered
  answer,       // down: for `rank`, number = its query, text = the answer
};
inline constexpr uint64_t kControlKindLast = static_cast<uint64_t>(ControlKind::answer);
const char* name_of(ControlKind kind);

struct ControlMessage {
  ControlKind kind = ControlKind::intro;
  int rank = 0;  // whose message it is (answer: for whom)
  uint64_t sequence = 0;
  uint64_t number = 0;
  uint64_t extra = 0;
  std::string text;
  friend bool operator==(const ControlMessage&, const ControlMessage&) = default;
};

/// Longest text of all kinds but the two gathers.
inline constexpr size_t kControlTextBytesMax = 16 << 10;

std::string encode(const ControlMessage& message);
Result<ControlMessage> parse_control(std::string_view bytes, int ranks);

/// What a frame on the tree may hold at most, in a communicator of `ranks`.
uint64_t control_frame_bytes_max(int ranks);

/// May a message of this kind come from a tree parent, or from a tree child?
bool comes_down(ControlKind kind);
bool comes_up(ControlKind kind);

}  // namespace railccl::runtime
