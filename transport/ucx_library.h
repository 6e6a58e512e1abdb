// libucp, loaded at run time: one binary runs with and without it. Its functions under their own
// names, without the prefix.
//
// Loaded once per process and kept: it leaves threads and handlers behind. Any thread.
#pragma once

#include <ucp/api/ucp.h>

#include "base/status.h"

namespace railccl::transport {

struct UcxLibrary {
  // Each member has the type of the function that its name stands for.
#define RAILCCL_UCX(name) decltype(::ucp_##name)* name = nullptr;
#include "transport/ucx_library.def"
#undef RAILCCL_UCX
  decltype(::ucs_status_string)* status_string = nullptr;
};

/// The library, or why there is none, in a sentence for the user.
const Result<UcxLibrary>& ucx_library();

}  // namespace railccl::transport
