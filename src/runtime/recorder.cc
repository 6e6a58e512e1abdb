// Reading a flight recorder, and what is seldom written; see recorder.h.
#include "runtime/recorder.h"

#include <algorithm>
#include <bit>
#include <set>
#include <utility>

namespace railccl::runtime {
namespace {

constexpr int kStateShift = 56;
constexpr uint64_t kWayMask = (uint64_t{1} << kStateShift) - 1;

uint8_t byte_of(uint64_t word, int shift) { return static_cast<uint8_t>(word >> shift & 0xff); }

Subject unpacked(const PackedSubject& packed) {
  Subject subject;
  subject.kind = static_cast<Subject::Kind>(byte_of(packed.request, 0));
  subject.request.collective = static_cast<Collective>(byte_of(packed.request, 8));
  subject.request.datatype = static_cast<Datatype>(byte_of(packed.request, 16));
  subject.request.op = static_cast<Reduction>(byte_of(packed.request, 24));
  subject.request.root = static_cast<int>(static_cast<uint32_t>(packed.request >> 32));
  subject.request.count = packed.count;
  subject.algorithm = packed.algorithm;
  subject.media = static_cast<uint32_t>(packed.way);
  subject.channels = static_cast<uint16_t>(packed.way >> 32);
  return subject;
}

}  // namespace

PackedSubject::PackedSubject(const Subject& subject)
    : count(subject.request.count),
      request(static_cast<uint64_t>(subject.kind) |
              static_cast<uint64_t>(subject.request.collective) << 8 |
              static_cast<uint64_t>(subject.request.datatype) << 16 |
              static_cast<uint64_t>(subject.request.op) << 24 |
              static_cast<uint64_t>(static_cast<uint32_t>(subject.request.root)) << 32),
      algorithm(subject.algorithm),
      way(uint64_t{subject.media} | uint64_t{subject.channels} << 32),
      bytes(subject.bytes) {}

PackedSubject PackedSubject::as(Subject::Kind kind) const {
  PackedSubject other = *this;
  other.request = (other.request & ~uint64_t{0xff}) | static_cast<uint64_t>(kind);
  return other;
}

Recorder::Recorder(uint64_t capacity)
    : steady_(has_steady_counter()),
      mask_(capacity == 0 ? 0 : std::bit_ceil(std::max<uint64_t>(capacity, 2)) - 1),
      birth_(TickMoment::now(steady_)),
      ring_(mask_ == 0 ? nullptr : new Entry[mask_ + 1]) {}

std::shared_ptr<const PackedSubject> Recorder::keep(const PackedSubject& subject) {
  auto kept = std::make_shared<const PackedSubject>(subject);
  if (mask_ == 0) return kept;
  std::lock_guard lock(mutex_);
  if (kept_.size() >= kept_most_) forget_unused();
  kept_.push_back(kept);
  return kept;
}

/// By the writer itself, so that no record comes meanwhile; readers are kept out by the mutex.
void Recorder::forget_unused() {
  std::set<const PackedSubject*> recorded;
  for (uint64_t i = 0; i <= mask_; i++)
    recorded.insert(ring_[i].subject.load(std::memory_order_relaxed));
  std::erase_if(kept_, [&](const auto& kept) {
    return kept.use_count() == 1 && !recorded.contains(kept.get());
  });
  kept_most_ = std::max<size_t>(256, 2 * kept_.size());
}

Recorder::Entry* Recorder::begin(uint64_t sequence, const PackedSubject& subject) {
  if (mask_ == 0) return nullptr;
  constexpr auto release = std::memory_order_release;
  Entry& entry = ring_[next_.load(std::memory_order_relaxed) & mask_];
  entry.count.store(subject.count, release);
  entry.request.store(subject.request, release);
  entry.algorithm.store(subject.algorithm, release);
  entry.way.store(subject.way, release);
  return write(sequence, nullptr, subject.bytes, ticks(steady_), 0);
}

void Recorder::end(Entry* entry, Record::State state) {
  if (entry == nullptr) return;
  constexpr auto release = std::memory_order_release;
  stamp_end(entry);
  const auto with_state = [&](uint64_t way) {
    return (way & kWayMask) | static_cast<uint64_t>(state) << kStateShift;
  };
  const PackedSubject* small = entry->subject.load(std::memory_order_relaxed);
  if (small == nullptr) {
    entry->way.store(with_state(entry->way.load(std::memory_order_relaxed)), release);
    return;
  }
  // One that took long after all, and has time for words of its own.
  entry->count.store(small->count, release);
  entry->request.store(small->request, release);
  entry->algorithm.store(small->algorithm, release);
  entry->way.store(with_state(small->way), release);
  entry->subject.store(nullptr, release);  // partner: the acquire in records()
}

void Recorder::name(Entry* entry, const PackedSubject& subject) {
  if (entry == nullptr) return;
  entry->algorithm.store(subject.algorithm, std::memory_order_release);
  entry->way.store(subject.way, std::memory_order_release);
}

void Recorder::stands(const Entry* entry, std::string where) {
  if (entry == nullptr) return;
  const uint64_t place = static_cast<uint64_t>(entry - ring_.get());
  // The last record in that place: of those that are there the only one.
  uint64_t number = next_.load(std::memory_order_relaxed) - 1;
  number -= (number - place) & mask_;
  std::lock_guard lock(mutex_);
  standing_number_ = number;
  standing_ = std::move(where);
}

std::string Recorder::standing(uint64_t number) const {
  std::lock_guard lock(mutex_);
  return standing_number_ == number ? standing_ : std::string();
}

std::vector<Record> Recorder::records() const {
  constexpr auto acquire = std::memory_order_acquire;
  std::vector<Record> found;
  if (mask_ == 0) return found;
  const TickMoment now = TickMoment::now(steady_);
  std::lock_guard lock(mutex_);
  const uint64_t end = next_.load(acquire);  // partner: write()
  for (uint64_t number = end > mask_ ? end - mask_ - 1 : 0; number < end; number++) {
    const Entry& entry = ring_[number & mask_];
    // Acquire, partners: the releases in write() and begin().
    const uint64_t start = entry.start.load(acquire), over = entry.end.load(acquire);
    Record record;
    record.number = number;
    record.sequence = entry.sequence.load(acquire);
    const PackedSubject* subject = entry.subject.load(acquire);
    PackedSubject own;
    uint64_t state = 0;
    if (subject == nullptr) {
      own.count = entry.count.load(acquire);
      own.request = entry.request.load(acquire);
      own.algorithm = entry.algorithm.load(acquire);
      own.way = entry.way.load(acquire);
      state = byte_of(own.way, kStateShift);
      subject = &own;
    }
    // Has a later record begun to take the place? Then so many were there by then. It is left to
    // the next reader.
    if (next_.load(std::memory_order_relaxed) > number + mask_) continue;
    record.subject = unpacked(*subject);
    record.state = static_cast<Record::State>(state);
    record.start_ns = TickMoment::ns_of(start, birth_, now);
    if (over != 0) record.end_ns = TickMoment::ns_of(over, birth_, now);
    found.push_back(record);
  }
  return found;
}

}  // namespace railccl::runtime
