// Reactor: epoll, alarms and fork; see reactor.h.
#include "runtime/reactor.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <limits>
#include <system_error>
#include <thread>

#include "base/clock.h"
#include "base/log.h"

namespace railccl::runtime {
namespace {

constexpr uint64_t kBell = 0;  // ids begin with 1

// Never freed: threads may use it until the process ends.
std::atomic<Reactor*> current{nullptr};
std::mutex starting;

uint64_t tag(uint64_t id, uint32_t socket_index) {
  return id * Reactor::kSocketsMax + socket_index;
}

}  // namespace

Result<Reactor*> Reactor::get() {
  // Acquire, partner: the release below.
  if (Reactor* running = current.load(std::memory_order_acquire)) return running;
  std::lock_guard lock(starting);
  if (Reactor* running = current.load(std::memory_order_acquire)) return running;
  static const int forks = ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  if (forks != 0) return system_error(forks, "pthread_atfork");
  std::unique_ptr<Reactor> made(new Reactor);
  RAILCCL_CHECK(made->start());
  Reactor* reactor = made.release();
  // Release, partner: the acquire above.
  current.store(reactor, std::memory_order_release);
  return reactor;
}

bool Reactor::is_current() const { return current.load(std::memory_order_acquire) == this; }

Status Reactor::start() {
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return system_error(errno, "epoll_create1");
  bell_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!bell_) return system_error(errno, "eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kBell;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, bell_.get(), &event) != 0)
    return system_error(errno, "epoll_ctl");
  fds_ = {epoll_.get(), bell_.get()};
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  Status status;
  try {
    std::thread([this] {
      ::pthread_setname_np(::pthread_self(), "railccl-control");
      run();
    }).detach();
  } catch (const std::system_error& error) {
    status = system_error(error.code().value(), "cannot start the control thread");
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return status;
}

void Reactor::before_fork() {
  starting.lock();
  if (Reactor* reactor = current.load(std::memory_order_acquire)) reactor->mutex_.lock();
}

void Reactor::after_fork_in_parent() {
  if (Reactor* reactor = current.load(std::memory_order_acquire)) reactor->mutex_.unlock();
  starting.unlock();
}

void Reactor::after_fork_in_child() {
  if (Reactor* reactor = current.load(std::memory_order_acquire)) {
    // The old reactor stays as it is, locked and without a thread; nobody finds it any more.
    for (const int fd : reactor->fds_) ::close(fd);
    current.store(nullptr, std::memory_order_release);
  }
  starting.unlock();
}

uint64_t Reactor::add(std::shared_ptr<Client> client) {
  std::lock_guard lock(mutex_);
  clients_[next_id_] = std::move(client);
  return next_id_++;
}

void Reactor::remove(uint64_t id) {
  std::shared_ptr<Client> last;  // its end may take long: not under the lock
  std::lock_guard lock(mutex_);
  if (const auto found = clients_.find(id); found != clients_.end()) {
    last = std::move(found->second);
    clients_.erase(found);
  }
  alarms_.erase(id);
}

void Reactor::ring() {
  const uint64_t one = 1;
  // Only fails when the bell has rung 2^64 times without being heard.
  (void)!::write(bell_.get(), &one, sizeof one);
}

void Reactor::poke(uint64_t id) { wake_at(id, 0); }

void Reactor::wake_at(uint64_t id, int64_t at_ns) {
  {
    std::lock_guard lock(mutex_);
    if (!clients_.contains(id)) return;
    const auto [alarm, added] = alarms_.try_emplace(id, at_ns);
    if (!added) alarm->second = std::min(alarm->second, at_ns);
  }
  ring();
}

Status Reactor::watch(uint64_t id, uint32_t socket_index, int fd) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP;
  event.data.u64 = tag(id, socket_index);
  std::lock_guard lock(mutex_);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return system_error(errno, "epoll_ctl");
  fds_.insert(fd);
  return ok();
}

void Reactor::want_write(uint64_t id, uint32_t socket_index, int fd, bool wanted) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | (wanted ? uint32_t{EPOLLOUT} : 0u);
  event.data.u64 = tag(id, socket_index);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0)
    log::warn("control: epoll_ctl on socket {} failed with {}", fd, errno);
}

void Reactor::forget(int fd) {
  std::lock_guard lock(mutex_);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  fds_.erase(fd);
}

std::shared_ptr<Reactor::Client> Reactor::find(uint64_t id) {
  std::lock_guard lock(mutex_);
  const auto found = clients_.find(id);
  return found == clients_.end() ? nullptr : found->second;
}

void Reactor::run_due() {
  std::vector<std::shared_ptr<Client>> due;
  {
    std::lock_guard lock(mutex_);
    const int64_t now = now_ns();
    for (auto alarm = alarms_.begin(); alarm != alarms_.end();) {
      if (alarm->second > now) {
        ++alarm;
        continue;
      }
      if (const auto found = clients_.find(alarm->first); found != clients_.end())
        due.push_back(found->second);
      alarm = alarms_.erase(alarm);
    }
  }
  for (const auto& client : due) client->on_wake();
}

void Reactor::run() {
  while (true) {
    int64_t next = std::numeric_limits<int64_t>::max();
    {
      std::lock_guard lock(mutex_);
      for (const auto& [id, at] : alarms_) next = std::min(next, at);
    }
    int wait_ms = -1;
    if (next != std::numeric_limits<int64_t>::max())
      wait_ms = static_cast<int>(
          std::clamp<int64_t>((next - now_ns() + 999'999) / 1'000'000, 0, int64_t{60'000}));
    epoll_event events[64];
    const int count = ::epoll_wait(epoll_.get(), events, 64, wait_ms);
    if (count < 0 && errno != EINTR) {
      log::error("control: epoll_wait failed with {}; failures of ranks go unnoticed", errno);
      return;
    }
    for (int i = 0; i < count; i++) {
      const uint64_t id = events[i].data.u64 / kSocketsMax;
      if (events[i].data.u64 == kBell) {
        uint64_t rings;
        (void)!::read(bell_.get(), &rings, sizeof rings);
      } else if (const auto client = find(id)) {
        client->on_ready(static_cast<uint32_t>(events[i].data.u64 % kSocketsMax));
      }
    }
    run_due();
  }
}

}  // namespace railccl::runtime
