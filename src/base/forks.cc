// Counting, by a handler that the system calls in each child.
#include "base/forks.h"

#include <pthread.h>

#include <atomic>

#include "base/log.h"

namespace railccl {
namespace {

std::atomic<unsigned> forks{0};

}  // namespace

unsigned forks_so_far() {
  static const int failure = [] {
    const int result = ::pthread_atfork(nullptr, nullptr, [] { forks++; });
    if (result != 0) log::warn("forks of this process will not be noticed: pthread_atfork failed");
    return result;
  }();
  (void)failure;
  return forks;
}

}  // namespace railccl
