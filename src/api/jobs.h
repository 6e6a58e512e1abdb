// Jobs: the making of communicators (init, split, shrink, windows), which may be recorded in a
// group so that one thread can make several ranks. Private to this room.
//
// Outside a group a job runs at once, in the caller. Inside, the outermost group end runs all of
// the thread's jobs at the same time, each in a thread of its own (they wait for each other), and
// after that the communications of the group.
#pragma once

#include <functional>

#include "api/handle.h"

namespace railccl::api {

/// Runs or records `work`. Inside a group this is ok, and the group's end has the outcome.
Status run_job(std::function<Status()> work);

/// A call inside a group was refused: the group will not run, and its end says why.
void refuse_group(const Status& why);

/// Inside a group: records what a one-sided call does, for the group's end. Then the group's
/// communications come first, then what writes and signals, then what waits for signals.
void run_at_group_end(bool waits, std::function<Status()> work);

/// Remembers a non-blocking communicator of the open group, for the group end's return value.
void note_nonblocking(const std::shared_ptr<runtime::Communicator>& communicator);

/// Remembers the handle of a communicator that the open group makes, for the same.
void note_making(ncclComm_t handle);

void begin_group();
/// *in_progress: something non-blocking goes on.
Status end_group(bool* in_progress);
/// Drops everything recorded; *estimate_s: what the collectives would have taken.
Status simulate_group(double* estimate_s);

}  // namespace railccl::api
