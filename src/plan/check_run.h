// CheckRun: all ranks' programs, run together on symbolic memory.
//
// Every channel of every rank is a thread with a position in its program and a vector clock. A
// thread runs until it blocks. What it can do next depends on its own steps and on queues that one
// thread fills and one empties, so every order of running the threads ends in the same state, or
// finds the plan wrong.
//
// Private to the plan room; see checker.h for what is proven. One CheckRun makes one run.
#pragma once

#include <deque>
#include <vector>

#include "plan/checker.h"
#include "plan/contributions.h"
#include "plan/memory.h"

namespace railccl::plan {

class CheckRun {
 public:
  /// `programs` (rank order, each validated) and `options` must outlive the run.
  CheckRun(const Request& request, const std::vector<Program>& programs,
           const CheckOptions& options);
  Result<CheckReport> run();

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};

  struct Message {
    bool signal = false;
    uint64_t count = 0;
    std::vector<Piece> pieces;
    VectorClock clock;
    uint64_t depth = 0;  // messages in the longest chain that ends with this one
    uint32_t receipt = History::kNone;
    size_t step = 0;  // of the sender, for errors
  };

  /// Messages of one thread to one peer or to one other channel, in order.
  struct Queue {
    uint32_t from = 0;              // thread
    int to_rank = 0;                // the receiver's channel is the sender's, or
    int to_channel = kHere;         // this one: a signal between channels of one rank
    std::deque<uint32_t> messages;  // in flight
    uint64_t posted = 0;
    uint64_t elements = 0;
  };

  enum class Obstacle : uint8_t { none, nothing_arrived, window_full, source_in_flight };

  struct Thread {
    int rank = 0;
    int channel = 0;
    size_t loop = 0;
    uint32_t step = 0;  // within the loop
    uint64_t iteration = 0;
    bool done = false;
    bool queued = false;  // for running
    Obstacle obstacle = Obstacle::none;
    size_t obstacle_step = 0;  // source_in_flight: the send that it waits for
    uint64_t depth = 0;
    VectorClock clock;
    std::vector<uint32_t> outgoing;  // queue by peer, then by channel of this rank; kNone: not yet
  };

  /// The source of a posted send that was not received yet.
  struct InFlight {
    int rank = 0;  // whose memory
    uint64_t start = 0;
    uint64_t end = 0;
    uint32_t message = 0;
    size_t step = 0;
  };

  /// Addresses of one rank's buffers, see memory.h.
  struct Layout {
    uint64_t input_at = 0, input = 0;
    uint64_t output_at = 0, output = 0;
    uint64_t scratch_at = 0, scratch = 0;
    uint64_t total() const { return scratch_at + scratch; }
  };

  /// What a slice is in one iteration.
  struct Range {
    int rank = 0;
    Buffer buffer = Buffer::input;
    uint64_t start = 0;  // address
    uint64_t count = 0;
  };

  Status lay_out(int rank);
  void start_threads();
  Status run_threads();
  Status advance(uint32_t thread);
  Status perform(uint32_t thread, const Step& step);

  // One function per kind of step. They set the thread's obstacle when the step cannot happen yet,
  // and then have changed nothing.
  Status perform_local(uint32_t thread, const Step& step);
  Status perform_send(uint32_t thread, const Step& step);
  Status perform_recv(uint32_t thread, const Step& step);
  Status perform_signal(uint32_t thread, const Step& step);
  Status perform_wait(uint32_t thread, const Step& step);

  Status resolve(const Thread& thread, const Slice& slice, bool writes, Range& range) const;
  Status apart(const Thread& thread, const Range& dst, const Range& src) const;
  /// The ranges that a copy or reduce writes, into destinations_; they do not touch each other.
  Status resolve_destinations(const Thread& thread, const Step& step);
  bool blocked_by_send(Thread& thread, const Range& dst);
  /// What the range holds, as `thread` reads it for a step with or without pre.
  Status read(uint32_t thread, const Range& range, bool pre, uint32_t receipt,
              std::vector<Piece>& pieces);
  Status write(uint32_t thread, const Range& range, bool post, std::vector<Piece>& pieces);
  Status combine(const Thread& thread, const Range& dst, const std::vector<Piece>& a,
                 const std::vector<Piece>& b, std::vector<Piece>& result);

  /// The queue from a thread to a rank, or to a channel of its own rank; made when new.
  uint32_t queue_to(uint32_t thread, int peer, int channel);
  /// The queue from a channel of a rank, kNone if the rank has no such channel.
  uint32_t queue_from(int rank, int channel, int to, int to_channel);
  uint32_t new_message(uint32_t thread);
  void post(uint32_t thread, uint32_t queue, uint32_t message);
  void take(uint32_t thread, const Message& message);
  void finish_message(uint32_t queue);
  void wake(int rank);

  // After the last step.
  Status stuck() const;
  Status nothing_left() const;
  Status nobody_looks_in() const;
  Status outputs_right() const;
  Status output_right(int rank, uint64_t element, uint64_t length, int contributor,
                      uint64_t base) const;
  void count();

  const Step* current(const Thread& thread) const;
  size_t step_index(const Thread& thread) const;
  Epoch now(uint32_t thread) const {
    return {thread, tracked_ ? threads_[thread].clock[thread] : kStartClock};
  }
  std::string place(const Thread& thread) const;
  std::string element_text(const Thread& thread, const Range& range, uint64_t address) const;
  std::string content_text(const Piece& piece) const;
  Status race(const Thread& thread, const Range& range, bool writes,
              const Conflict& conflict) const;
  template <typename... Args>
  Status wrong(const Thread& thread, fmt::format_string<Args...> format, Args&&... args) const {
    return Status(Code::internal, "{}: {}", place(thread),
                  fmt::format(format, std::forward<Args>(args)...));
  }

  const Request& request_;
  const std::vector<Program>& programs_;
  const CheckOptions& options_;
  const int ranks_;
  const bool reduces_;

  ContributionSets sets_;
  History history_;
  std::vector<Layout> layouts_;         // per rank
  std::vector<Memory> memories_;        // per rank
  std::vector<uint32_t> first_thread_;  // per rank, and one past the last
  std::vector<Thread> threads_;
  std::vector<Queue> queues_;
  std::vector<Message> messages_;
  std::vector<uint32_t> free_messages_;
  std::vector<std::vector<InFlight>> in_flight_;  // per rank that sends
  std::deque<uint32_t> ready_;
  bool tracked_ = false;  // some memory is reached by more than one thread
  uint64_t steps_run_ = 0;
  CheckReport report_;
  std::vector<Piece> operand_, others_, result_;  // of the step being performed
  std::vector<Range> destinations_;               // of the step being performed
};

}  // namespace railccl::plan
