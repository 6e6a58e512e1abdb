// What libibverbs gives, owned.
#pragma once

#include <memory>

#include "transport/verbs_library.h"

namespace railccl::transport {

/// Gives something back to the library: close_device, dealloc_pd, ...
template <typename T, auto Member>
struct VerbsDelete {
  void operator()(T* thing) const { ((*verbs_library()).*Member)(thing); }
};
template <typename T, auto Member>
using VerbsOwner = std::unique_ptr<T, VerbsDelete<T, Member>>;
using VerbsMemory = VerbsOwner<ibv_mr, &VerbsLibrary::dereg_mr>;
using VerbsQueuePair = VerbsOwner<ibv_qp, &VerbsLibrary::destroy_qp>;

}  // namespace railccl::transport
