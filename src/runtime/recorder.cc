// Reading a flight recorder, and what is seldom written; see recorder.h.
#include "runtime/recorder.h"

#include <algorithm>
#include <bit>
#include <set>
#include <utility>

namespace railccl::runtime {
namespace {

constexpr int kAttempts = 4;
// In a row: to write one down delays all by as long as ranks pause between two looks.
constexpr int kUnsaidMax = 127;
constexpr int kSwiftUs = 2;  // what follows within that is swift

/// Spreads those that left nothing evenly between their neighbours.
void place_unstamped(std::vector<Record>* records, int64_t earliest_ns) {
  for (size_t first = 0; first < records->size(); first++) {
    if ((*records)[first].stamped) continue;
    size_t next = first;
    while (next < records->size() && !(*records)[next].stamped) next++;
    const Record* before = first == 0 ? nullptr : &(*records)[first - 1];
    int64_t from_ns = before == nullptr ? earliest_ns : std::max(before->start_ns, before->end_ns);
    int64_t to_ns = next == records->size() ? from_ns : (*records)[next].start_ns;
    if (before == nullptr) from_ns = to_ns;
    to_ns = std::max(from_ns, to_ns);
    const auto gaps = static_cast<int64_t>(next - first + 1);
    for (size_t i = first; i < next; i++)
      (*records)[i].start_ns =
          from_ns + (to_ns - from_ns) / gaps * static_cast<int64_t>(i - first + 1);
    first = next;
  }
}

}  // namespace

Recorder::Recorder(uint64_t capacity, const std::atomic<uint64_t>& entered)
    : steady_(has_steady_counter()),
      mask_(capacity == 0 ? 0 : std::bit_ceil(std::max<uint64_t>(capacity, 2)) - 1),
      swift_ticks_(kSwiftUs * ticks_per_us(steady_)),
      birth_(TickMoment::now(steady_)),
      entered_(entered),
      ring_(mask_ == 0 ? nullptr : new Entry[mask_ + 1]),
      transfer_ring_(mask_ == 0 ? nullptr : new Entry[mask_ + 1]) {}

std::shared_ptr<const Subject> Recorder::keep(const Subject& subject) {
  auto kept = std::make_shared<const Subject>(subject);
  std::lock_guard lock(mutex_);
  if (kept_.size() >= kept_most_) forget_unused();
  kept_.push_back(kept);
  return kept;
}

const Subject* Recorder::remember(const Subject& subject, Record::Kind kind) {
  if (mask_ == 0) return nullptr;
  std::shared_ptr<const Subject>& last = remembered_[kind == Record::Kind::transfers ? 1 : 0];
  if (last == nullptr || last->request != subject.request || last->bytes != subject.bytes)
    last = keep(subject);
  return last.get();
}

/// By the writer itself, so that no record comes meanwhile; readers are kept out by the mutex.
void Recorder::forget_unused() {
  std::set<const Subject*> used{last_.load(std::memory_order_relaxed)};
  for (uint64_t i = 0; i <= mask_ && mask_ != 0; i++)
    for (const Entry* ring : {ring_.get(), transfer_ring_.get()})
      used.insert(ring[i].subject.load(std::memory_order_relaxed));
  std::erase_if(
      kept_, [&](const auto& kept) { return kept.use_count() == 1 && !used.contains(kept.get()); });
  kept_most_ = std::max<size_t>(256, 2 * kept_.size());
}

Recorder::Entry* Recorder::begin(uint64_t number, const Subject* subject, Record::Kind kind) {
  if (mask_ == 0) return nullptr;
  like_ = nullptr;
  return write(number, subject, ticks(steady_), kind);
}

Recorder::Entry* Recorder::begin_transfers(const Subject* subject) {
  if (mask_ == 0) return nullptr;
  constexpr auto relaxed = std::memory_order_relaxed, release = std::memory_order_release;
  const uint64_t number = transfers_.load(relaxed);
  transfers_.store(number + 1, relaxed);  // before the words, as entered() is
  Entry& entry = transfer_ring_[number & mask_];
  entry.subject.store(subject, release);
  entry.start.store(ticks(steady_), release);
  entry.what.store(number << kSequenceShift | static_cast<uint64_t>(Record::Kind::transfers),
                   release);
  bytes_.store(bytes_.load(relaxed) + subject->bytes, relaxed);
  return &entry;
}

/// Records an operation that has hardly had to wait; and finds out, by the time since it did so
/// last, how many after it may do without a stamp, or without all.
void Recorder::say(uint64_t number, const Subject* subject) {
  note_last(subject);
  const bool alike = subject == std::exchange(like_, subject);
  if (mask_ == 0) {
    unsaid_left_ = std::numeric_limits<int>::max();
    return;
  }
  constexpr auto kind = Record::Kind::collective;
  if (!alike && --unsaid_left_ >= 0) {
    write(number, subject, 0, kind);
    return;
  }
  const uint64_t now = ticks(steady_);
  const bool swift = now - last_said_ < static_cast<uint64_t>(unsaid_row_ + 1) * swift_ticks_;
  const int most = std::min(kUnsaidMax, static_cast<int>(mask_ / 2));
  unsaid_row_ = swift ? std::min(2 * unsaid_row_ + 1, most) : 0;
  unsaid_left_ = unsaid_row_;
  last_said_ = now;
  write(number, subject, now, kind);
}

void Recorder::end(Entry* entry, Record::State state) {
  if (entry == nullptr) return;
  stamp_end(entry);
  const uint64_t what = entry->what.load(std::memory_order_relaxed);
  entry->what.store((what & ~(kNibble << kStateShift)) | static_cast<uint64_t>(state)
                                                             << kStateShift,
                    std::memory_order_release);
}

void Recorder::name(Entry* entry, const Subject* subject) {
  if (entry != nullptr) entry->subject.store(subject, std::memory_order_release);
}

void Recorder::stands(const Entry* entry, std::string where) {
  if (entry == nullptr) return;
  std::lock_guard lock(mutex_);
  standing_at_ = entry;
  standing_number_ = entry->what.load(std::memory_order_relaxed) >> kSequenceShift;
  standing_ = std::move(where);
}

std::string Recorder::standing(const Record& record) const {
  if (mask_ == 0) return {};
  const bool transfers = record.kind == Record::Kind::transfers;
  const Entry* entry = &(transfers ? transfer_ring_ : ring_)[record.number & mask_];
  std::lock_guard lock(mutex_);
  return standing_at_ == entry && standing_number_ == record.number ? standing_ : std::string();
}

Subject Recorder::last() const {
  std::lock_guard lock(mutex_);  // what it points to is not forgotten meanwhile
  const Subject* last = last_.load(std::memory_order_acquire);  // partner: note_last()
  return last == nullptr ? Subject() : *last;
}

/// Of one ring; under the mutex.
std::vector<Record> Recorder::read(const Entry* ring, const std::atomic<uint64_t>& entered,
                                   uint64_t finished, size_t most) const {
  constexpr auto acquire = std::memory_order_acquire;
  struct Copy {
    uint64_t number, start, end, what;
    const Subject* subject;
  };
  std::vector<Copy> copies;
  uint64_t after = 0;
  // A reader who lost the core in the middle finds that the writer has come around: once more.
  for (int attempt = 0; attempt < kAttempts; attempt++) {
    copies.clear();
    const uint64_t before = entered.load(acquire);
    const uint64_t count = std::min(mask_ + 1, before);
    copies.reserve(count);
    for (uint64_t number = before - count; number < before; number++) {
      const Entry& entry = ring[number & mask_];
      // Acquire, partners: the releases of whoever writes.
      const uint64_t what = entry.what.load(acquire);
      const uint64_t start = entry.start.load(acquire), end = entry.end.load(acquire);
      copies.push_back({number, start, end, what, entry.subject.load(acquire)});
    }
    after = entered.load(std::memory_order_relaxed);
    if (after - before <= mask_ / 8) break;
  }
  const TickMoment now = TickMoment::now(steady_);
  std::vector<Record> records;
  for (const Copy& copy : copies) {
    // The place may have been given to a later operation meanwhile.
    if (after > copy.number + mask_ + 1) continue;
    Record record;
    if (copy.what >> kSequenceShift == copy.number) {
      record.kind = static_cast<Record::Kind>(copy.what & kNibble);
      record.state = static_cast<Record::State>(copy.what >> kStateShift & kNibble);
      record.subject = *copy.subject;
      record.stamped = copy.start != 0;
      if (record.stamped) record.start_ns = TickMoment::ns_of(copy.start, birth_, now);
      if (record.stamped && copy.end >= copy.start)
        record.end_ns = TickMoment::ns_of(copy.end, birth_, now);
    } else if (copy.number < finished && !records.empty() &&
               records.back().number + 1 == copy.number) {
      record.subject = records.back().subject;  // it left nothing
      record.stamped = false;
    } else {
      continue;
    }
    record.number = copy.number;
    records.push_back(std::move(record));
  }
  place_unstamped(&records, birth_.ns);
  if (records.size() > most)
    records.erase(records.begin(), records.end() - static_cast<ptrdiff_t>(most));
  return records;
}

std::vector<Record> Recorder::records(uint64_t finished, size_t most) const {
  if (mask_ == 0) return {};
  std::lock_guard lock(mutex_);
  std::vector<Record> all = read(ring_.get(), entered_, finished, most);
  for (Record& record : read(transfer_ring_.get(), transfers_, 0, most))
    all.push_back(std::move(record));
  return all;
}

}  // namespace railccl::runtime
