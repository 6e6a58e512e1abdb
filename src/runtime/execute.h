// Execution: one rank's Program, performed over wires and kernels on bound buffers.
//
// Made once per program (which makes links and allocates), then run any number of times:
//
//   RAILCCL_TRY(auto execution, Execution::make(program, wires));
//   execution->begin({.sequence = 7, .input = in, .output = out, .scaling = scaling});
//   for (;;) {
//     Execution::Outcome outcome = execution->step();
//     if (!outcome.status || outcome.done) break;
//     if (!outcome.progressed) ...   // nothing to do now: look after others, spin or sleep
//   }
//
// step() never blocks and is bounded in time (about kBytesPerVisit per channel), so that one
// thread can drive many executions. A run neither allocates nor locks. After a failure the buffers
// hold no promise and the execution must not run again. Not thread-safe.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "plan/plan.h"
#include "runtime/strip.h"
#include "runtime/wires.h"
#include "transport/store_habit.h"

namespace railccl::runtime {

/// A message that belongs to another call than the one that runs here.
struct Mismatch {
  int peer = -1;
  std::string mine;
  std::string theirs;
};

/// The failure that a message of another call is; sets `*mismatch` to both.
Status calls_differ(int rank, int peer, const Header& mine, const Header& theirs,
                    std::optional<Mismatch>* mismatch);

/// What one call of step() brought.
struct Outcome {
  bool progressed = false;
  bool done = false;
  Status status;
};

/// What a run of a program sends to a peer on a channel, or has from it.
struct LinkLoad {
  int channel = 0;
  int peer = 0;
  bool sends = false;
  size_t medium = 0;  // its index among those of the wires
  uint64_t messages = 0;
  uint64_t bytes = 0;
  uint64_t message_bytes = 0;  // the longest
};

class Execution {
 public:
  /// A rank's buffers: as they are mapped here, or where they are in `process`.
  struct PeerBuffers {
    const std::byte* input = nullptr;
    std::byte* output = nullptr;
    kernels::Scale pre;   // of its contribution
    int64_t process = 0;  // to be fetched from; 0: mapped
  };

  /// What one run works on. The scratch comes from the wires.
  struct Operation {
    uint64_t sequence = 0;
    const void* input = nullptr;
    void* output = nullptr;
    kernels::Scaling scaling;
    const PeerBuffers* peers = nullptr;  // by rank, for plans that reach them; outlives the run
  };

  static Result<std::unique_ptr<Execution>> make(plan::Program program, Wires& wires);

  const plan::Program& program() const { return program_; }
  /// Starts a run; the previous one must be done.
  Status begin(const Operation& operation);
  Outcome step();

  /// Called now and then while step() brings nothing: fails when a peer's message shows that it
  /// makes another call.
  Status look_aside();

  /// May runs be strips? Not all need to be: is_strip() tells after begin().
  bool may_be_strip() const { return plain_strip_.has_value(); }
  /// Is the current run a strip, which is fast enough to spin for?
  bool is_strip() const { return strip_ != nullptr; }
  /// One step of a strip, without the ceremony: blocked, or call step() to learn the rest.
  Strip::State step_strip() { return strip_->step(); }

  /// Set when step() or look_aside() failed because the ranks' calls differ.
  const std::optional<Mismatch>& mismatch() const { return mismatch_; }
  /// What a run moves over each link, by channels.
  std::vector<LinkLoad> loads() const;
  /// Bit m is set when the program's messages go over medium m of the wires.
  unsigned media() const { return media_; }
  /// What the run waits for, for people: "channel 0 waits for recv from rank 2 (shm to ...)".
  std::string waiting_for() const;
  /// The media that the run waits for, a bit for each; 0: none of them can help it now.
  uint32_t media_awaited() const;

 private:
  static constexpr size_t kBytesPerVisit = 256 << 10;

  enum class Progress : uint8_t { blocked, partial, finished };

  /// Where one channel stands.
  struct Cursor {
    uint32_t loop = 0;
    uint32_t step = 0;
    uint64_t iteration = 0;
    uint64_t elements = 0;  // of the current step that are finished
    size_t budget = 0;      // bytes left in this visit
    bool checked = false;   // the current step's hazards are gone, its memory is resolved
    bool done = false;
  };

  struct PeerMemory {
    int rank = -1;
    size_t bytes = 0;  // as far as this program looks, in one turn
    std::byte* base = nullptr;
  };

  Execution(plan::Program program, Wires& wires) : program_(std::move(program)), wires_(wires) {}

  Status bind();
  kernels::Store store_of_results() const;
  template <typename Visit>
  void each_slice(const plan::Step& step, const Visit& visit) const;
  void note_peer_memory(const plan::Slice& slice, uint64_t iterations);
  Result<bool> map_peers(const plan::Step& step);

