// The probe's conversation, on both sides.
//
//   client: hello (secret, whom it means)      server: hello (secret, who it is)
//   client: 8 bytes, some times                server: the same back
//   client: kLargeBytes at once                server: 8 bytes when all are there
//   client: as much as goes in 100 ms, then no more         server: how many bytes came
#include "doctor/pair_probe.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "base/clock.h"

namespace railccl::doctor {
namespace {

using Outcome = PairResult::Outcome;

constexpr int kPings = 100;
constexpr size_t kLargeBytes = 256 << 10;
constexpr int64_t kConnectMs = 1000, kAnswerMs = 1000, kLargeMs = 1500;
// A slow link's queues must be through with the stream, or the next probe meets them.
constexpr int64_t kStreamMs = 100, kStreamEndMs = 2000;
constexpr size_t kStreamBytesMost = 64 << 20;
constexpr int64_t kSliceMs = 100;  // how often a wait looks whether it shall end
constexpr uint64_t kMagic = 0x726f74636f64ull;

struct Hello {
  uint64_t magic = kMagic;
  uint64_t secret = 0;
  int64_t host = 0;
};

/// A connected socket whose reads and writes end at a deadline, or when `stop` is set.
class Talk {
 public:
  Talk(int socket, const std::atomic<bool>* stop) : socket_(socket), stop_(stop) {}

  enum class Result : uint8_t { done, late, broken };
  Result read(void* data, size_t bytes, int64_t ms) {
    return move(bytes, ms, POLLIN, [&](size_t at) {
      return ::recv(socket_, static_cast<char*>(data) + at, bytes - at, MSG_DONTWAIT);
    });
  }
  Result write(const void* data, size_t bytes, int64_t ms) {
    return move(bytes, ms, POLLOUT, [&](size_t at) {
      return ::send(socket_, static_cast<const char*>(data) + at, bytes - at,
                    MSG_DONTWAIT | MSG_NOSIGNAL);
    });
  }
  /// Everything until the far end says that no more comes; how many bytes.
  Result drain(uint64_t* bytes, int64_t ms) {
    std::vector<char> room(256 << 10);
    const Deadline deadline = Deadline::after_ms(ms);
    while (true) {
      const ssize_t got = ::recv(socket_, room.data(), room.size(), MSG_DONTWAIT);
      if (got == 0) return Result::done;
      if (got > 0) {
        *bytes += static_cast<uint64_t>(got);
        continue;
      }
      if (const Result waited = wait(POLLIN, deadline); waited != Result::done) return waited;
    }
  }

 private:
  template <typename Step>
  Result move(size_t bytes, int64_t ms, short events, const Step& step) {
    const Deadline deadline = Deadline::after_ms(ms);
    for (size_t at = 0; at < bytes;) {
      const ssize_t moved = step(at);
      if (moved == 0 && events == POLLIN) return Result::broken;
      if (moved > 0) {
        at += static_cast<size_t>(moved);
        continue;
      }
      if (const Result waited = wait(events, deadline); waited != Result::done) return waited;
    }
    return Result::done;
  }
  // After a step that failed with errno.
  Result wait(short events, const Deadline& deadline) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return Result::broken;
    if (deadline.passed() || (stop_ != nullptr && stop_->load(std::memory_order_relaxed)))
      return Result::late;
    pollfd entry{socket_, events, 0};
    (void)::poll(&entry, 1, deadline.left_ms(kSliceMs));
    return Result::done;
  }

