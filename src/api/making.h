// How calls make communicators: a handle at once, its communicator now or at the group's end.
// Private to this room.
#pragma once

#include <cstring>

#include "api/jobs.h"

namespace railccl::api {

inline runtime::UniqueId id_from(const ncclUniqueId& id) {
  static_assert(sizeof id == sizeof(runtime::UniqueId));
  runtime::UniqueId bytes;
  std::memcpy(bytes.data(), &id, sizeof id);
  return bytes;
}

/// Makes a communicator by `make`, in this call or at the end of the group, into *slot. There the
/// handle lies from now on only where the caller gets to run before it is made: in a group. Else
/// another thread could abort what this one still waits in.
template <typename Make>
Status make_into(ncclComm_t* slot, const Make& make) {
  const ncclComm_t handle = new_handle();
  const bool later = runtime::group_depth() > 0;
  *slot = later ? handle : nullptr;
  if (later) note_making(handle);
  return run_job([slot, handle, make]() -> Status {
    Result<std::shared_ptr<runtime::Communicator>> made = make();
    if (!made.is_ok() || *made == nullptr) {
      end_handle(handle, [] {});
      *slot = nullptr;
      return made.status();
    }
    set_communicator(handle, std::move(made).value());
    *slot = handle;
    return ok();
  });
}

}  // namespace railccl::api
