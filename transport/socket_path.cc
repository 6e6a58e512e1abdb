// Reading, writing and asking the kernel how it goes.
#include "transport/socket_path.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <system_error>

namespace railccl::transport {
namespace {

// Bytes that wait in the kernel can be given to no other path: no more than keep it going.
constexpr int kUnsentBytes = 256 << 10;
constexpr int kFarewellMs = 10'000;
// A speed is measured over so much: queues on the way make shorter pieces look fast or slow.
constexpr uint64_t kMeasuredBytes = 512 << 10, kMeasuredBytesAmple = 64 << 20;
constexpr int64_t kMeasuredUs = 50'000;

constexpr uint32_t kManyPackets = 4;

bool again(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

size_t total_of(std::span<const iovec> ranges) {
  size_t total = 0;
  for (const iovec& range : ranges) total += range.iov_len;
  return total;
}

// What the kernel knows; all zero when it does not say.
tcp_info info_of(int socket) {
  tcp_info info{};
  socklen_t bytes = sizeof(info);
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) return {};
  return info;
}

int64_t round_trip_of(const tcp_info& info) {
  return (int64_t{info.tcpi_rtt} + 2 * int64_t{info.tcpi_rttvar}) * 1000;
}

}  // namespace

SocketPath::SocketPath(UniqueFd socket, std::string nic, std::string name, bool one_of_several)
    : socket_(std::move(socket)), nic_(std::move(nic)), name_(std::move(name)) {
  if (one_of_several) {
    (void)setsockopt(socket_.get(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytes,
                     sizeof(kUnsentBytes));
  }
}

Status SocketPath::failure(int error) {
  closed_by_peer_ |= error == ECONNRESET || error == EPIPE;
  return Status(Code::remote, Scope::link, "{}", std::system_category().message(error));
}

Result<size_t> SocketPath::write(std::span<const iovec> ranges) {
  if (!writable_) return size_t{0};
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(ranges.data());
  message.msg_iovlen = ranges.size();
  ssize_t sent;
  do {
    sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && !again(errno)) return failure(errno);
  const size_t done = sent < 0 ? 0 : static_cast<size_t>(sent);
  if (done < total_of(ranges)) writable_ = hung_up_;
  written_ += done;
  return done;
}

uint64_t SocketPath::acknowledged() {
  int left = 0;
  if (ioctl(socket_.get(), SIOCOUTQ, &left) != 0 || left < 0) return 0;
  return written_ - std::min<uint64_t>(written_, static_cast<uint64_t>(left));
}

bool SocketPath::under_way() { return info_of(socket_.get()).tcpi_unacked > 0; }

int64_t SocketPath::round_trip_ns() { return round_trip_of(info_of(socket_.get())); }

// Behind many packets no acknowledgement waits for company: they come one after the other, and for
// those behind a lost one duplicates come. When for a while, and longer than they are on their way,
// not even these have come, nothing comes through.
int64_t SocketPath::patience_ns() {
  const tcp_info info = info_of(socket_.get());
  const int64_t round_trip = round_trip_of(info);
  const int64_t usual = std::max(kSilentNs, kSilentRoundTrips * round_trip);
  const bool heard = int64_t{info.tcpi_last_ack_recv} * 1'000'000 < kSilentLeastNs;
  if (heard || info.tcpi_unacked < kManyPackets) return usual;
  return std::min(usual, std::max(kSilentLeastNs, 2 * round_trip));
}

NicPath::Usage SocketPath::usage() const {
  const tcp_info info = info_of(socket_.get());
  // What came across behind a lost packet counts when it comes, not all at once when the hole is
  // filled: the path would look faster than it is.
  const uint64_t behind = uint64_t{info.tcpi_sacked} * info.tcpi_snd_mss;
  return {info.tcpi_bytes_acked + behind, info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0,
          static_cast<int64_t>(info.tcpi_busy_time), static_cast<int64_t>(info.tcpi_rwnd_limited)};
}

bool SocketPath::measure() {
  if (written_ - seen_written_ < kMeasuredBytes) return false;
  const Usage now = usage();
  const uint64_t bytes = now.bytes_since(seen_);
  const int64_t us = now.busy_us - seen_.busy_us;
  if (bytes < kMeasuredBytes || (us < kMeasuredUs && bytes < kMeasuredBytesAmple)) return false;
  // Where it waited for the receiver to make room, this says nothing about the path.
  const bool waited = us <= 0 || now.waited_us - seen_.waited_us > us / 16;
  seen_written_ = written_;
  seen_ = now;
  if (waited) return false;
  bytes_per_s_ = 1e6 * static_cast<double>(bytes) / static_cast<double>(us);
  return true;
}

Result<size_t> SocketPath::read(std::span<const iovec> ranges) {
  if (!readable_) return size_t{0};
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(ranges.data());
  message.msg_iovlen = ranges.size();
  ssize_t got;
  do {
    got = recvmsg(socket_.get(), &message, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (!again(errno)) return failure(errno);
    readable_ = false;
    return size_t{0};
  }
  if (got == 0) {
    closed_by_peer_ = true;
    return Status(Code::remote, Scope::link, "connection closed by peer");
  }
  received_ += static_cast<uint64_t>(got);
  // Less than asked for means that the socket is empty, so the next bytes make a new edge; unless
  // the edge of the hang-up has been there already.
  if (static_cast<size_t>(got) < total_of(ranges)) readable_ = hung_up_;
  return static_cast<size_t>(got);
}

// The kernel keeps an acknowledgement back for up to 40 ms once a connection has carried requests
// and answers, in the hope of bytes to send it with (tcp(7), TCP_QUICKACK; it does not last).
void SocketPath::acknowledge() {
  const int now = 1;
  (void)setsockopt(socket_.get(), IPPROTO_TCP, TCP_QUICKACK, &now, sizeof(now));
}

void SocketPath::on_events(uint32_t events) {
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) hung_up_ = true;
  if ((events & EPOLLIN) != 0 || hung_up_) readable_ = true;
  if ((events & EPOLLOUT) != 0 || hung_up_) writable_ = true;
}

void SocketPath::close_writing() {
  (void)shutdown(socket_.get(), SHUT_WR);
  (void)setsockopt(socket_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kFarewellMs, sizeof(kFarewellMs));
}

}  // namespace railccl::transport
