// Listening, and conversations; see status_socket.h.
#include "runtime/status_socket.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "runtime/observed.h"
#include "runtime/picture_text.h"
#include "runtime/reactor.h"
#include "runtime/status_wire.h"

namespace railccl::runtime {
namespace {

constexpr int kConversationsMax = 16;
constexpr int kAcceptsMax = 64;  // per turn, so that strangers cannot occupy the thread
constexpr int64_t kAskNs = 2'000'000'000, kTellNs = 10'000'000'000;
constexpr int64_t kRestNs = 100'000'000;
constexpr size_t kLastFew = 16;
constexpr size_t kEnoughForRates = 256;
constexpr size_t kAllOperations = std::numeric_limits<size_t>::max();
constexpr size_t kAnswerBytesMax = 16 << 20;

/// One who asks: a question, an answer, the end. Of the control thread.
class Conversation final : public Reactor::Client,
                           public std::enable_shared_from_this<Conversation> {
 public:
  Conversation(UniqueFd socket, Reactor* reactor, std::shared_ptr<int> open)
      : socket_(std::move(socket)), reactor_(reactor), open_(std::move(open)) {
    ++*open_;
  }
  ~Conversation() override { --*open_; }

  void begin() {
    id_ = reactor_->add(shared_from_this());
    if (!reactor_->watch(id_, 0, socket_.get()).is_ok()) return reactor_->remove(id_);
    reactor_->wake_at(id_, until_ns_);
  }

  void on_ready(uint32_t) override {
    if (!socket_) return;
    if (answer_.empty() && !listen()) return;
    if (!answer_.empty()) say();
  }
  void on_wake() override { now_ns() < until_ns_ ? reactor_->wake_at(id_, until_ns_) : end(); }

 private:
  /// True when there is something to say.
  bool listen() {
    char bytes[kQuestionBytesMax];
    const ssize_t got =
        ::recv(socket_.get(), bytes, kQuestionBytesMax - question_.size(), MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) return false;
    if (got <= 0) return end(), false;
    question_.append(bytes, static_cast<size_t>(got));
    if (question_.back() != '\n' && question_.size() < kQuestionBytesMax) return false;
    const auto question = parse_question(question_);
    if (!question) return end(), false;
    const bool all = *question == StatusQuestion::operations;
    answer_ = process_text(Observed::all(all ? kAllOperations : kEnoughForRates),
                           all ? kAllOperations : kLastFew, kAnswerBytesMax);
    until_ns_ = now_ns() + kTellNs;
    return true;
  }
  void say() {
    while (said_ < answer_.size()) {
      const ssize_t sent = ::send(socket_.get(), answer_.data() + said_, answer_.size() - said_,
                                  MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) {
        said_ += static_cast<size_t>(sent);
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        // Who shuts his side down while he is being told would be ready all the time.
        char byte;
        if (::recv(socket_.get(), &byte, 1, MSG_DONTWAIT) >= 0) return end();
        return reactor_->want_write(id_, 0, socket_.get(), true);
      } else if (errno != EINTR) {
        return end();
      }
    }
    end();
  }
  void end() {
    if (!socket_) return;
    reactor_->forget(socket_.get());
    socket_.reset();
    reactor_->remove(id_);
  }

  UniqueFd socket_;
  Reactor* const reactor_;
  const std::shared_ptr<int> open_;
  uint64_t id_ = 0;
  int64_t until_ns_ = now_ns() + kAskNs;
  std::string question_, answer_;
  size_t said_ = 0;
};

class Listener final : public Reactor::Client, public std::enable_shared_from_this<Listener> {
 public:
  Listener(UniqueFd socket, Reactor* reactor) : socket_(std::move(socket)), reactor_(reactor) {}

  Status begin() {
    id_ = reactor_->add(shared_from_this());
    return reactor_->watch(id_, 0, socket_.get());
  }
  void on_ready(uint32_t) override {
    for (int accepts = 0; accepts < kAcceptsMax; accepts++) {
      UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!socket) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
          // The listener stays readable: to rest is better than to spin.
          reactor_->forget(socket_.get());
          reactor_->wake_at(id_, now_ns() + kRestNs);
        }
        return;
      }
      ucred peer{};
      socklen_t bytes = sizeof peer;
      if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) continue;
      if (peer.uid != ::geteuid() && peer.uid != 0) continue;
      if (*open_ >= kConversationsMax) continue;
      std::make_shared<Conversation>(std::move(socket), reactor_, open_)->begin();
    }
  }
  void on_wake() override {
    if (!reactor_->watch(id_, 0, socket_.get()).is_ok())
      log::info("railccl-status cannot look at this process any more");
  }

 private:
  UniqueFd socket_;
  Reactor* const reactor_;
  const std::shared_ptr<int> open_ = std::make_shared<int>(0);
  uint64_t id_ = 0;
};

Result<UniqueFd> bound_socket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return system_error(errno, "socket");
  StatusName name{::geteuid(), static_cast<uint64_t>(::getpid()), 0};
  if (!secret_bytes(&name.nonce, sizeof name.nonce)) return system_error(errno, "getrandom");
  const std::string text = encode(name);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, text.data(), text.size());
  const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), bytes) != 0)
    return system_error(errno, "bind");
  if (::listen(socket.get(), kConversationsMax) != 0) return system_error(errno, "listen");
  return socket;
}

Status open_now() {
  RAILCCL_TRY(Reactor * reactor, Reactor::get());
  RAILCCL_TRY(UniqueFd socket, bound_socket());
  return std::make_shared<Listener>(std::move(socket), reactor)->begin();
}

}  // namespace

void open_status_socket() {
  static std::atomic<pid_t> opened{0};
  const pid_t process = ::getpid();
  if (opened.exchange(process, std::memory_order_relaxed) == process) return;
  if (const Status status = open_now(); !status.is_ok())
    log::info("railccl-status cannot look at this process: {}", status.text());
}

}  // namespace railccl::runtime
