// Memory: cells of equal content, split on demand, with the accesses that races are found by.
#include "plan/memory.h"

#include <algorithm>

namespace railccl::plan {

uint32_t History::post() {
  receipts_.push_back({});
  return static_cast<uint32_t>(receipts_.size() - 1);
}

uint32_t History::with(uint32_t head, const Read& read) {
  Read added = read;
  added.next = head;
  // A thread's later read replaces its earlier one; looking at the head only keeps the common
  // patterns (one reader over and over) short.
  if (head != kNone && reads_[head].at.thread == read.at.thread && read.receipt == kNone &&
      reads_[head].receipt == kNone) {
    if (reads_[head].at.clock == read.at.clock) return head;
    added.next = reads_[head].next;
  }
  reads_.push_back(added);
  return static_cast<uint32_t>(reads_.size() - 1);
}

uint32_t History::unordered(uint32_t head, int rank, const VectorClock& clock) const {
  for (uint32_t i = head; i != kNone; i = reads_[i].next) {
    const Read& read = reads_[i];
    if (clock[read.at.thread] < read.at.clock) return i;
    // The rank that posted a send waits for it before it overwrites the source. Anybody else must
    // know that the message was received.
    if (read.receipt == kNone || rank_of_[read.at.thread] == rank) continue;
    const Epoch receipt = receipts_[read.receipt];
    if (receipt.clock == 0 || clock[receipt.thread] < receipt.clock) return i;
  }
  return kNone;
}

Memory::Memory(uint64_t size, Epoch start, History* history) : size_(size), history_(history) {
  if (size > 0) cells_.push_back({0, 0, {}, start, History::kNone});
}

size_t Memory::find(uint64_t address) const {
  const auto after =
      std::upper_bound(cells_.begin(), cells_.end(), address,
                       [](uint64_t value, const Cell& cell) { return value < cell.start; });
  return static_cast<size_t>(after - cells_.begin()) - 1;
}

size_t Memory::split(uint64_t address) {
  if (address >= size_) return cells_.size();
  const size_t i = find(address);
  if (cells_[i].start == address) return i;
  Cell upper = cells_[i];
  if (upper.content.written) upper.base += address - upper.start;
  upper.start = address;
  cells_.insert(cells_.begin() + static_cast<std::ptrdiff_t>(i) + 1, upper);
  return i + 1;
}

void Memory::load(uint64_t start, uint64_t length, std::vector<Piece>& pieces) const {
  const uint64_t end = start + length;
  for (size_t i = find(start); i < cells_.size() && cells_[i].start < end; i++) {
    const Cell& cell = cells_[i];
    const uint64_t from = std::max(start, cell.start);
    const uint64_t base = cell.content.written ? cell.base + (from - cell.start) : 0;
    append(pieces, {std::min(end, end_of(i)) - from, base, cell.content});
  }
}

void Memory::store(uint64_t start, const std::vector<Piece>& pieces) {
  uint64_t length = 0;
  for (const Piece& piece : pieces) length += piece.length;
  const size_t first = split(start);
  const size_t last = split(start + length);
  // note_write() has made the write the only access of all cells in the range.
  const Epoch write = cells_[first].write;
  if (pieces.size() > last - first)
    cells_.insert(cells_.begin() + static_cast<std::ptrdiff_t>(last),
                  pieces.size() - (last - first), Cell{});
  else
    cells_.erase(cells_.begin() + static_cast<std::ptrdiff_t>(first + pieces.size()),
                 cells_.begin() + static_cast<std::ptrdiff_t>(last));
  uint64_t at = start;
  for (size_t k = 0; k < pieces.size(); k++) {
    cells_[first + k] = {at, pieces[k].base, pieces[k].content, write, History::kNone};
    at += pieces[k].length;
  }
}

std::optional<Conflict> Memory::note_read(uint64_t start, uint64_t length, Epoch now,
                                          const VectorClock& clock, uint32_t receipt) {
  if (history_ == nullptr) return std::nullopt;
  const size_t first = split(start);
  const size_t last = split(start + length);
  for (size_t i = first; i < last; i++) {
    Cell& cell = cells_[i];
    if (clock[cell.write.thread] < cell.write.clock) return Conflict{cell.start, cell.write, true};
    cell.reads = history_->with(cell.reads, {now, receipt, History::kNone});
  }
  return std::nullopt;
}

std::optional<Conflict> Memory::note_write(uint64_t start, uint64_t length, Epoch now,
                                           const VectorClock& clock) {
  if (history_ == nullptr) return std::nullopt;
  const size_t first = split(start);
  const size_t last = split(start + length);
  for (size_t i = first; i < last; i++) {
    Cell& cell = cells_[i];
    if (clock[cell.write.thread] < cell.write.clock) return Conflict{cell.start, cell.write, true};
    const uint32_t reader = history_->unordered(cell.reads, history_->rank_of(now.thread), clock);
    if (reader != History::kNone) return Conflict{cell.start, history_->read(reader).at, false};
    cell.write = now;
    cell.reads = History::kNone;
  }
  return std::nullopt;
}

std::optional<Conflict> Memory::unfinished(int owner, const VectorClock& clock) const {
  if (history_ == nullptr) return std::nullopt;
  for (const Cell& cell : cells_) {
    if (clock[cell.write.thread] < cell.write.clock) return Conflict{cell.start, cell.write, true};
    const uint32_t reader = history_->unordered(cell.reads, owner, clock);
    if (reader != History::kNone) return Conflict{cell.start, history_->read(reader).at, false};
  }
  return std::nullopt;
}

}  // namespace railccl::plan
