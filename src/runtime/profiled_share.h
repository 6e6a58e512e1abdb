// ProfiledShare: what a Share (batch.h) tells a profiler plugin of its calls.
//
// A Share is a group, also when it is one call alone. In it are its collectives, one after the
// other, from when their plans are known to their ends, and its sends and receives, which begin and
// end together. Of a collective there is one proxy operation for each link of a network and
// direction, as long as the collective: what moves its bytes is this thread, no proxy. From version
// 5 of the interface on a group and its calls are wrapped in events of the API of the same times:
// calls may have been recorded, or queued, long before.
//
// By the thread of the Share.
#pragma once

#include <span>
#include <vector>

#include "runtime/communicator.h"
#include "runtime/plan_cache.h"
#include "runtime/profiler.h"
#include "runtime/wires.h"

namespace railccl::runtime {

class ProfiledShare {
 public:
  ProfiledShare(Profiler* profiler, const Wires* wires);
  /// Whatever has not ended has ended now.
  ~ProfiledShare();
  ProfiledShare(const ProfiledShare&) = delete;
  ProfiledShare& operator=(const ProfiledShare&) = delete;

  void transfers_begin(std::span<const Call> calls);
  void transfers_end() { stop(&transfers_); }
  void collective_begins(const Call& call, uint64_t sequence, const ReadyPlan& plan);
  void collective_ends() { stop(&collective_); }

 private:
  struct Open {
    ProfiledEvent event;
    void* handle = nullptr;
  };
  void* start(std::vector<Open>* into, const ProfiledEvent& event);
  void stop(std::vector<Open>* open);

  Profiler* const profiler_;
  const Wires* const wires_;
  std::vector<Open> group_, transfers_, collective_;  // those that began last end first
  void* group_api_ = nullptr;
  void* group_event_ = nullptr;
};

}  // namespace railccl::runtime
