// Recorder: a communicator's flight recorder, the last operations of this rank, for whoever looks
// at it from outside while it runs, hangs or has failed.
//
// A ring of records of half a cache line, one for each number of an operation; sends and receives,
// which have no number, have a ring of their own. Writing a record is a few stores: no allocation,
// no lock, no system call, no counter that others write. What is constant is said once, by a
// Subject, to which records point. Whether an operation is over follows from its number and from
// how many are finished, so most are not touched again.
//
// Where operations take a few hundred nanoseconds, even that is dear. Those that have to wait for
// about as long are recorded then, for what they wait for is not there yet anyway. One that need
// not and is like the one before it mostly leaves nothing at all: that it was like that one follows
// from there being a later number and no record. It began between its neighbours. Not more than a
// few in a row do so, and none where there is time between them. Operations end when the next one
// begins at the latest; only a wait of some microseconds is stamped at its end.
//
// Writers: one thread at a time, the one whose turn it is (turnstile.h). Readers: any thread. All
// words are atomic, so a reader may find new ones beside old ones; but whoever sees a word of a
// later operation in a place also sees that so many operations have been entered, and leaves it.
#pragma once

#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "base/ticks.h"
#include "plan/plan.h"

namespace railccl::runtime {

/// What is known of an operation by its plan, or, before it has one, by its request.
struct Subject {
  plan::Request request;                             // transfers: count says how many
  uint64_t bytes = 0;                                // of this rank's input or output: the larger
  const algorithms::Algorithm* algorithm = nullptr;  // null: not known, or none
  uint32_t media = 0;                                // as Execution::media()
  int channels = 0;
  uint64_t chunk_bytes = 0;
  double predicted_s = 0;
  double bound_s = 0;
};

/// A record as it is read.
struct Record {
  enum class Kind : uint8_t {
    collective,
    transfers,  // the sends and receives of a group
    weighing,   // the ranks agree on what their NICs carry (weigh.h)
    commit,     // all ranks learn that all have a result
  };
  enum class State : uint8_t { running, done, failed };
  uint64_t number = 0;  // of the operation; transfers are counted by themselves
  Kind kind = Kind::collective;
  State state = State::running;  // running: see Recorder
  Subject subject;
  bool stamped = true;   // else it began between its neighbours, and start_ns is a guess
  int64_t start_ns = 0;  // as now_ns()
  int64_t end_ns = 0;    // 0: before the next one began, if it is over
};

class Recorder {
 public:
  /// Keeps the last `capacity` operations, rounded up to a power of two; 0: none. `entered`: how
  /// many operations have been given a number, which the writer changes before it records one.
  Recorder(uint64_t capacity, const std::atomic<uint64_t>& entered);

  /// A record that is open; null where nothing is recorded.
  class Entry;

  // By the thread whose turn it is.

  /// For all that point to it: stays as long as it is held, a record has it, or it was chosen last.
  std::shared_ptr<const Subject> keep(const Subject& subject);
  /// The same for what has no plan, and is most often what it was the last time.
  const Subject* remember(const Subject& subject, Record::Kind kind);

  /// An operation begins; `number` is that of entered().
  Entry* begin(uint64_t number, const Subject* subject, Record::Kind kind);
  /// A group's sends and receives do.
  Entry* begin_transfers(const Subject* subject);
  /// A small collective has, and waits.
  Entry* begin_small(uint64_t number, const Subject* subject) {
    if (mask_ == 0) return nullptr;
    Entry* entry = write(number, subject, ticks(steady_), Record::Kind::collective);
    like_ = subject;
    return entry;
  }
  /// It is nearly over: `entry` as begin_small() gave it, or null if it has hardly had to wait.
  /// `looks`: for how long it did. Before it counts as finished.
  void end_small(Entry* entry, uint64_t number, const Subject* subject, int looks) {
    if (entry == nullptr) {
      if (subject != like_ || --unsaid_left_ < 0) [[unlikely]]
        say(number, subject);
      return;
    }
    note_last(subject);
    if (looks >= kLooksOfLong) stamp_end(entry);
  }
  /// An operation is over.
  void end(Entry* entry, Record::State state);
  /// What serves it has been chosen meanwhile.
  void name(Entry* entry, const Subject* subject);
  /// It waits, and has waited for long enough to say where. Allocates.
  void stands(const Entry* entry, std::string where);
  /// The plan of the last collective that is over.
  void note_last(const Subject* subject) {
    last_.store(subject, std::memory_order_release);  // partner: last()
  }

