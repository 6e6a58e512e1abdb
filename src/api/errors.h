// From Status to ncclResult_t and ncclGetLastError. Private to this room.
#pragma once

#include <exception>
#include <new>

#include "api/exports.h"
#include "base/status.h"

namespace railccl::api {

ncclResult_t code_of(const Status& status);

/// What a call returns: on failure remembers the text for this thread, with the name of the
/// function, and warns of it in the log, unless that has been done.
ncclResult_t finish(const char* function, const Status& status) noexcept;

/// This thread's last failure; empty before the first.
const std::string& last_error();
void set_last_error(std::string text);

/// Runs `body`, which returns a Status. No exception gets past it.
template <typename Body>
ncclResult_t call(const char* function, const Body& body) noexcept {
  try {
    return finish(function, body());
  } catch (const std::bad_alloc&) {
    return finish(function, Status(Code::system, "out of memory"));
  } catch (const std::exception& error) {
    return finish(function, Status(Code::internal, "unexpected exception: {}", error.what()));
  }
}

/// The failure of a pointer argument that must not be null.
inline Status not_null(const void* pointer, const char* name) {
  if (pointer != nullptr) return ok();
  return Status(Code::invalid_argument, "{} is null", name);
}

}  // namespace railccl::api
