// Lines, silence and rounds of a roll call; see roll_call.h.
#include "runtime/roll_call.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/log.h"
#include "runtime/pack.h"

namespace railccl::runtime {
namespace {

constexpr uint64_t kRollMagic = 0x6c6c616320666f72;
constexpr uint64_t kKnockBytes = 3 * sizeof(uint64_t);
constexpr size_t kStrangersMax = 64;
constexpr int64_t kStrangerNs = 5'000'000'000;
// A rank inside an operation is woken by the failure, and says where it stood.
constexpr int64_t kAccountNs = 100'000'000;
constexpr int64_t kRestMs = 10;
constexpr int64_t kFarewellNs = 500'000'000;
constexpr int64_t kVerdictRoundNs = 5'000'000'000;

std::string framed(const std::string& body) {
  const uint64_t size = body.size();
  return std::string(reinterpret_cast<const char*>(&size), kLengthBytes) + body;
}

/// Messages are small, and each is waited for.
void without_delay(const UniqueFd& socket) {
  const int on = 1;
  (void)::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

}  // namespace

Result<std::shared_ptr<RollCall>> RollCall::open(Place place, Hooks hooks) {
  RAILCCL_TRY(Reactor * reactor, Reactor::get());
  std::shared_ptr<RollCall> call(new RollCall(std::move(place), std::move(hooks), reactor));
  call->bell_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!call->bell_) return system_error(errno, "eventfd");
  call->id_ = reactor->add(call);
  if (const Status watched = reactor->watch(call->id_, 0, call->place_.listener.get());
      !watched.is_ok()) {
    reactor->remove(call->id_);
    return watched.context("roll call");
  }
  return call;
}

RollCall::RollCall(Place place, Hooks hooks, Reactor* reactor)
    : place_(std::move(place)),
      ranks_(static_cast<int>(place_.addresses.size())),
      hooks_(std::move(hooks)),
      reactor_(reactor),
      roll_(place_.rank, ranks_) {}

void RollCall::ring() {
  const uint64_t one = 1;
  (void)!::write(bell_.get(), &one, sizeof one);
}

/// From here on the thread looks after the listener.
void RollCall::start_thread() {
  if (started_ || stopping_ || !reactor_->is_current()) return;
  started_ = true;
  reactor_->forget(place_.listener.get());
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] {
      ::pthread_setname_np(::pthread_self(), "railccl-roll");
      run();
    });
  } catch (const std::system_error& error) {
    log::warn("rank {}: no thread to call the roll: {}", place_.rank, error.what());
    told_ = true;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void RollCall::on_ready(uint32_t) {
  std::lock_guard lock(mutex_);
  start_thread();
}

void RollCall::begin() {
  std::lock_guard lock(mutex_);
  if (begun_) return;
  begun_ = true;
  start_thread();
  ring();
}

void RollCall::wait_for_verdict(int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  if (!begun_ || !started_ || !reactor_->is_current()) return;
  changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                    [&] { return told_ || stopping_; });
}

Result<RollResult> RollCall::agree(uint64_t round, std::string text, int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  start_thread();
  if (!thread_.joinable())
    return Status(Code::system, Scope::communicator, "no thread to call the roll");
  deadlines_[round] = now_ns() + timeout_ms * 1'000'000;
  roll_.contribute(round, std::move(text));
  ring();
  // The leader gives up those that do not come; then leaders may die, one after the other.
  const int64_t bound_ms = timeout_ms + 5 * place_.silent_ms + 5000;
  changed_.wait_for(lock, std::chrono::milliseconds(bound_ms), [&] {
    return roll_.result(round) != nullptr || roll_.excluded() || stopping_;
  });
  if (const RollResult* result = roll_.result(round)) return *result;
  if (roll_.excluded())
    return Status(Code::remote, Scope::communicator,
                  "the other ranks have gone on without rank {}, which was silent, or late",
                  place_.rank);
  if (stopping_) return Status(Code::aborted, Scope::communicator, "the roll call was ended");
  return Status(Code::timeout, Scope::communicator,
                "the ranks that are left did not agree within {} ms", bound_ms);
}

