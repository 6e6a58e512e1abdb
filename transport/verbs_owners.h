// What libibverbs gives, owned.
//
// The child of a fork has copies of the owners, and descriptors by which it could destroy what is
// its parent's: there they give nothing back.
#pragma once

#include <memory>

#include "base/forks.h"
#include "transport/verbs_library.h"

namespace railccl::transport {

/// Gives something back to the library: close_device, dealloc_pd, ...
template <typename T, auto Member>
struct VerbsDelete {
  unsigned born = forks_so_far();
  void operator()(T* thing) const {
    if (forks_so_far() == born) ((*verbs_library()).*Member)(thing);
  }
};
template <typename T, auto Member>
using VerbsOwner = std::unique_ptr<T, VerbsDelete<T, Member>>;
using VerbsMemory = VerbsOwner<ibv_mr, &VerbsLibrary::dereg_mr>;
using VerbsQueuePair = VerbsOwner<ibv_qp, &VerbsLibrary::destroy_qp>;

}  // namespace railccl::transport
