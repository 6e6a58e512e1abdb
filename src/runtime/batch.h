// Batch: calls of one or several communicators, run to their end by one thread.
//
// Each communicator's part is a Share. A Share's collectives run one after the other, its sends and
// receives all at once beside them; Shares take turns, so that one thread can drive several ranks.
// The thread spins while there is hope, lets others run, then sleeps in a transport. While it
// waits it looks after the agreement of the ranks: reports stalls, heeds verdicts, keeps deadlines.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/member.h"
#include "runtime/point_to_point.h"
#include "runtime/profiled_share.h"

namespace railccl::runtime {

class Share {
 public:
  /// `calls` must outlive the Share. The ticket is of member's turnstile.
  Share(Member& member, std::span<const Call> calls, uint64_t ticket)
      : member_(member), calls_(calls), ticket_(ticket) {}

  /// A Share of one collective that runs already, by `plan` as operation `sequence`.
  Share(Member& member, const Call& call, uint64_t ticket, ReadyPlan* plan, uint64_t sequence,
        Recorder::Entry* entry)
      : member_(member),
        calls_(&call, 1),
        ticket_(ticket),
        next_(1),
        current_(&call),
        launched_(true),
        running_(plan),
        sequence_(sequence),
        entry_(entry),
        begun_(true) {}

  /// Sleeps until the communicator's turn has come.
  void wait_for_turn() const { member_.turns().wait(ticket_); }
  /// Does what it can; true when anything moved. Passes the turn on when the share is done.
  bool step();
  bool open() const { return open_; }
  /// As Execution::media_awaited(), of all that it does.
  uint32_t media_awaited() const;
  /// Ends it before its time.
  void fail(const Status& status) { end(status); }
  /// Has the turn come? Before, the communicator's wires belong to another thread.
  bool begun() const { return begun_; }
  const Status& status() const { return status_; }
  Member& member() { return member_; }
  /// Called now and then while nothing moves.
  void look_after(int64_t now_ns);
  /// Something moved.
  void moved() { waiting_since_ns_ = 0; }

 private:
  void begin();
  Status add_transfers();
  Result<bool> step_collectives();
  Result<bool> step_transfers();
  Status start_next();
  Status start(const Call& call);
  Status start_weighing(const Call& call, ReadyPlan* plan);
  Subject transfers() const;
  void record_unplanned(const plan::Request& request);
  void record_end(Record::State state);
  Status launch(const Call& call, Reach reach);
  Status failed(const Status& why, const plan::Request& request);
  Status finish_collective();
  void note_interrupted();
  void end(const Status& status);
  void close();
  const plan::Request* request_now() const;
  std::string where_now() const;
  std::string waiting_text() const;

  Member& member_;
  std::span<const Call> calls_;
  uint64_t ticket_;
  std::unique_ptr<ProfiledShare> profiled_;  // null: there is no profiler
  std::optional<PointToPoint> transfers_;    // set when there are sends or receives
  size_t next_ = 0;                          // calls_[0, next_) are started or are no collectives
  const Call* asking_ = nullptr;        // the collective whose buffers are being found out about
  const Call* weighing_for_ = nullptr;  // the collective before which running_ weighs
  const Call* current_ = nullptr;       // the collective that is not yet over
  bool launched_ = false;               // it may have written
  bool committing_ = false;             // its result is here: running_ is its commit
  ReadyPlan* running_ = nullptr;
  uint64_t sequence_ = 0;                       // of the collective that runs or asks
  Recorder::Entry* entry_ = nullptr;            // its record
  Recorder::Entry* transfers_entry_ = nullptr;  // that of the sends and receives
  bool transfers_open_ = false;
  bool begun_ = false;
  bool open_ = true;
  Status status_;
  std::string brief_;  // what status_ says besides the call and the place, if that is less
  int64_t waiting_since_ns_ = 0;
  int64_t reports_ = 0;  // stall reports of this wait
};

/// Runs all shares to their end; the first failure.
Status run(std::span<Share> shares);
/// The same, by a thread that waits already.
Status run(std::span<Share> shares, Wait& wait);

}  // namespace railccl::runtime
