// Turnstile: lets operations pass one at a time, in the order in which they took a ticket.
//
// Calls on a communicator are ordered by their tickets, taken when the call is made; the threads
// that run them (the caller, streams) may arrive in any order. Every ticket taken must be used:
// reached() or wait(), then leave(). Without contention neither allocates nor locks. Any thread.
#pragma once

#include <atomic>
#include <cstdint>

namespace railccl::runtime {

class Turnstile {
 public:
  uint64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }

  /// Takes a ticket only if its turn is now.
  bool try_take(uint64_t* ticket) {
    uint64_t next = serving_.load(std::memory_order_acquire);  // partner: leave()
    if (!next_.compare_exchange_strong(next, next + 1, std::memory_order_relaxed)) return false;
    *ticket = next;
    return true;
  }

  /// The next ticket that will be taken.
  uint64_t next() const { return next_.load(std::memory_order_relaxed); }

  /// Tickets that have not left: the one whose turn it is, and those behind it.
  uint64_t waiting() const {
    const uint64_t serving = serving_.load(std::memory_order_relaxed);
    const uint64_t next = next_.load(std::memory_order_relaxed);
    return next > serving ? next - serving : 0;
  }

  /// Have all earlier tickets left?
  bool reached(uint64_t ticket) const {
    return serving_.load(std::memory_order_acquire) == ticket;  // partner: leave()
  }
  /// Returns when all earlier tickets have left.
  void wait(uint64_t ticket) const {
    // Acquire, partner: the release in leave(). What the operation before did is visible here.
    uint64_t serving = serving_.load(std::memory_order_acquire);
    while (serving != ticket) {
      serving_.wait(serving, std::memory_order_acquire);
      serving = serving_.load(std::memory_order_acquire);
    }
  }
  void leave(uint64_t ticket) {
    serving_.store(ticket + 1, std::memory_order_release);
    serving_.notify_all();
  }

 private:
  std::atomic<uint64_t> next_{0};
  std::atomic<uint64_t> serving_{0};
};

}  // namespace railccl::runtime
