// Ring: a bounded byte stream between one producer and one consumer over shared memory.
//
// The memory is a RingHeader (zero-filled is an empty ring) and mirrored data (mirrored.h).
// Invariant: head <= tail <= head + capacity; only the producer writes tail and the bytes
// [tail, head + capacity), only the consumer writes head. Both count bytes ever moved, so they
// never wrap (2^64 bytes at 1 TB/s are half a year times 400).
//
// Memory orders: the store of tail releases the bytes before it to the consumer's load of tail; the
// store of head releases the space (the consumer has finished reading) to the producer's load of
// head. All four are sequentially consistent, because each store is also the "news" of the peer's
// Doorbell, see there; on x86-64 that costs one xchg per published piece.
//
// Each half is driven by one thread at a time. Neither allocates, locks, nor makes system calls,
// other than to wake a sleeping peer.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/clock.h"
#include "transport/doorbell.h"
#include "transport/store_habit.h"

namespace railccl::transport {

struct RingHeader {
  alignas(64) std::atomic<uint64_t> tail;  // written by the producer
  alignas(64) std::atomic<uint64_t> head;  // written by the consumer
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

/// Copies by streaming stores (store_habit.h); complete (fenced) on return.
using BulkCopy = void (*)(void* to, const void* from, size_t bytes);

class RingWriter {
 public:
  RingWriter() = default;
  /// Capacity is a power of two; `reader` is the consumer's bell; `bulk` may be null.
  RingWriter(RingHeader* header, std::byte* data, size_t capacity, Doorbell* reader,
             BulkCopy bulk = nullptr)
      : header_(header),
        data_(data),
        capacity_(capacity),
        reader_(reader),
        bulk_(bulk),
        tail_(header->tail.load(std::memory_order_relaxed)),
        head_(header->head.load(std::memory_order_seq_cst)) {}

  /// Copies a prefix of the ranges into the ring; returns its length.
  size_t write(std::span<const iovec> ranges) {
    size_t wanted = 0;
    for (const iovec& range : ranges) wanted += range.iov_len;
    // The consumer's line is touched only when what was free last time does not do.
    if (capacity_ - (tail_ - head_) < wanted) head_ = header_->head.load(std::memory_order_seq_cst);
    const size_t start_free = capacity_ - (tail_ - head_);
    if (start_free > capacity_) return 0;  // the peer wrote nonsense into head
    size_t left = std::min(wanted, start_free);
    const size_t accepted = left;
    size_t unpublished = 0;
    for (const iovec& range : ranges) {
      const auto* source = static_cast<const std::byte*>(range.iov_base);
      size_t bytes = std::min(range.iov_len, left);
      const bool bulky = bulk_ != nullptr && bytes >= StoreHabit::kLeastBytes;
      left -= bytes;
      while (bytes > 0) {
        const size_t piece = std::min(bytes, kPieceBytes - unpublished);
        std::byte* const to = data_ + (tail_ & (capacity_ - 1));
        if (bulky && piece >= StoreHabit::kLeastBytes) {
          write_bulk(to, source, piece);
        } else {
          std::memcpy(to, source, piece);
        }
        tail_ += piece;
        source += piece;
        bytes -= piece;
        unpublished += piece;
        // In pieces, so that the consumer copies out while we copy in.
        if (unpublished == kPieceBytes) {
          publish();
          unpublished = 0;
        }
      }
    }
    if (unpublished > 0) publish();
    return accepted;
  }

  uint64_t accepted() const { return tail_; }

 private:
  static constexpr size_t kPieceBytes = 16 << 10;
  void write_bulk(std::byte* to, const std::byte* from, size_t bytes) {
    const StoreHabit::Way way = habit_.next();
    if (way.streaming) return bulk_(to, from, bytes);
    const int64_t start = way.timed ? now_ns() : 0;
    std::memcpy(to, from, bytes);
    if (way.timed) habit_.took(bytes, now_ns() - start);
  }
  void publish() {
    header_->tail.store(tail_, std::memory_order_seq_cst);
    reader_->ring_if_sleeping();
  }

  RingHeader* header_ = nullptr;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
  Doorbell* reader_ = nullptr;
  BulkCopy bulk_ = nullptr;
  StoreHabit habit_;
  uint64_t tail_ = 0;  // what header_->tail is or is about to be
  uint64_t head_ = 0;  // header_->head as last seen
};

class RingReader {
 public:
  RingReader() = default;
  /// `writer` is the producer's bell; it may be null until the peer is known (set_writer).
  RingReader(RingHeader* header, std::byte* data, size_t capacity, Doorbell* writer)
      : header_(header),
        data_(data),
        capacity_(capacity),
        writer_(writer),
        head_(header->head.load(std::memory_order_relaxed)),
        published_(head_),
        tail_(header->tail.load(std::memory_order_seq_cst)) {}

  void set_writer(Doorbell* writer) { writer_ = writer; }

  /// Everything that has arrived, contiguous. Looks again when less than `want` is known of.
  std::span<const std::byte> view(size_t want) {
    if (tail_ - head_ < want) tail_ = header_->tail.load(std::memory_order_seq_cst);
    return {data_ + (head_ & (capacity_ - 1)), tail_ - head_};
  }
  /// False when the peer wrote something into the ring's header that cannot be.
  bool sane() const { return tail_ - head_ <= capacity_; }

  void consume(size_t bytes) {
    head_ += bytes;
    // Space goes back in eighths of the ring: the producer's line stays its own for longer, and
    // it still finds 7/8 free when everything is read.
    if (head_ - published_ >= capacity_ / 8) publish();
  }

  size_t read(void* destination, size_t bytes) {
    auto* to = static_cast<std::byte*>(destination);
    size_t done = 0;
    while (done < bytes) {
      const std::span<const std::byte> arrived = view(bytes - done);
      if (arrived.empty() || !sane()) break;
      const size_t piece = std::min({arrived.size(), bytes - done, capacity_ / 8});
      std::memcpy(to + done, arrived.data(), piece);
      consume(piece);
      done += piece;
    }
    return done;
  }

 private:
  void publish() {
    published_ = head_;
    header_->head.store(head_, std::memory_order_seq_cst);
    if (writer_ != nullptr) writer_->ring_if_sleeping();
  }

  RingHeader* header_ = nullptr;
  std::byte* data_ = nullptr;
  size_t capacity_ = 0;
  Doorbell* writer_ = nullptr;
  uint64_t head_ = 0;       // bytes consumed
  uint64_t published_ = 0;  // of these, told to the producer
  uint64_t tail_ = 0;       // header_->tail as last seen
};

}  // namespace railccl::transport
