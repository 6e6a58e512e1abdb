// The sleeping half of the doorbell: futexes that work between processes.
#include "transport/doorbell.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "base/fence.h"

namespace railccl::transport {
namespace {

// Not FUTEX_PRIVATE: the word may be in memory of several processes.
long futex(std::atomic<uint32_t>* word, int operation, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation, value, timeout, nullptr,
                 0);
}

}  // namespace

void Doorbell::ring() {
  sleeping_.exchange(0, std::memory_order_seq_cst);
  // Release, partner: the acquire load of sequence_ in Sleeper::wait.
  sequence_.fetch_add(1, std::memory_order_release);
  futex(&sequence_, FUTEX_WAKE, INT_MAX, nullptr);
}

bool Sleeper::wait(int64_t timeout_us) {
  if (!armed_ || bell_->sleeping_.load(std::memory_order_seq_cst) == 0) {
    // Read before the flag goes up: a ring between the two lines makes the sleep below fail.
    expected_ = bell_->sequence_.load(std::memory_order_acquire);
    // seq_cst, partner: the load in ring_if_sleeping.
    bell_->sleeping_.store(1, std::memory_order_seq_cst);
    full_fence();  // the owner's next look is at news that may be published by weaker stores
    armed_ = true;
    return true;
  }
  bool rang = true;
  if (timeout_us > 0) {
    timespec timeout;
    timeout.tv_sec = static_cast<time_t>(timeout_us / 1'000'000);
    timeout.tv_nsec = static_cast<long>(timeout_us % 1'000'000) * 1000;
    rang = futex(&bell_->sequence_, FUTEX_WAIT, expected_, &timeout) == 0 || errno != ETIMEDOUT;
  }
  // The flag goes down, so that an owner that is busy again costs nobody a system call.
  armed_ = false;
  bell_->sleeping_.store(0, std::memory_order_seq_cst);
  return rang;
}

}  // namespace railccl::transport
