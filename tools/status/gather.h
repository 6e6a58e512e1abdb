// Gather: asks the processes of this host that have communicators what these do.
//
// Who belongs to another user is left alone, and so is who only took such a process's name. A
// process that does not answer in time (stopped, or starved) is listed as that.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "runtime/status_wire.h"

namespace railccl::status {

struct Answer {
  enum class Outcome : uint8_t {
    answered,
    silent,  // until the limit
    broken,  // it hung up, or said more than anybody has to say
  };
  int process = 0;  // as this process's namespace numbers it
  Outcome outcome = Outcome::silent;
  std::string text;   // answered
  std::string state;  // silent: "stopped", "running", ..., as the kernel has it
};

/// Those in /proc/net/unix, whose text is `table`, that listen.
std::vector<runtime::StatusName> names_in(std::string_view table);

/// Asks all at once; `limit_ms` for all together.
Result<std::vector<Answer>> ask_all(runtime::StatusQuestion question, int64_t limit_ms);

}  // namespace railccl::status
