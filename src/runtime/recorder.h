// Recorder: a communicator's flight recorder, the last operations of this rank, for whoever looks
// at it from outside while it runs, hangs or has failed.
//
// A ring of records of one cache line each. Writing one is a stamp (base/ticks.h) and some stores:
// no allocation, no lock, no system call, no shared counter. Where operations are short each
// nanosecond counts: small ones are recorded while they wait for their peers' messages, which are
// under way anyway; their records point to what is known of their plan; and most have no end of
// their own: they ended before the next one began. What a record does not say (did it finish?)
// follows from its sequence number and how many operations are over.
//
// Writers: one thread at a time, the one whose turn it is (turnstile.h). Readers: any thread. All
// words are atomic, so a reader may find new ones beside old ones; but whoever sees a word of a
// later record in a place also sees that the count of records has come that far.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "base/ticks.h"
#include "plan/plan.h"

namespace railccl::runtime {

/// What is recorded of an operation besides its times; constant for a plan.
struct Subject {
  enum class Kind : uint8_t {
    collective,
    transfers,  // the sends and receives of a group; count: how many
    weighing,   // the ranks agree on what their NICs carry (weigh.h)
    commit,     // all ranks learn that all have a result
  };
  Kind kind = Kind::collective;
  plan::Request request;
  const algorithms::Algorithm* algorithm = nullptr;  // null: not known, or none
  uint32_t media = 0;                                // as Execution::media()
  uint16_t channels = 0;
  uint64_t bytes = 0;  // of this rank's input or output, whichever is more
};

/// A Subject as records have it: made once, written often.
struct PackedSubject {
  PackedSubject() = default;
  PackedSubject(const Subject& subject);  // NOLINT: implicit on purpose
  PackedSubject as(Subject::Kind kind) const;

  uint64_t count = 0;
  uint64_t request = 0;  // kind, collective, datatype, operator, root
  const algorithms::Algorithm* algorithm = nullptr;
  uint64_t way = 0;  // media, channels
  uint64_t bytes = 0;
};

/// A record as it is read.
struct Record {
  enum class State : uint8_t { running, done, failed };
  uint64_t number = 0;    // of the record: they are counted from 0
  uint64_t sequence = 0;  // of the operation; not of transfers
  Subject subject;
  State state = State::running;  // running: see Recorder
  int64_t start_ns = 0;          // as now_ns()
  int64_t end_ns = 0;            // 0: before the next one began, if it is over
};

class Recorder {
 public:
  /// Has places for `capacity` operations, rounded up to a power of two, of which all but the
  /// oldest can be read when it is full: the next one may take that place at any time. 0: none.
  explicit Recorder(uint64_t capacity);

  /// A record that is open; null where nothing is recorded.
  class Entry;

  // By the thread whose turn it is.

  /// For small operations, which point to it: it stays as long as it is held, or a record has it.
  std::shared_ptr<const PackedSubject> keep(const PackedSubject& subject);

  /// An operation begins.
  Entry* begin(uint64_t sequence, const PackedSubject& subject);
  /// A small one begins; `subject` by keep().
  Entry* begin_small(uint64_t sequence, const PackedSubject* subject) {
    if (mask_ == 0) return nullptr;
    return write(sequence, subject, subject->bytes, ticks(steady_), 0);
  }
  /// It is over: `entry` as begin_small() gave it, or null if it has not been recorded yet, having
  /// found all it needed. `looks`: for how long it waited.
  void end_small(Entry* entry, uint64_t sequence, const PackedSubject* subject, int looks) {
    if (mask_ == 0) return;
    if (entry == nullptr) {
      const uint64_t now = ticks(steady_);
      write(sequence, subject, subject->bytes, now, now);
    } else if (looks >= kLooksOfLong || sequence % kEndEvery == 0) {
      stamp_end(entry);
    }
  }
  /// An operation is over.
  void end(Entry* entry, Record::State state);
  /// What serves it has been chosen meanwhile.
  void name(Entry* entry, const PackedSubject& subject);
  /// It waits, and has waited for long enough to say where. Allocates.
  void stands(const Entry* entry, std::string where);

  // Any thread.

  /// The records that are there, oldest first.
  std::vector<Record> records() const;
  /// Where the operation of record `number` stands; empty: not known.
  std::string standing(uint64_t number) const;
  /// Operations and bytes that were ever recorded.
  uint64_t operations() const { return next_.load(std::memory_order_acquire); }  // partner: write()
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  // Of small operations, those that waited for about a microsecond have an end of their own, and
  // one of so many others: a stamp behind the last message is time that the next operation lacks.
  static constexpr int kLooksOfLong = 64;
  static constexpr uint64_t kEndEvery = 32;

  Entry* write(uint64_t sequence, const PackedSubject* subject, uint64_t bytes, uint64_t start,
               uint64_t end);
  void stamp_end(Entry* entry);
  void forget_unused();

  const bool steady_;
  const uint64_t mask_;  // capacity - 1; 0: nothing is recorded
  const TickMoment birth_;
  std::unique_ptr<Entry[]> ring_;
  std::atomic<uint64_t> next_{0};
  std::atomic<uint64_t> bytes_{0};
  // Held by readers, and by the writer where it keeps or forgets subjects, or says where it stands.
  mutable std::mutex mutex_;
  std::vector<std::shared_ptr<const PackedSubject>> kept_;
  size_t kept_most_ = 256;  // then those that nobody has any more are forgotten
  uint64_t standing_number_ = 0;
  std::string standing_;
};

class alignas(64) Recorder::Entry {
  friend class Recorder;
  // Release throughout: whoever sees a word of record n by an acquire also sees that next_ was n.
  std::atomic<uint64_t> start{0};
  std::atomic<uint64_t> end{0};
  std::atomic<uint64_t> sequence{0};
  std::atomic<const PackedSubject*> subject{nullptr};  // null: in the words that follow
  std::atomic<uint64_t> count{0};
  std::atomic<uint64_t> request{0};
  std::atomic<const algorithms::Algorithm*> algorithm{nullptr};
  std::atomic<uint64_t> way{0};  // in its highest byte the state
};

inline Recorder::Entry* Recorder::write(uint64_t sequence, const PackedSubject* subject,
                                        uint64_t bytes, uint64_t start, uint64_t end) {
  constexpr auto relaxed = std::memory_order_relaxed, release = std::memory_order_release;
  const uint64_t number = next_.load(relaxed);  // one thread at a time
  Entry& entry = ring_[number & mask_];
  // Partners: the acquire loads in records().
  entry.start.store(start, release);
  entry.end.store(end, release);
  entry.sequence.store(sequence, release);
  entry.subject.store(subject, release);
  bytes_.store(bytes_.load(relaxed) + bytes, relaxed);
  next_.store(number + 1, release);  // partner: the first load in records()
  return &entry;
}

inline void Recorder::stamp_end(Entry* entry) {
  entry->end.store(ticks(steady_), std::memory_order_release);
}

}  // namespace railccl::runtime
