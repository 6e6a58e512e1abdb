// The thread, its pace, and forks.
#include "transport/nccl_net_keeper.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "transport/nccl_net_path.h"

namespace railccl::transport {
namespace {

// A rank that waits polls at least once in a millisecond (nccl_net.cc).
constexpr int64_t kAwayNs = 5'000'000;
constexpr int64_t kPauseMinNs = 100'000, kPauseBusyNs = 1'000'000, kPauseMaxNs = 10'000'000;

std::atomic<unsigned> forks{0};

unsigned count_forks() {
  static const int watched = ::pthread_atfork(nullptr, nullptr, [] { forks++; });
  if (watched != 0) log::info("nccl_net: pthread_atfork failed with {}", watched);
  return forks;
}

}  // namespace

NetKeeper::NetKeeper() : born_(count_forks()) {}

NetKeeper::~NetKeeper() {
  if (thread_ == nullptr) return;
  if (inherited()) {
    (void)thread_.release();
    return;
  }
  {
    const auto held = lock();
    stopping_ = true;
  }
  changed_.notify_one();
  thread_->join();
}

bool NetKeeper::inherited() const { return forks != born_; }

std::unique_lock<std::mutex> NetKeeper::lock() {
  std::unique_lock held(mutex_, std::defer_lock);
  if (!inherited()) held.lock();
  return held;
}

void NetKeeper::add(NetPath* path) {
  const auto held = lock();
  paths_.push_back(path);
  if (thread_ == nullptr && !inherited()) start();
}

void NetKeeper::remove(NetPath* path) {
  const auto held = lock();
  std::erase(paths_, path);
}

void NetKeeper::start() {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::make_unique<std::thread>([this] {
      ::pthread_setname_np(::pthread_self(), "railccl-net");
      run();
    });
  } catch (const std::system_error& error) {
    log::warn("nccl_net: no thread to go on while this rank computes: {}", error.what());
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool NetKeeper::poll() {
  const auto held = lock();
  polled_ns_ = now_ns();
  const bool any = poll_all();
  return std::exchange(news_, false) || any;
}

bool NetKeeper::poll_all() {
  bool any = false;
  for (NetPath* path : paths_) any |= path->poll();
  return any;
}

void NetKeeper::run() {
  auto held = lock();
  int64_t pause_ns = kAwayNs;
  while (!stopping_) {
    changed_.wait_for(held, std::chrono::nanoseconds(pause_ns));
    if (stopping_) return;
    if (now_ns() - polled_ns_ < kAwayNs) {
      pause_ns = kAwayNs;
      continue;
    }
    const bool any = poll_all();
    news_ |= any;
    const bool busy = std::any_of(paths_.begin(), paths_.end(),
                                  [](const NetPath* path) { return path->unfinished(); });
    pause_ns = any ? kPauseMinNs : std::min(2 * pause_ns, busy ? kPauseBusyNs : kPauseMaxNs);
  }
}

}  // namespace railccl::transport
