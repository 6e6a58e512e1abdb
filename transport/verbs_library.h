// libibverbs, loaded at run time: one binary runs with and without it. Its functions under their
// own names, without the prefix; what its header has inline (ibv_post_send and its kin) needs no
// library.
//
// Loaded once per process and kept: drivers leave threads and handlers behind. Any thread.
#pragma once

#include <infiniband/verbs.h>

#include "base/status.h"

// The header covers these two with macros whose expansions call the library by name.
#undef ibv_reg_mr
#undef ibv_query_port

namespace railccl::transport {

struct VerbsLibrary {
  // Each member has the type of the function that its name stands for.
#define RAILCCL_VERBS(name) decltype(::ibv_##name)* name = nullptr;
#include "transport/verbs_library.def"
#undef RAILCCL_VERBS
  decltype(::_ibv_query_gid_ex)* query_gid_ex = nullptr;
};

/// The library, or why there is none, in a sentence for the user.
const Result<VerbsLibrary>& verbs_library();

}  // namespace railccl::transport
