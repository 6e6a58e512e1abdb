// Doorbell: how a rank sleeps until a peer (thread or process) has something for it, without the
// peer making a system call while nobody sleeps.
//
// The bell lives in memory that both sides share. A producer publishes its news with a sequentially
// consistent store (or any store, and then a full_fence) and calls ring_if_sleeping(), which is one
// load while the owner is awake.
// The owner sleeps in two calls of Sleeper::wait(): the first raises the flag and returns, so that
// the owner looks once more at everything; the second sleeps, unless the bell rang in between. News
// that is published before the flag is seen by that second look, news after it finds the flag: the
// total order of the sequentially consistent operations (flag, then look; publish, then flag)
// leaves no third possibility. Hence no wake-up is lost, whatever the owner waits for.
//
// Many may ring; one thread at a time waits.
#pragma once

#include <atomic>
#include <cstdint>

namespace railccl::transport {

/// Zero-filled memory is a valid Doorbell.
class alignas(64) Doorbell {
 public:
  /// Call after a seq_cst store of the news, or a full_fence() behind it. Any thread or process.
  void ring_if_sleeping() {
    // seq_cst, partner: the store of 1 in Sleeper::wait.
    if (sleeping_.load(std::memory_order_seq_cst) != 0) ring();
  }
  /// Ends the owner's sleep, or makes its next wait() return at once. Any thread or process.
  void ring();

 private:
  friend class Sleeper;
  std::atomic<uint32_t> sequence_{0};  // the futex word: counts rings
  std::atomic<uint32_t> sleeping_{0};  // 1: the owner sleeps or is about to
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

/// The owner's private half of a Doorbell.
class Sleeper {
 public:
  explicit Sleeper(Doorbell* bell) : bell_(bell) {}
  /// Every other call returns at once (see above); the others sleep up to `timeout_us`. False when
  /// the time ran out without a ring.
  bool wait(int64_t timeout_us);

 private:
  Doorbell* bell_;
  uint32_t expected_ = 0;
  bool armed_ = false;
};

}  // namespace railccl::transport
