// The thread, its pace, and forks.
#include "transport/net_keeper.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "transport/message_net.h"
#include "transport/net_path.h"

namespace railccl::transport {
namespace {

// A rank that waits without a descriptor polls at least once in a millisecond (net_maker.cc).
constexpr int64_t kAwayNs = 5'000'000;
constexpr int64_t kPauseMinNs = 100'000, kPauseBusyNs = 1'000'000, kPauseMaxNs = 10'000'000;

}  // namespace

Result<std::unique_ptr<NetKeeper>> NetKeeper::make(MessageNet* net) {
  UniqueFd bell(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!bell) return system_error(errno, "no descriptor to tell of messages");
  return std::unique_ptr<NetKeeper>(new NetKeeper(net, std::move(bell)));
}

NetKeeper::NetKeeper(MessageNet* net, UniqueFd bell) : net_(net), bell_(std::move(bell)) {}

NetKeeper::~NetKeeper() {
  if (thread_ == nullptr) return;
  if (inherited()) {
    (void)thread_.release();
    (void)changed_.release();  // it would wait for the thread that waits for it
    return;
  }
  {
    const auto held = lock();
    stopping_ = true;
  }
  changed_->notify_one();
  thread_->join();
}

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
    log::warn("{}: no thread to go on while this rank computes: {}", net_->name(), error.what());
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
  net_->progress();
  for (NetPath* path : paths_) any |= path->poll();
  return any;
}

void NetKeeper::run() {
  auto held = lock();
  int64_t pause_ns = kAwayNs;
  while (!stopping_) {
    changed_->wait_for(held, std::chrono::nanoseconds(pause_ns));
    if (stopping_) return;
    if (now_ns() - polled_ns_ < kAwayNs) {
      pause_ns = kAwayNs;
      continue;
    }
    const bool any = poll_all();
    news_ |= any;
    const uint64_t one = 1;
    // Edges are watched: nobody reads it, and that it is full after centuries does not matter.
    if (any) (void)!::write(bell_.get(), &one, sizeof(one));
    const bool busy = std::any_of(paths_.begin(), paths_.end(),
                                  [](const NetPath* path) { return path->unfinished(); });
    pause_ns = any ? kPauseMinNs : std::min(2 * pause_ns, busy ? kPauseBusyNs : kPauseMaxNs);
  }
}

}  // namespace railccl::transport
