// Status wire: how a process is asked what its communicators do: where it listens, and what it
// takes for a question. It listens on a Unix socket with an abstract name, which leaves nothing
// behind however the process ends; whoever asks is answered with a text (picture_text.h), if he is
// the same user, or root. Pure functions.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace railccl::runtime {

/// Whose name a socket has. Anybody may take any name: who answers there is for the kernel to say.
struct StatusName {
  uint64_t user = 0;
  uint64_t process = 0;  // as its own namespace numbers it
  uint64_t nonce = 0;    // lets a process listen though somebody has taken its name
  friend bool operator==(const StatusName&, const StatusName&) = default;
};
/// "railccl-status/1000/4711/1f", without the zero byte before it that makes it abstract.
std::string encode(const StatusName& name);
std::optional<StatusName> parse_status_name(std::string_view text);

enum class StatusQuestion : uint8_t {
  status,      // with the last few operations
  operations,  // with all that are remembered
};
inline constexpr size_t kQuestionBytesMax = 32;
/// A line, its end included.
std::string encode(StatusQuestion question);
std::optional<StatusQuestion> parse_question(std::string_view line);

}  // namespace railccl::runtime