  Result<bool> advance(int channel);
  void next_step(int channel);
  Result<Progress> perform(int channel, const plan::Step& step);
  Result<Progress> perform_local(Cursor& cursor, const plan::Step& step);
  bool is_fetch(const plan::Step& step) const;
  Status fetch(const plan::Step& step, size_t bytes);
  void combine(const plan::Step& step, uint64_t count, const kernels::Scale& post);
  void copy_input(void** to, int outputs, size_t bytes, kernels::Store store);
  void combine_scaled(const plan::Step& step, uint64_t count, const kernels::Scale& post);
  static inline const kernels::Scale kNoScale{};
  const kernels::Scale& pre_of(const plan::Step& step, const plan::Slice& slice) const;
  bool elsewhere(const plan::Slice& slice) const {
    return slice.owner != plan::kHere && slice.owner != program_.rank;
  }
  /// Does the step write where peers look, and enough for streaming stores to be worth a thought?
  bool shared_bulk(const plan::Step& step, size_t bytes) const;
  kernels::Store store_in(const plan::Slice& slice) const {
    return slice.buffer == plan::Buffer::output ? store_ : scratch_store_;
  }
  Result<Progress> perform_send(Cursor& cursor, const plan::Step& step, Wire& wire);
  Result<Progress> perform_recv(Cursor& cursor, const plan::Step& step, Wire& wire);
  Result<Progress> perform_recv_reduce(Cursor& cursor, const plan::Step& step, Wire& wire);
  Result<Progress> perform_signal(int channel, const plan::Step& step, Wire* wire);
  Result<Progress> perform_wait(int channel, const plan::Step& step, Wire* wire);
  Result<bool> take_header(Wire& wire, MessageKind kind, uint64_t bytes);
  Outcome strip_outcome(Strip::State state);
  Status look_aside_strip();
  Status differs(const Wire& wire, const Header& mine, const Header& theirs);
  bool still_read(const std::byte* begin, size_t bytes) const;

  std::byte* base_of(const plan::Slice& slice) const;
  std::byte* address(const plan::Slice& slice, uint64_t iteration) const {
    return base_of(slice) + slice.start_at(iteration) * element_;
  }
  /// The step, by its index in the channel, on which an unfinished channel stands.
  uint32_t step_here(size_t channel) const {
    const Cursor& cursor = cursors_[channel];
    return program_.channels[channel].loops[cursor.loop].first_step + cursor.step;
  }
  Wire* wire_of(int channel, uint32_t step) const {
    return step_wires_[static_cast<size_t>(channel)][step];
  }
  uint32_t& local_signals(int from, int to) {
    return local_signals_[static_cast<size_t>(from) * program_.channels.size() +
                          static_cast<size_t>(to)];
  }

  plan::Program program_;
  Wires& wires_;
  size_t element_ = 1;
  std::vector<std::vector<Wire*>> step_wires_;     // [channel][step], null for local steps
  std::vector<std::vector<Wire*>> channel_wires_;  // [channel]: those that it sends on
  unsigned media_ = 0;
  std::vector<PeerMemory> peers_;
  std::vector<uint32_t> local_signals_;                    // [from][to]: given and not yet taken
  std::vector<const void*> inputs_;                        // of one copy or reduce
  std::vector<void*> outputs_;                             // of one copy or reduce
  kernels::Store store_ = kernels::Store::cached;          // into outputs
  bool shares_scratch_ = false;                            // peers read it
  transport::StoreHabit habit_;                            // of stores there
  kernels::Store scratch_store_ = kernels::Store::cached;  // of the current step
  bool reaches_buffers_ = false;                           // peers' inputs or outputs
  // Contributions of peers that the operator scales, piece by piece: kScaledPiece for each.
  static constexpr size_t kScaledPiece = 4 << 10;
  std::vector<std::byte> scaled_;
  std::vector<const void*> pieces_;
  std::vector<Cursor> cursors_;
  std::optional<Strip> plain_strip_;   // when the program is small enough
  std::optional<Strip> scaled_strip_;  // the same for operators that scale contributions
  Strip* strip_ = nullptr;             // that of the current run, or null

  uint64_t sequence_ = 0;
  const std::byte* input_ = nullptr;
  std::byte* output_ = nullptr;
  std::byte* scratch_ = nullptr;
  size_t turn_bytes_ = 0;   // of scratch, in one of
  size_t turns_ = 1;        // that shared scratch is used in, call by call
  size_t turn_offset_ = 0;  // of the current run
  const PeerBuffers* open_peers_ = nullptr;
  kernels::Scaling scaling_;
  std::optional<Mismatch> mismatch_;
};

}  // namespace railccl::runtime