  // Any thread.

  /// The last `most` operations, as far as they are known: by their numbers, transfers behind the
  /// others. `finished`: how many had been finished before.
  std::vector<Record> records(uint64_t finished,
                              size_t most = std::numeric_limits<size_t>::max()) const;
  /// Where an operation stands; empty: not known.
  std::string standing(const Record& record) const;
  /// As note_last() was told; algorithm null: nothing yet.
  Subject last() const;
  /// Groups of transfers, and bytes of all operations but the last few, that there ever were.
  uint64_t transfers() const { return transfers_.load(std::memory_order_relaxed); }
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  // A wait of some microseconds: its end is stamped, which takes time that the next one lacks.
  static constexpr int kLooksOfLong = 64;
  static constexpr int kSequenceShift = 8, kStateShift = 4;
  static constexpr uint64_t kNibble = 15;

  Entry* write(uint64_t number, const Subject* subject, uint64_t start, Record::Kind kind);
  void say(uint64_t number, const Subject* subject);
  void stamp_end(Entry* entry);
  void forget_unused();
  std::vector<Record> read(const Entry* ring, const std::atomic<uint64_t>& entered,
                           uint64_t finished, size_t most) const;

  const bool steady_;
  const uint64_t mask_;  // capacity - 1; 0: nothing is recorded
  const uint64_t swift_ticks_;
  const TickMoment birth_;
  const std::atomic<uint64_t>& entered_;
  std::unique_ptr<Entry[]> ring_, transfer_ring_;
  std::atomic<uint64_t> bytes_{0};
  std::atomic<uint64_t> transfers_{0};
  std::atomic<const Subject*> last_{nullptr};
  // Of the writer. What an operation has to be like to leave nothing; how many more may, of how
  // many in a row; when one was last recorded for want of these; and what has been counted in
  // bytes_.
  const Subject* like_ = nullptr;
  int unsaid_left_ = 0, unsaid_row_ = 0;
  uint64_t last_said_ = 0;
  uint64_t counted_ = 0, last_bytes_ = 0;
  // Held by readers, and by the writer where it keeps or forgets subjects, or says where it stands.
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const Subject>> kept_;
  size_t kept_most_ = 256;  // then those that nobody has any more are forgotten
  const Entry* standing_at_ = nullptr;
  uint64_t standing_number_ = 0;
  std::string standing_;
  std::array<std::shared_ptr<const Subject>, 2> remembered_;  // without a plan: others, transfers
};

class alignas(32) Recorder::Entry {
  friend class Recorder;
  // Release throughout: whoever sees a word of operation n by an acquire also sees entered() > n.
  std::atomic<const Subject*> subject{nullptr};
  std::atomic<uint64_t> start{0};            // 0: no stamp
  std::atomic<uint64_t> end{0};              // below `start`: of an earlier operation
  std::atomic<uint64_t> what{~uint64_t{0}};  // number, state, kind; written last
};

inline Recorder::Entry* Recorder::write(uint64_t number, const Subject* subject, uint64_t start,
                                        Record::Kind kind) {
  constexpr auto relaxed = std::memory_order_relaxed, release = std::memory_order_release;
  Entry& entry = ring_[number & mask_];
  // Partners: the acquire loads in read().
  entry.subject.store(subject, release);
  entry.start.store(start, release);
  entry.what.store(number << kSequenceShift | static_cast<uint64_t>(kind), release);  // it runs
  // Those between were like the last one.
  bytes_.store(bytes_.load(relaxed) + (number - counted_) * last_bytes_ + subject->bytes, relaxed);
  counted_ = number + 1;
  last_bytes_ = subject->bytes;
  return &entry;
}

inline void Recorder::stamp_end(Entry* entry) {
  entry->end.store(ticks(steady_), std::memory_order_release);
}

}  // namespace railccl::runtime
