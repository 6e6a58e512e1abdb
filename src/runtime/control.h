// Control: a communicator's out-of-band nerve, along the tree that rendezvous left.
//
// It carries four things: stall reports (a rank that makes no progress says which call it is in;
// rank 0 compares, and when calls with the same sequence number differ, everyone gets one verdict
// that names both), aborts (everyone learns of the first, with its reason), deaths (a neighbour's
// socket closed without goodbye), and all-gathers (for split and shrink, while the communicator
// lives). One thread per process serves all communicators of the process (epoll, woken by eventfd).
//
// verdict() is one relaxed load while all is well, so that hot loops may call it. Any thread may
// call anything here.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/settings.h"
#include "base/status.h"
#include "runtime/rendezvous.h"

namespace railccl::runtime {

/// How the text of a death ends.
inline constexpr char kVanished[] = "vanished";

/// What another rank has told lately.
struct RankNews {
  int rank = -1;
  bool left = false;  // it is done with the communicator
  uint64_t number =
      0;  // the operation that it waits in; of one that has left: how many it finished
  std::string call;
  int64_t told_ns = 0;  // as now_ns()
};

class Control {
 public:
  /// Takes the meeting's sockets. `on_failure` is called once, from the control thread, when the
  /// verdict becomes a failure: to wake whoever sleeps.
  static Result<std::shared_ptr<Control>> start(std::unique_ptr<Meeting> meeting,
                                                const Settings& settings,
                                                std::function<void()> on_failure);
  virtual ~Control() = default;

  /// ok, or why this communicator cannot go on. Sticky: the first failure wins.
  Status verdict() const { return failed_.load(std::memory_order_acquire) ? failure() : Status(); }
  bool failed() const { return failed_.load(std::memory_order_acquire); }

  /// This rank waits inside operation `sequence`, whose description is `call`, for `waited_ms`.
  /// Cheap to repeat; call it from the slow path of a wait (every settings.stall_ms).
  virtual void report_stall(uint64_t sequence, const std::string& call, int64_t waited_ms) = 0;
  /// This rank finished operation `sequence`; answers to later questions about it. Never blocks.
  virtual void note_done(uint64_t sequence) = 0;
  /// Count of operations that this rank has finished.
  virtual uint64_t finished() const = 0;
  /// This rank saw a message that belongs to another call: `theirs` from `peer`.
  virtual void report_mismatch(uint64_t sequence, const std::string& mine, int peer,
                               const std::string& theirs) = 0;
  /// Ranks that have not entered `sequence`, as far as rank 0 knows: for timeouts. Bounded wait.
  virtual std::string who_is_missing(uint64_t sequence) = 0;

  /// What is known here of other ranks: a rank knows of those below it in the control tree, so rank
  /// 0 of all. Who waits says so every RAILCCL_STALL_MS; of who does not there is nothing to know.
  virtual std::vector<RankNews> news() const = 0;

  /// Makes the verdict a failure here and, by and by, everywhere.
  virtual void fail(const Status& why) = 0;

  /// Everyone's bytes, index = rank; collective, in the same order on all ranks; ends early when
  /// the verdict is a failure or at `timeout_ms`.
  virtual Result<std::vector<std::string>> all_gather(const std::string& mine,
                                                      int64_t timeout_ms) = 0;

  /// Messages that this rank has sent to its neighbours and received from them until now, those of
  /// the meeting included. Any thread.
  virtual Traffic traffic() const = 0;

  /// Says goodbye, so that closing the sockets is no death. Idempotent.
  virtual void leave() = 0;

 protected:
  virtual Status failure() const = 0;
  std::atomic<bool> failed_{false};
};

}  // namespace railccl::runtime
