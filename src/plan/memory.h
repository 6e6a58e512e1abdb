// Memory: one rank's buffers while the checker runs a plan, as an interval map.
//
// The rank's input, output and scratch lie in one space of element addresses (overlapping where the
// request is in place). The space is cut into cells; all elements of a cell have one Content, with
// consecutive positions, and one history of accesses. Cells split where an access begins or ends.
//
// Races are found with vector clocks as in FastTrack (Flanagan & Freund 2009): a cell keeps the
// epoch of its last write and the epochs of the reads since; an access that is not ordered after
// what it conflicts with is a race, whichever of the two the checker happens to run first. A
// thread is a channel of a rank. A posted send reads until its message was received, hence its
// record points to a Receipt.
//
// Private to the plan room. Not thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "plan/contributions.h"

namespace railccl::plan {

/// Per thread: up to which of its epochs everything happened before now.
using VectorClock = std::vector<uint32_t>;

struct Epoch {
  uint32_t thread = 0;
  uint32_t clock = 0;
};

/// Every rank's buffers exist from this epoch on; a rank's own threads start after it.
inline constexpr uint32_t kStartClock = 1;

/// What all memories share: who is who, read records, and when messages were received.
class History {
 public:
  static constexpr uint32_t kNone = ~uint32_t{0};

  /// `rank_of[t]` is thread t's rank.
  explicit History(std::vector<int> rank_of) : rank_of_(std::move(rank_of)) {}
  int rank_of(uint32_t thread) const { return rank_of_[thread]; }

  /// A message was posted; received() says when it was received.
  uint32_t post();
  void received(uint32_t receipt, Epoch at) { receipts_[receipt] = at; }

  struct Read {
    Epoch at;
    uint32_t receipt = kNone;  // the message that a send reads for
    uint32_t next = kNone;
  };
  /// The list `head` with one more read. Lists are immutable: cells that were one share theirs.
  uint32_t with(uint32_t head, const Read& read);
  /// The latest read of the list that may still go on for an observer on `rank` who has seen
  /// `clock`; kNone when all are over.
  uint32_t unordered(uint32_t head, int rank, const VectorClock& clock) const;
  const Read& read(uint32_t index) const { return reads_[index]; }

 private:
  std::vector<int> rank_of_;
  std::vector<Epoch> receipts_;  // clock 0: not received yet
  std::vector<Read> reads_;
};

struct Conflict {
  uint64_t address = 0;
  Epoch other;
  bool other_writes = false;
};

class Memory {
 public:
  /// `size` unwritten elements. `history` (not owned) is null when accesses need no tracking.
  Memory(uint64_t size, Epoch start, History* history);

  /// Appends what [start, start + length) holds, unwritten parts included.
  void load(uint64_t start, uint64_t length, std::vector<Piece>& pieces) const;
  void store(uint64_t start, const std::vector<Piece>& pieces);

  /// Records an access by a thread at `now`, which has seen `clock`, and returns what it races
  /// with. Call before load() or store(). Nothing happens without a history.
  std::optional<Conflict> note_read(uint64_t start, uint64_t length, Epoch now,
                                    const VectorClock& clock, uint32_t receipt);
  std::optional<Conflict> note_write(uint64_t start, uint64_t length, Epoch now,
                                     const VectorClock& clock);
  /// An access by another rank that is not over when the owner, who then has seen `clock`, leaves.
  std::optional<Conflict> unfinished(int owner, const VectorClock& clock) const;

 private:
  struct Cell {
    uint64_t start = 0;
    uint64_t base = 0;
    Content content;
    Epoch write;
    uint32_t reads = History::kNone;
  };
  size_t find(uint64_t address) const;
  /// Makes `address` the start of a cell (or the end of the space); returns its index.
  size_t split(uint64_t address);
  uint64_t end_of(size_t cell) const {
    return cell + 1 < cells_.size() ? cells_[cell + 1].start : size_;
  }

  uint64_t size_;
  std::vector<Cell> cells_;  // ascending, without gaps
  History* history_;
};

}  // namespace railccl::plan
