// Plain sockets in compare_rails: the least that an all-reduce between two ranks on two hosts can
// take over TCP, one connection and nothing around it. Two ranks, float32, all-reduce only.
//
// Variants: "exchange": both send, then both receive and add. "ping-pong": one sends, the other
// adds and sends the sum back, so that a call takes one round trip. Waiting is railccl's way: look
// again and again, and after 60 us let others have the core between looks.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "worker.h"

namespace railccl::compare {
namespace {

using Clock = std::chrono::steady_clock;

class Sockets : public Library {
 public:
  /// Rank 0 listens at `address`, the other one connects.
  Sockets(std::string address, int port) : address_(std::move(address)), port_(port) {}
  ~Sockets() override {
    if (socket_ >= 0) close(socket_);
  }

  bool connect(Page& page, int rank, std::string* error) override {
    rank_ = rank;
    if (page.ranks != 2) {
      *error = "plain sockets join two ranks only";
      return false;
    }
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = htons(static_cast<uint16_t>(port_));
    if (inet_pton(AF_INET, address_.c_str(), &place.sin_addr) != 1) {
      *error = "not an address: " + address_;
      return false;
    }
    socket_ = rank == 0 ? accept_one(place) : dial(place);
    if (socket_ < 0) {
      *error = std::strerror(errno);
      return false;
    }
    const int on = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return true;
  }

  bool bind(Work& work, std::string* error) override {
    if (work.type == Type::float32 && work.operation == Operation::all_reduce) {
      work_ = &work;
      return true;
    }
    *error = "only all-reduces of float32";
    return false;
  }

  bool call() override {
    const auto* in = static_cast<const float*>(work_->in);
    auto* out = static_cast<float*>(work_->out);
    const size_t bytes = work_->count * sizeof(float);
    if (work_->variant == "exchange")
      return send_all(in, bytes) && receive_all(out, bytes) && add(in, out);
    if (rank_ == 0) return send_all(in, bytes) && receive_all(out, bytes);
    return receive_all(out, bytes) && add(in, out) && send_all(out, bytes);
  }

  std::string failure() override { return "the connection broke"; }

 private:
  static int accept_one(const sockaddr_in& place) {
    const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    int accepted = -1;
    if (::bind(listener, reinterpret_cast<const sockaddr*>(&place), sizeof(place)) == 0 &&
        listen(listener, 1) == 0)
      accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    close(listener);
    return accepted;
  }
  static int dial(const sockaddr_in& place) {
    // The other process may not be there yet.
    for (int attempt = 0; attempt < 500; attempt++) {
      const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      if (::connect(fd, reinterpret_cast<const sockaddr*>(&place), sizeof(place)) == 0) return fd;
      close(fd);
      usleep(20'000);
    }
    return -1;
  }
  /// Waits a moment more, or fails when the connection broke.
  static bool again(Clock::time_point since) {
    if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return false;
    if (Clock::now() - since > std::chrono::microseconds(60)) sched_yield();
    return true;
  }
  bool send_all(const void* data, size_t bytes) {
    const auto* from = static_cast<const char*>(data);
    const auto since = Clock::now();
    while (bytes > 0) {
      const ssize_t sent = send(socket_, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0 && !again(since)) return false;
      if (sent <= 0) continue;
      from += sent;
      bytes -= static_cast<size_t>(sent);
    }
    return true;
  }
  bool receive_all(void* data, size_t bytes) {
    auto* to = static_cast<char*>(data);
    const auto since = Clock::now();
    while (bytes > 0) {
      const ssize_t got = recv(socket_, to, bytes, MSG_DONTWAIT);
      if (got == 0 || (got < 0 && !again(since))) return false;
      if (got < 0) continue;
      to += got;
      bytes -= static_cast<size_t>(got);
    }
    return true;
  }
  bool add(const float* in, float* out) const {
    for (size_t i = 0; i < work_->count; i++) out[i] += in[i];
    return true;
  }

  std::string address_;
  int port_;
  int rank_ = 0;
  int socket_ = -1;
  const Work* work_ = nullptr;
};

}  // namespace
}  // namespace railccl::compare

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const int rank = std::atoi(argv[2]);
  railccl::compare::Sockets library(argv[3], std::atoi(argv[4]));
  return railccl::compare::run_worker(library, argv[1], rank);
}
