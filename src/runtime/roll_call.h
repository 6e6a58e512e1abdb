// RollCall: the roll (roll.h) of one communicator over sockets.
//
// Every rank listens from the beginning; the addresses are among what the ranks told when they met.
// Nothing is sent and no thread runs before a failure. Then a thread of this communicator connects
// to those that it has to talk to: to the leader, and the leader to all. Nobody else can be dead
// without their being told: who listens no more or closes is dead; who says nothing for silent_ms
// is silent.
//
// Round 0 belongs to the verdict (verdict.h): it begins by itself, on all ranks, as soon as one
// begins it. Later ones are for whoever calls agree(), in the same order on all ranks.
//
// Any thread may call anything here, except that nobody may call during stop(). Private to this
// room.
#pragma once

#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <thread>

#include "base/owners.h"
#include "runtime/reactor.h"
#include "runtime/roll.h"
#include "runtime/sockets.h"

namespace railccl::runtime {

class RollCall final : public Reactor::Client, public std::enable_shared_from_this<RollCall> {
 public:
  struct Place {
    int rank = 0;
    uint64_t job = 0;  // a secret of the communicator
    std::vector<std::string> addresses;
    UniqueFd listener;
    int64_t silent_ms = 2000;
  };
  /// Called by the roll's thread, without a lock.
  struct Hooks {
    /// What this rank says in round 0; nothing: not yet. `last`: what is known must do.
    std::function<std::optional<std::string>(bool last)> account;
    /// Another rank has begun.
    std::function<void()> called;
    /// Round 0's result.
    std::function<void(const RollResult&)> told;
    /// The others go on without this rank.
    std::function<void(const std::string& why)> excluded;
    /// A rank is gone: at the latest when the leader knows.
    std::function<void(int rank, Gone how)> lost;
  };

  static Result<std::shared_ptr<RollCall>> open(Place place, Hooks hooks);
  ~RollCall() override = default;

  /// Calls round 0. Never blocks.
  void begin();
  /// Waits for round 0's result, at most so long.
  void wait_for_verdict(int64_t timeout_ms);
  /// Takes part in `round` (from 1); waits until it is decided. Whoever has not come after
  /// `timeout_ms` is left out.
  Result<RollResult> agree(uint64_t round, std::string text, int64_t timeout_ms);
  bool decided(uint64_t round) const {
    std::lock_guard lock(mutex_);
    return roll_.result(round) != nullptr;
  }
  /// The caller knows that these have no part in what comes: nobody waits for them.
  void leave_out(const std::vector<int>& ranks);
  /// Ends this rank's part; the others take it for one that has left. Idempotent.
  void stop();

  void on_ready(uint32_t) override;
  void on_wake() override {}

 private:
  struct Line {
    UniqueFd socket;
    int rank = -1;  // -1: has not said who it is
    bool connecting = false;
    bool closing = false;  // when all is sent
    std::string in, out;
    std::vector<Endpoint> others;  // to try when this one does not answer
    bool refused = true;           // so far
    int64_t since_ns = 0;          // of the attempt to connect, of silence, of closing
    bool done = false;
  };

  RollCall(Place place, Hooks hooks, Reactor* reactor);
  void start_thread();  // under mutex_
  void ring();
  void run();
  void take_part(int64_t now);
  void deliver();
  void write_to(int rank, const RollMessage& message);
  void connect(int rank);
  void try_next(Line& line);
  void accept_all(int64_t now);
  void read(Line& line, int64_t now);
  bool take_frame(Line& line);
  void flush(Line& line);
  void ended(Line& line, Gone how);
  void look_after_lines(int64_t now);
  void say_leaving();
  void farewell();
  int wait_ms() const;

  Place place_;
  const int ranks_;
  const Hooks hooks_;
  Reactor* const reactor_;
  uint64_t id_ = 0;
  UniqueFd bell_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Roll roll_;
  std::thread thread_;
  bool started_ = false;
  bool stopping_ = false;
  bool begun_ = false;
  bool told_ = false;                      // round 0 is over for this rank, one way or the other
  std::map<uint64_t, int64_t> deadlines_;  // round -> when its leader gives those up that miss

  // Of the thread.
  std::list<Line> lines_;
  std::set<int> lost_;  // told to hooks_.lost
  bool heard_of_exclusion_ = false;
  bool accounted_ = false;
  bool called_ = false;
  int64_t asked_ns_ = 0;   // when account() was asked first
  int64_t signed_ns_ = 0;  // when the last signs of life were given
  int64_t passed_ns_ = 0;  // of the last pass
};

}  // namespace railccl::runtime
