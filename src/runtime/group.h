// Groups: what a thread records between group_start() and group_end(). Private to this room; the
// public functions are in communicator.h.
#pragma once

#include <memory>
#include <vector>

#include "runtime/member.h"

namespace railccl::runtime {

/// Puts the call into this thread's open group.
void record(std::shared_ptr<Member> member, const Call& call, Stream* stream);

/// Queues one call of one communicator on a stream.
void enqueue(std::shared_ptr<Member> member, const Call& call, Stream& stream, bool counted);

}  // namespace railccl::runtime
