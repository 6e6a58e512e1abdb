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
#include "runtime/wires.h"

namespace railccl::runtime {

/// A message that belongs to another call than the one that runs here.
struct Mismatch {
  int peer = -1;
  std::string mine;
  std::string theirs;
};

/// What one call of step() brought.
struct Outcome {
  bool progressed = false;
  bool done = false;
  Status status;
};

class Execution {
 public:
  /// What one run works on. The scratch comes from the wires.
  struct Operation {
    uint64_t sequence = 0;
    const void* input = nullptr;
    void* output = nullptr;
    kernels::Scaling scaling;
  };

  static Result<std::unique_ptr<Execution>> make(plan::Program program, Wires& wires);

  const plan::Program& program() const { return program_; }
  /// Starts a run; the previous one must be done.
  Status begin(const Operation& operation);
  Outcome step();

  /// Set when step() failed because the ranks' calls differ.
  const std::optional<Mismatch>& mismatch() const { return mismatch_; }
  /// Bit m is set when the program's messages go over medium m of the wires.
  unsigned media() const { return media_; }
  /// What the run waits for, for people: "channel 0 waits for recv from rank 2 (shm to ...)".
  std::string waiting_for() const;

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
    size_t bytes = 0;  // as far as this program looks
    std::byte* base = nullptr;
  };

  Execution(plan::Program program, Wires& wires) : program_(std::move(program)), wires_(wires) {}

  Status bind();
  void note_peer_memory(const plan::Slice& slice, uint64_t iterations);
  Result<bool> map_peers(const plan::Step& step);

  Result<bool> advance(int channel);
  void next_step(int channel);
  Result<Progress> perform(int channel, const plan::Step& step);
  Result<Progress> perform_local(Cursor& cursor, const plan::Step& step);
  Result<Progress> perform_send(Cursor& cursor, const plan::Step& step, Wire& wire);
  Result<Progress> perform_recv(Cursor& cursor, const plan::Step& step, Wire& wire);
  Result<Progress> perform_recv_reduce(Cursor& cursor, const plan::Step& step, Wire& wire);
  Result<Progress> perform_signal(int channel, const plan::Step& step, Wire* wire);
  Result<Progress> perform_wait(int channel, const plan::Step& step, Wire* wire);
  Result<bool> take_header(Wire& wire, MessageKind kind, uint64_t bytes);
  Status differs(const Wire& wire, const Header& mine);
  bool still_read(const std::byte* begin, size_t bytes) const;

  std::byte* base_of(const plan::Slice& slice) const;
  std::byte* address(const plan::Slice& slice, uint64_t iteration) const {
    return base_of(slice) + slice.start_at(iteration) * element_;
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
  std::vector<uint32_t> local_signals_;  // [from][to]: given and not yet taken
  std::vector<const void*> inputs_;      // of one reduce
  std::vector<Cursor> cursors_;

  uint64_t sequence_ = 0;
  const std::byte* input_ = nullptr;
  std::byte* output_ = nullptr;
  std::byte* scratch_ = nullptr;
  kernels::Scaling scaling_;
  std::optional<Mismatch> mismatch_;
};

}  // namespace railccl::runtime
