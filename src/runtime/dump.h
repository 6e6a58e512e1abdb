// Dump: what a process knows of its communicators, left in a file for those who come when it is
// gone. Private to this room.
#pragma once

#include <string>

#include "base/status.h"

namespace railccl::runtime {

/// Writes FOLDER/railccl-HOST-PID.json, readable by its user alone: the text of picture_text.h, at
/// most 16 MiB. A later dump of the process takes the place of an earlier one, never half of it.
/// Its name. Any thread; blocks for the file system.
Result<std::string> write_dump(const std::string& folder);

}  // namespace railccl::runtime
