// Compiled: all ranks' programs in little memory, for one simulation.
//
// A program's steps name slices of 64 bytes again and again, in one rank as in the next. Here each
// different slice is kept once, a step is 20 bytes, and messages are matched to queues, one per
// (sender, receiver, channel), once and for all. Made rank by rank, so that only one Program is in
// memory at a time. Of folded ranks only the stand-ins are here: what another one sends to them is
// what its own stand-in sends, seen from there, so that both ends of a queue are theirs.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "plan/plan.h"
#include "simulator/folding.h"

namespace railccl::simulator {

struct SliceHash {
  size_t operator()(const plan::Slice& slice) const;
};

class Compiled {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  struct Op {
    plan::Verb verb = plan::Verb::copy;
    uint32_t queue = kNone;  // send, recv, recv_reduce, signal, wait
    uint32_t dst = kNone;    // slices
    uint32_t src = kNone;
    uint32_t extra = kNone;  // index into extras: copy and reduce with more than one place
  };
  /// Slice numbers in extra_slices(): further sources, then further targets.
  struct Extra {
    uint32_t first = 0, sources = 0, targets = 0;
  };
  /// A channel of a rank.
  struct Thread {
    int rank = 0;
    int channel = 0;
    uint32_t first_loop = 0, loop_count = 0;
    size_t first_op = 0;
  };
  struct Queue {
    int from_rank = 0, to_rank = 0;     // the sender stands in; the receiver is whom it sends to
    uint32_t from = kNone, to = kNone;  // threads; kNone where the rank lacks that channel
    bool local = false;                 // signals between two channels of a rank
  };

  /// `folding` must outlive it.
  Compiled(int ranks, const Folding& folding)
      : folding_(folding), first_thread_(static_cast<size_t>(ranks) + 1) {}
  /// Takes the programs of the ranks that stand in, ascending; each valid (plan::validate).
  void add(const plan::Program& program);
  /// When all are there: queues are known from here on.
  void finish();

  const std::vector<Thread>& threads() const { return threads_; }
  const std::vector<Queue>& queues() const { return queues_; }
  /// Of a rank that stands in; those of all before it end there.
  uint32_t first_thread(int rank) const { return first_thread_[static_cast<size_t>(rank)]; }
  const plan::Loop& loop(uint32_t i) const { return loops_[i]; }
  const Op& op(size_t i) const { return ops_[i]; }
  const plan::Slice& slice(uint32_t i) const { return slices_[i]; }
  const Extra& extra(uint32_t i) const { return extras_[i]; }
  std::span<const uint32_t> extra_slices(const Extra& extra) const {
    return {extra_slices_.data() + extra.first, extra.sources + extra.targets};
  }

 private:
  struct End {
    int rank = 0, channel = 0;
    friend bool operator==(const End&, const End&) = default;
  };
  struct Ends {
    End from, to;
    bool local = false;
    friend bool operator==(const Ends&, const Ends&) = default;
  };
  struct EndsHash {
    size_t operator()(const Ends& ends) const;
  };

  uint32_t intern(const plan::Slice& slice);
  uint32_t queue_of(Ends ends);
  Op compile(const plan::Program& program, int channel, const plan::Step& step);

  const Folding& folding_;
  std::vector<uint32_t> first_thread_;  // by rank, and the end
  int next_rank_ = 0;
  std::vector<Thread> threads_;
  std::vector<plan::Loop> loops_;
  std::vector<Op> ops_;
  std::vector<plan::Slice> slices_;
  std::vector<Extra> extras_;
  std::vector<uint32_t> extra_slices_;
  std::vector<Queue> queues_;
  std::vector<Ends> ends_;  // of queues, until finish()
  std::unordered_map<plan::Slice, uint32_t, SliceHash> slice_ids_;
  std::unordered_map<Ends, uint32_t, EndsHash> queue_ids_;
};

}  // namespace railccl::simulator
