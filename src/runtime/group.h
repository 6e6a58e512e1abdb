// Groups: what a thread records between group_start() and group_end(). Private to this room; the
// public functions are in communicator.h.
#pragma once

#include <memory>
#include <vector>

#include "runtime/gpu_staging.h"
#include "runtime/member.h"

namespace railccl::runtime {

/// A call that is to run. On a GPU's stream (places.any): until StagedGroup::begin() has seen it,
/// its buffers are the caller's and it has no stream of ours.
struct Recorded {
  std::shared_ptr<Member> member;
  Call call;
  Stream* stream = nullptr;
  OnGpu places;
};

/// Puts the call into this thread's open group.
void record(std::shared_ptr<Member> member, const Call& call, Stream* stream);
/// The same with buffers of a GPU; outside a group it is queued at once.
Status record_or_launch(std::shared_ptr<Member> member, const Call& call, const OnGpu& places);

/// Queues one call of one communicator on a stream.
void enqueue(std::shared_ptr<Member> member, const Call& call, Stream& stream, bool counted);

}  // namespace railccl::runtime