  int socket_;
  const std::atomic<bool>* stop_;
};

/// Waits until the connection is there; what the system says is wrong with it, ETIMEDOUT for
/// nothing at all.
int wait_connected(int socket) {
  pollfd entry{socket, POLLOUT, 0};
  const Deadline deadline = Deadline::after_ms(kConnectMs);
  while (!deadline.passed()) {
    if (::poll(&entry, 1, deadline.left_ms(kSliceMs)) > 0) return transport::tcp_error(socket);
  }
  return ETIMEDOUT;
}

Outcome outcome_of_connect(int error) {
  switch (error) {
    case ECONNREFUSED:
      return Outcome::refused;
    case ENETUNREACH:
    case EADDRNOTAVAIL:
    case EACCES:
    case EPERM:
    case ENODEV:
      return Outcome::no_route;
    default:  // ETIMEDOUT; EHOSTUNREACH: nobody answers who has the address
      return Outcome::no_answer;
  }
}

std::string text_of(int error) { return std::system_category().message(error); }

/// Sends for a while; how many bytes per second arrived.
bool stream(Talk& talk, int socket, PairResult* result) {
  const std::vector<char> block(256 << 10, 's');
  const int64_t begin = now_ns();
  size_t sent = 0;
  while (now_ns() - begin < kStreamMs * 1'000'000 && sent < kStreamBytesMost) {
    if (talk.write(block.data(), block.size(), kStreamEndMs) != Talk::Result::done) return false;
    sent += block.size();
  }
  (void)shutdown(socket, SHUT_WR);
  uint64_t arrived = 0;
  if (talk.read(&arrived, sizeof arrived, kStreamEndMs) != Talk::Result::done || arrived != sent)
    return false;
  result->bytes_per_s = static_cast<double>(sent) / (1e-9 * static_cast<double>(now_ns() - begin));
  return true;
}

double lost_share(int socket) {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0 || info.tcpi_segs_out == 0)
    return 0;
  return static_cast<double>(info.tcpi_total_retrans) / info.tcpi_segs_out;
}

}  // namespace

Result<std::unique_ptr<ProbeServer>> ProbeServer::start(uint64_t secret, int host,
                                                        transport::TcpListener listener) {
  std::unique_ptr<ProbeServer> server(new ProbeServer(secret, host, std::move(listener)));
  server->thread_ = std::thread([raw = server.get()] { raw->serve(); });
  return server;
}

ProbeServer::~ProbeServer() {
  stop_.store(true, std::memory_order_relaxed);
  thread_.join();
}

void ProbeServer::serve() {
  struct Visitor {
    std::thread thread;
    std::shared_ptr<std::atomic<bool>> gone;
  };
  std::list<Visitor> visitors;
  constexpr size_t kVisitorsMost = 256;
  while (!stop_.load(std::memory_order_relaxed)) {
    // Nobody else is heard while there are too many: poll() overlooks a negative descriptor.
    pollfd entry{visitors.size() < kVisitorsMost ? listener_.socket.get() : -1, POLLIN, 0};
    (void)::poll(&entry, 1, kSliceMs);
    visitors.remove_if([](Visitor& visitor) {
      if (!visitor.gone->load(std::memory_order_acquire)) return false;
      visitor.thread.join();
      return true;
    });
    while (visitors.size() < kVisitorsMost) {
      auto accepted = transport::tcp_accept(listener_.socket.get(), kProbeMsMost);
      if (!accepted.is_ok() || !*accepted) break;
      auto gone = std::make_shared<std::atomic<bool>>(false);
      // Release, partner: the acquire above.
      std::thread thread([this, gone, socket = std::move(*accepted)]() mutable {
        answer(std::move(socket));
        gone->store(true, std::memory_order_release);
      });
      visitors.push_back({std::move(thread), std::move(gone)});
    }
  }
  for (Visitor& visitor : visitors) visitor.thread.join();
}

void ProbeServer::answer(UniqueFd socket) const {
  Talk talk(socket.get(), &stop_);
  Hello hello;
  if (talk.read(&hello, sizeof hello, kAnswerMs) != Talk::Result::done) return;
  if (hello.magic != kMagic || hello.secret != secret_) return;
  const Hello mine{kMagic, secret_, host_};
  if (talk.write(&mine, sizeof mine, kAnswerMs) != Talk::Result::done) return;
  for (int i = 0; i < kPings; i++) {
    uint64_t ping = 0;
    if (talk.read(&ping, sizeof ping, kAnswerMs) != Talk::Result::done) return;
    if (talk.write(&ping, sizeof ping, kAnswerMs) != Talk::Result::done) return;
  }
  std::vector<char> large(kLargeBytes);
  // Longer than the client waits: a hang-up would look like something else.
  if (talk.read(large.data(), large.size(), 2 * kLargeMs) != Talk::Result::done) return;
  uint64_t bytes = 0;
  if (talk.write(&bytes, sizeof bytes, kAnswerMs) != Talk::Result::done) return;
  if (talk.drain(&bytes, kStreamMs + kStreamEndMs) != Talk::Result::done) return;
  (void)talk.write(&bytes, sizeof bytes, kAnswerMs);
}