void RollCall::leave_out(const std::vector<int>& ranks) {
  std::lock_guard lock(mutex_);
  for (const int rank : ranks) roll_.lose(rank, Gone::absent);
  ring();
}

void RollCall::stop() {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    changed_.notify_all();
  }
  if (!reactor_->is_current()) {  // a forked child has neither the thread nor the sockets
    if (thread_.joinable()) thread_.detach();
    (void)place_.listener.release();
    return;
  }
  ring();
  reactor_->remove(id_);
  if (thread_.joinable()) thread_.join();
  std::lock_guard lock(mutex_);
  if (!started_) reactor_->forget(place_.listener.get());
  place_.listener.reset();
}

// ---- The thread ---------------------------------------------------------------------------------

void RollCall::run() {
  passed_ns_ = now_ns();
  while (true) {
    std::vector<pollfd> entries{{bell_.get(), POLLIN, 0}, {place_.listener.get(), POLLIN, 0}};
    for (const Line& line : lines_) {
      const bool writes = line.connecting || !line.out.empty();
      entries.push_back(
          {line.socket.get(), static_cast<short>(POLLIN | (writes ? POLLOUT : 0)), 0});
    }
    (void)::poll(entries.data(), entries.size(), wait_ms());
    uint64_t rings;
    (void)!::read(bell_.get(), &rings, sizeof rings);
    {
      std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    const int64_t now = now_ns();
    size_t index = 2;
    for (Line& line : lines_) {
      const short ready = entries[index++].revents;
      if (line.connecting && ready != 0) {
        int error = 0;
        socklen_t bytes = sizeof error;
        ::getsockopt(line.socket.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
        if (error == 0) {
          line.connecting = false;
          line.since_ns = now;
        } else {
          line.refused &= error == ECONNREFUSED;
          try_next(line);
        }
      }
      if (line.done || line.connecting) continue;
      if (!line.out.empty()) flush(line);
      if (ready != 0) read(line, now);
    }
    accept_all(now);
    look_after_lines(now);
    take_part(now);
    deliver();
    lines_.remove_if([](const Line& line) { return line.done; });
    passed_ns_ = now;
  }
  farewell();
}

int RollCall::wait_ms() const {
  std::lock_guard lock(mutex_);
  const bool account_due = !accounted_ && (begun_ || roll_.wanted(0));
  if (account_due) return 1;
  if (lines_.empty() && deadlines_.empty()) return -1;  // the bell or the listener will tell
  return static_cast<int>(std::clamp<int64_t>(place_.silent_ms / 8, 1, 100));
}

/// Round 0, deadlines, and what the owner is to be told.
void RollCall::take_part(int64_t now) {
  const int64_t silent_ns = place_.silent_ms * 1'000'000;
  std::unique_lock lock(mutex_);
  const bool wanted = begun_ || roll_.wanted(0);
  if (wanted && !accounted_) {
    const bool call = !begun_ && !std::exchange(called_, true);
    if (asked_ns_ == 0) asked_ns_ = now;
    lock.unlock();
    if (call) hooks_.called();
    auto text = hooks_.account(now - asked_ns_ >= kAccountNs);
    lock.lock();
    if (text) {
      accounted_ = true;
      deadlines_[0] = now + kVerdictRoundNs;
      roll_.contribute(0, std::move(*text));
    }
  }
  for (auto& [round, at] : deadlines_) {
    if (now < at) continue;
    if (roll_.collecting(round)) {
      roll_.give_up(round);
    } else if (now >= at + silent_ns && roll_.leaderless(round)) {
      roll_.give_up_leader(round);
      at = now + silent_ns;  // for the next one, or for those that this one leads now
    }
  }
  std::vector<std::pair<int, Gone>> lost;
  for (int rank = 0; rank < ranks_; rank++)
    if (roll_.gone(rank) != Gone::no && lost_.insert(rank).second)
      lost.emplace_back(rank, roll_.gone(rank));
  const RollResult* verdict = told_ ? nullptr : roll_.result(0);
  const bool excluded = roll_.excluded() && !std::exchange(heard_of_exclusion_, roll_.excluded());
  lock.unlock();
  // Results stay where they are, and only this thread makes new ones.
  if (verdict != nullptr) hooks_.told(*verdict);
  if (excluded) say_leaving();  // nobody shall wait for what this rank will not do any more
  if (excluded)
    hooks_.excluded(
        fmt::format("the other ranks have gone on without rank {}, which was silent, "
                    "or late",
                    place_.rank));
  for (const auto& [rank, how] : lost) hooks_.lost(rank, how);
  lock.lock();
  told_ |= verdict != nullptr || excluded;
  changed_.notify_all();
}

void RollCall::deliver() {
  while (true) {
    std::vector<Roll::Post> posts;
    {
      std::lock_guard lock(mutex_);
      posts = roll_.take_posts();
    }
    if (posts.empty()) break;
    for (const Roll::Post& post : posts) write_to(post.to, post.message);
  }
  std::lock_guard lock(mutex_);
  for (Line& line : lines_)
    if (line.rank >= 0 && !line.closing && roll_.gone(line.rank) != Gone::no) {
      line.closing = true;
      line.since_ns = now_ns();
    }
}

void RollCall::write_to(int rank, const RollMessage& message) {
  const auto open = [&](const Line& line) {
    return line.rank == rank && !line.done && !line.closing;
  };
  auto line = std::find_if(lines_.begin(), lines_.end(), open);
  if (line == lines_.end()) {
    // To tell one that is gone that it is gone, nobody calls it.
    if (message.kind == RollMessage::Kind::excluded) return;
    connect(rank);
    line = std::find_if(lines_.begin(), lines_.end(), open);
    if (line == lines_.end()) return;  // it is lost by now
  }
  line->out += framed(encode(message));
  if (!line->connecting) flush(*line);
}

void RollCall::connect(int rank) {
  Line line;
  line.rank = rank;
  line.out = framed(
      std::move(Packer().add(kRollMagic).add(place_.job).add(static_cast<uint64_t>(place_.rank)))
          .take());
  auto endpoints = parse_endpoints(place_.addresses[static_cast<size_t>(rank)]);
  if (endpoints.is_ok()) line.others = std::move(endpoints).value();
  lines_.push_back(std::move(line));
  try_next(lines_.back());
}

void RollCall::try_next(Line& line) {
  while (!line.others.empty()) {
    const Endpoint endpoint = line.others.front();
    line.others.erase(line.others.begin());
    line.socket.reset(
        ::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!line.socket) continue;
    without_delay(line.socket);
    line.connecting = true;
    line.since_ns = now_ns();
    if (::connect(line.socket.get(), reinterpret_cast<const sockaddr*>(&endpoint.address),
                  endpoint.bytes) == 0 ||
        errno == EINPROGRESS)
      return;
    line.refused &= errno == ECONNREFUSED;
  }
  ended(line, line.refused ? Gone::died : Gone::silent);
}

void RollCall::accept_all(int64_t now) {
  while (true) {
    UniqueFd socket(
        ::accept4(place_.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
      // Without descriptors the listener stays readable: to rest is better than to spin.
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
        std::this_thread::sleep_for(std::chrono::milliseconds(kRestMs));
      return;
    }
    without_delay(socket);
    const auto strangers =
        std::count_if(lines_.begin(), lines_.end(), [](const Line& line) { return line.rank < 0; });
    if (strangers >= static_cast<int64_t>(kStrangersMax)) continue;
    Line line;
    line.socket = std::move(socket);
    line.since_ns = now;
    lines_.push_back(std::move(line));
    read(lines_.back(), now);
  }
}

void RollCall::read(Line& line, int64_t now) {
  while (!line.done) {
    char buffer[16 << 10];
    // Who has not said who he is gets no more room than that takes.
    const size_t most = line.rank < 0 ? kLengthBytes + kKnockBytes - line.in.size() : sizeof buffer;
    const ssize_t got = ::recv(line.socket.get(), buffer, most, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) return ended(line, Gone::died);
    line.since_ns = now;
    line.in.append(buffer, static_cast<size_t>(got));
    while (!line.done && take_frame(line)) {
    }
  }
}

bool RollCall::take_frame(Line& line) {
  if (line.in.size() < kLengthBytes) return false;
  uint64_t size = 0;
  std::memcpy(&size, line.in.data(), kLengthBytes);
  if (size > (line.rank < 0 ? kKnockBytes : kRollBytesMax)) {
    line.rank < 0 ? void(line.done = true) : ended(line, Gone::died);
    return false;
  }
  if (line.in.size() - kLengthBytes < size) return false;
  const std::string body = line.in.substr(kLengthBytes, size);
  line.in.erase(0, kLengthBytes + size);
  if (line.rank < 0) {
    Unpacker unpacker(body);
    uint64_t magic = 0, job = 0, rank = 0;
    line.done = !unpacker.get(&magic) || magic != kRollMagic || !unpacker.get(&job) ||
                job != place_.job || !unpacker.get(&rank) ||
                rank >= static_cast<uint64_t>(ranks_) ||
                rank == static_cast<uint64_t>(place_.rank) || !unpacker.at_end();
    if (!line.done) line.rank = static_cast<int>(rank);
    return !line.done;
  }
  const auto message = parse_roll(body);
  if (!message.is_ok()) {
    ended(line, Gone::died);
    return false;
  }
  std::lock_guard lock(mutex_);
  roll_.receive(line.rank, *message);
  return true;
}

void RollCall::flush(Line& line) {
  size_t sent = 0;
  while (sent < line.out.size()) {
    const ssize_t got = ::send(line.socket.get(), line.out.data() + sent, line.out.size() - sent,
                               MSG_NOSIGNAL | MSG_DONTWAIT);
    if (got > 0) {
      sent += static_cast<size_t>(got);
    } else if (errno != EINTR) {
      // That it broke shows when reading, behind what came before.
      if (errno != EAGAIN && errno != EWOULDBLOCK) sent = line.out.size();
      break;
    }
  }
  line.out.erase(0, sent);
}

void RollCall::ended(Line& line, Gone how) {
  line.done = true;
  if (line.rank < 0) return;
  std::lock_guard lock(mutex_);
  roll_.lose(line.rank, how);
}

/// Signs of life, given and missed.
void RollCall::look_after_lines(int64_t now) {
  const int64_t silent_ns = place_.silent_ms * 1'000'000;
  // When it was this thread that slept, nothing is known about the others.
  const bool slept = now - passed_ns_ > silent_ns / 2;
  const bool sign = now - signed_ns_ > silent_ns / 4;
  if (sign) signed_ns_ = now;
  for (Line& line : lines_) {
    if (line.done) continue;
    if (slept) line.since_ns = now;
    const int64_t quiet_ns = now - line.since_ns;
    if (line.rank < 0) {
      line.done = quiet_ns > kStrangerNs;
    } else if (line.closing) {
      line.done = line.out.empty() || quiet_ns > kFarewellNs;
    } else if (line.connecting) {
      if (quiet_ns <= silent_ns) continue;
      line.refused = false;
      try_next(line);
    } else if (quiet_ns > silent_ns) {
      std::lock_guard lock(mutex_);
      roll_.lose(line.rank, Gone::silent);
    } else if (sign) {
      line.out += framed(encode(RollMessage{}));
      flush(line);
    }
  }
}

void RollCall::say_leaving() {
  RollMessage leaving;
  leaving.kind = RollMessage::Kind::leaving;
  for (Line& line : lines_) {
    if (!line.connecting && line.rank >= 0 && !line.closing) line.out += framed(encode(leaving));
    line.closing = true;
    line.since_ns = now_ns();
  }
}

void RollCall::farewell() {
  say_leaving();
  const int64_t until = now_ns() + kFarewellNs;
  while (true) {
    std::vector<pollfd> entries;
    for (Line& line : lines_) {
      if (line.connecting || line.out.empty()) continue;
      flush(line);
      if (!line.out.empty()) entries.push_back({line.socket.get(), POLLOUT, 0});
    }
    if (entries.empty() || now_ns() >= until) break;
    (void)::poll(entries.data(), entries.size(), 10);
  }
  lines_.clear();
}

}  // namespace railccl::runtime
