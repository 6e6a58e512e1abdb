// The root of a rendezvous: takes one hello per rank, then tells each where its parent is.
// Private to this room.
#pragma once

#include "runtime/rendezvous_wire.h"
#include "runtime/sockets.h"

namespace railccl::runtime {

/// Serves one meeting, in a thread of its own, until all ranks came, the ranks' patience is over,
/// their counts contradict, or `*stop`. An unused root gives up after a day.
Status start_root(UniqueFd listener, const Nonce& nonce,
                  std::shared_ptr<const std::atomic<bool>> stop);

/// The same in the calling thread.
void serve_root(UniqueFd listener, const Nonce& nonce, const std::atomic<bool>& stop);

}  // namespace railccl::runtime