PairResult probe_pair(uint64_t secret, int to, const transport::TcpPath& path, uint16_t port) {
  PairResult result;
  result.to = to;
  result.nic = path.from.interface;
  result.far_nic = path.to.interface;
  result.subnet = subnet_of(path.from.address);
  const auto failed = [&](Outcome outcome, std::string text) {
    result.outcome = outcome;
    result.text = std::move(text);
    return result;
  };
  auto socket = transport::tcp_connect(path, port, kProbeMsMost);
  if (!socket.is_ok()) return failed(Outcome::no_route, socket.status().text());
  if (const int error = wait_connected(socket->get()); error != 0)
    return failed(outcome_of_connect(error), text_of(error));
  Talk talk(socket->get(), nullptr);
  const auto went_wrong = [&](Talk::Result how, Outcome late) {
    return how == Talk::Result::late ? failed(late, "no answer in time")
                                     : failed(Outcome::broken, "the connection broke");
  };
  const Hello mine{kMagic, secret, to};
  Hello theirs;
  Talk::Result how = talk.write(&mine, sizeof mine, kAnswerMs);
  if (how == Talk::Result::done) how = talk.read(&theirs, sizeof theirs, kAnswerMs);
  // Who does not know the secret hangs up.
  if (how == Talk::Result::broken)
    return failed(Outcome::another_host, "a stranger answers and hangs up");
  if (how != Talk::Result::done) return went_wrong(how, Outcome::silent);
  if (theirs.magic != kMagic || theirs.secret != secret || theirs.host != to)
    return failed(Outcome::another_host, fmt::format("host number {} answers", theirs.host));
  for (int i = 0; i < kPings; i++) {
    uint64_t ping = 1;
    const int64_t begin = now_ns();
    how = talk.write(&ping, sizeof ping, kAnswerMs);
    if (how == Talk::Result::done) how = talk.read(&ping, sizeof ping, kAnswerMs);
    if (how != Talk::Result::done) return went_wrong(how, Outcome::silent);
    const double us = 1e-3 * static_cast<double>(now_ns() - begin);
    result.round_trip_us = i == 0 ? us : std::min(result.round_trip_us, us);
  }
  // Nothing waits in queues so far: what had to be sent again was lost, not in the way.
  result.lost_share = lost_share(socket->get());
  const std::vector<char> large(kLargeBytes, 'l');
  uint64_t word = 0;
  how = talk.write(large.data(), large.size(), kLargeMs);
  if (how == Talk::Result::done) how = talk.read(&word, sizeof word, kLargeMs);
  if (how != Talk::Result::done) return went_wrong(how, Outcome::large_swallowed);
  if (!stream(talk, socket->get(), &result))
    return failed(Outcome::broken, "the stream did not arrive");
  return result;
}

std::string encode(const std::vector<PairResult>& results) {
  nlohmann::json lines = nlohmann::json::array();
  for (const PairResult& one : results)
    lines.push_back({{"from", one.from},
                     {"to", one.to},
                     {"nic", one.nic},
                     {"far_nic", one.far_nic},
                     {"subnet", one.subnet},
                     {"outcome", static_cast<int>(one.outcome)},
                     {"text", one.text},
                     {"round_trip_us", one.round_trip_us},
                     {"bytes_per_s", one.bytes_per_s},
                     {"lost_share", one.lost_share}});
  return lines.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

Result<std::vector<PairResult>> decode_pair_results(std::string_view text) try {
  std::vector<PairResult> results;
  for (const nlohmann::json& from : nlohmann::json::parse(text)) {
    PairResult one;
    one.from = from.at("from");
    one.to = from.at("to");
    one.nic = from.at("nic");
    one.far_nic = from.at("far_nic");
    one.subnet = from.at("subnet");
    const int outcome = from.at("outcome");
    if (outcome < 0 || outcome > static_cast<int>(Outcome::broken))
      return Status(Code::remote, "not a probe's result: outcome {}", outcome);
    one.outcome = static_cast<Outcome>(outcome);
    one.text = from.at("text");
    one.round_trip_us = from.at("round_trip_us");
    one.bytes_per_s = from.at("bytes_per_s");
    one.lost_share = from.at("lost_share");
    results.push_back(std::move(one));
  }
  return results;
} catch (const nlohmann::json::exception& bad) {
  return Status(Code::remote, "not a probe's results: {}", bad.what());
}

}  // namespace railccl::doctor
