// Lane: small messages from one rank to another over shared memory, for the least latency.
//
// A lane is kLaneSlots slots, used in turn. A slot has a head, which is one cache line with the
// message's number, its header and up to kLaneInline bytes of payload, and a body for payloads of
// up to kLaneBytesMax. So most small messages cost one cache line that goes from the writer's core
// to the reader's, and nothing else: no ring indices, no system call, no atomic read-modify-write.
// (The idea of data and flag in one line is that of the LL protocols of GPU libraries and of
// FastForward, Giacomoni et al., PPoPP 2008.)
//
// Zero-filled memory is an empty lane: the number of the first message is 1, and a slot holds a
// message once its number is the one that is expected there.
//
// Memory orders: the release store of a number (publish) is the partner of the acquire load in
// arrived(): header and payload are visible with it. The release store of `consumed` is the partner
// of the acquire load in has_room(): the reader has finished with the slots it counts. The peer is
// told that it may wake up by Lane::ring(), once for many messages: after a full fence, as
// doorbell.h demands.
//
// Each half is driven by one thread at a time. Neither allocates, locks, nor makes system calls,
// other than to wake a sleeping peer.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/fence.h"
#include "transport/doorbell.h"

namespace railccl::transport {

inline constexpr size_t kLaneSlots = 32;
inline constexpr size_t kLaneHeaderBytes = 24;
inline constexpr size_t kLaneInline = 32;
inline constexpr size_t kLaneBytesMax = 4096;

struct LaneMemory {
  struct alignas(64) Head {
    std::atomic<uint64_t> number;
    std::byte header[kLaneHeaderBytes];
    std::byte payload[kLaneInline];
  };
  Head heads[kLaneSlots];
  alignas(64) std::atomic<uint64_t> consumed;  // messages that the reader has finished with
  alignas(64) std::byte bodies[kLaneSlots][kLaneBytesMax];
};
static_assert(sizeof(LaneMemory::Head) == 64 && kLaneBytesMax % 64 == 0);

class Lane {
 public:
  /// `incoming` is this rank's, written by the peer.
  explicit Lane(LaneMemory* incoming) : incoming_(incoming) {}
  /// The peer's memory and bell, once known. Before, there is no room. Whoever attaches rings the
  /// bell once: slots given back before may be what the peer sleeps for.
  void attach(LaneMemory* outgoing, Doorbell* peer) {
    outgoing_ = outgoing;
    peer_ = peer;
  }

  // Writing: has_room(), place() and then publish().
  bool has_room() {
    if (sent_ - known_consumed_ < kLaneSlots) return outgoing_ != nullptr;
    known_consumed_ = outgoing_->consumed.load(std::memory_order_acquire);
    return sent_ - known_consumed_ < kLaneSlots;
  }
  /// Where the next message's payload of `bytes` (at most kLaneBytesMax) goes; aligned to 32.
  std::byte* place(size_t bytes) {
    const size_t slot = sent_ % kLaneSlots;
    return bytes <= kLaneInline ? outgoing_->heads[slot].payload : outgoing_->bodies[slot];
  }
  void publish(const std::byte* header) {
    LaneMemory::Head& head = outgoing_->heads[sent_ % kLaneSlots];
    std::memcpy(head.header, header, kLaneHeaderBytes);
    head.number.store(++sent_, std::memory_order_release);
    unrung_ = true;
  }

  // Reading: arrived(), header() and payload(), then consume().
  bool arrived() const {
    return incoming_->heads[received_ % kLaneSlots].number.load(std::memory_order_acquire) ==
           received_ + 1;
  }
  const std::byte* header() const { return incoming_->heads[received_ % kLaneSlots].header; }
  const std::byte* payload(size_t bytes) const {
    const size_t slot = received_ % kLaneSlots;
    return bytes <= kLaneInline ? incoming_->heads[slot].payload : incoming_->bodies[slot];
  }
  void consume() {
    received_++;
    // In halves of the lane: the writer's copy of the line stays valid for longer.
    if (received_ % (kLaneSlots / 2) != 0) return;
    incoming_->consumed.store(received_, std::memory_order_release);
    unrung_ = true;
  }

  /// Is there news for the peer that it was not woken for? Sleepers hear of nothing before ring().
  bool unrung() const { return unrung_; }
  /// Wakes the peer if it sleeps. Call after a full_fence() behind the last publish() or consume().
  void ring() {
    unrung_ = false;
    if (peer_ != nullptr) peer_->ring_if_sleeping();
  }

 private:
  LaneMemory* incoming_;
  LaneMemory* outgoing_ = nullptr;
  Doorbell* peer_ = nullptr;
  uint64_t sent_ = 0;
  uint64_t known_consumed_ = 0;
  uint64_t received_ = 0;
  bool unrung_ = false;
};

}  // namespace railccl::transport
