// StoreHabit: whether to write by ordinary or by streaming stores into memory that another core
// reads, learned from how long ordinary ones take.
//
// Between cores that share a cache ordinary stores are the better ones: the reader finds the data
// in that cache. Between others each line has to be taken away from the reader first, which takes
// its round trip, for a few lines at a time only; a streaming store just overwrites the line, by
// way of memory. An AMD EPYC (Zen 4), two cores sending 128 KiB to each other through rings of 2
// MiB: 9 us with ordinary and 16 us with streaming stores between cores that share a cache, 65 and
// 16 us between others. Which cores they are changes under us (threads and virtual processors
// move), so every now and then a write is timed. How long a whole operation takes would not tell:
// it depends on what the other side does, and on what the lines' last writer did.
//
//   const StoreHabit::Way way = habit.next();
//   const int64_t start = way.timed ? now_ns() : 0;
//   ... write, way.streaming or not ...
//   if (way.timed) habit.took(bytes, now_ns() - start);
//
// One thread at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace railccl::transport {

class StoreHabit {
 public:
  /// Writes of less are ordinary, and need not ask: they end in the core's store buffer.
  static constexpr size_t kLeastBytes = 4 << 10;

  struct Way {
    bool streaming = false;
    bool timed = false;  // then it is an ordinary write: tell took()
  };
  Way next() {
    if (--countdown_ > 0) return {streaming_, false};
    return {false, true};
  }
  void took(size_t bytes, int64_t ns) {
    const bool slow = ns > static_cast<int64_t>(bytes) / kBytesPerNs;
    if (streaming_) {
      streaming_ = slow;
      pause_ = slow ? std::min(2 * pause_, kPauseMax) : kPauseMin;
      countdown_ = slow ? pause_ : 1;
    } else {
      // One slow write says little: an interruption, or pages touched for the first time.
      slow_ = slow ? slow_ + 1 : 0;
      streaming_ = slow_ == kSlowFew;
      if (streaming_) slow_ = 0;
      countdown_ = streaming_ ? pause_ : slow ? 1 : kSampled;
    }
  }
  bool streaming() const { return streaming_; }

 private:
  // Ordinary stores between cores without a common cache: 2 bytes per ns; with one, to lines that
  // have to come from memory: 5 to 10.
  static constexpr int64_t kBytesPerNs = 3;
  static constexpr int kSampled = 8;  // ordinary writes, of which one is timed
  static constexpr int kSlowFew = 3;
  static constexpr int kPauseMin = 32, kPauseMax = 512;  // streaming writes between two trials
  bool streaming_ = false;
  int slow_ = 0;
  int pause_ = kPauseMin;
  int countdown_ = 1;
};

}  // namespace railccl::transport
