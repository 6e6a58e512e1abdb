// Moving a link's bytes through its sockets.
#include "transport/tcp_link.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace railccl::transport {
namespace {

constexpr size_t kStageBytes = 256 << 10;
// What a small read fetches beyond what was asked for: a header's system call then brings a short
// message with it.
constexpr size_t kReadAhead = 4 << 10;
// Segments of this size keep the cost of frames and of switching lanes low, and several lanes busy.
constexpr size_t kSegmentBytes = 128 << 10;
static_assert(kSegmentBytes <= kTcpSegmentMax);

std::string error_text(int error) { return std::system_category().message(error); }

bool again(int error) { return error == EAGAIN || error == EWOULDBLOCK; }

ssize_t send_ranges(int socket, iovec* ranges, size_t count) {
  msghdr message{};
  message.msg_iov = ranges;
  message.msg_iovlen = count;
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

// Drops the first `bytes` of the ranges.
void advance(iovec* ranges, size_t count, size_t bytes) {
  for (size_t i = 0; i < count && bytes > 0; i++) {
    const size_t step = std::min(ranges[i].iov_len, bytes);
    ranges[i].iov_base = static_cast<std::byte*>(ranges[i].iov_base) + step;
    ranges[i].iov_len -= step;
    bytes -= step;
  }
}

size_t total_of(std::span<const iovec> ranges) {
  size_t total = 0;
  for (const iovec& range : ranges) total += range.iov_len;
  return total;
}

}  // namespace

TcpLink::TcpLink(const AbortFlag* abort, int peer, int channel, int lanes, std::string detail)
    : abort_(abort),
      peer_(peer),
      channel_(channel),
      detail_(std::move(detail)),
      lanes_(static_cast<size_t>(lanes)) {}

std::string TcpLink::name() const {
  return fmt::format("tcp to rank {} ({}) channel {}", peer_, detail_, channel_);
}

Status TcpLink::add_lane(int lane, UniqueFd socket, std::string detail) {
  assert(!has_lane(lane));
  if (!stage_) {
    RAILCCL_TRY(stage_, Mirrored::create(kStageBytes));
  }
  at(lane).socket = std::move(socket);
  detail_ = std::move(detail);
  connected_++;
  return ok();
}

void TcpLink::on_events(int lane, uint32_t events) {
  Lane& l = at(lane);
  if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) l.hung_up = true;
  if ((events & EPOLLIN) != 0 || l.hung_up) l.readable = !l.ended;
  if ((events & EPOLLOUT) != 0 || l.hung_up) {
    l.writable = true;
    // A failure stays in send_failure_, where the next call finds it.
    if (Status status = push(&l); !status.is_ok()) return;
  }
}

void TcpLink::fail(const std::string& why, Code code) {
  const Status status(code, Scope::link, "{}: {}", name(), why);
  if (send_failure_.is_ok()) send_failure_ = status;
  if (receive_failure_.is_ok()) receive_failure_ = status;
}

Result<size_t> TcpLink::send(std::span<const iovec> ranges) {
  assert(ranges.size() <= 4);
  if (abort_->raised()) return abort_->why();
  if (!send_failure_.is_ok()) return send_failure_;
  if (connected_ < lanes()) return size_t{0};
  return striped() ? send_striped(ranges) : send_plain(ranges);
}

Result<size_t> TcpLink::send_plain(std::span<const iovec> ranges) {
  Lane& lane = lanes_[0];
  const size_t total = total_of(ranges);
  if (!lane.writable || total == 0) return size_t{0};
  std::array<iovec, 4> copy{};
  std::copy(ranges.begin(), ranges.end(), copy.begin());
  const ssize_t sent = send_ranges(lane.socket.get(), copy.data(), ranges.size());
  if (sent < 0 && !again(errno)) {
    send_failure_ = Status(Code::remote, Scope::link, "{}: {}", name(), error_text(errno));
    return send_failure_;
  }
  const size_t accepted = sent < 0 ? 0 : static_cast<size_t>(sent);
  if (accepted < total) lane.writable = lane.hung_up;
  accepted_ += accepted;
  return accepted;
}

Result<size_t> TcpLink::send_striped(std::span<const iovec> ranges) {
  std::array<iovec, 4> rest{};
  std::copy(ranges.begin(), ranges.end(), rest.begin());
  size_t left = total_of(ranges);
  const size_t total = left;
  // Once around the lanes without one that takes a segment: all are full.
  for (size_t tried = 0; left > 0 && tried < lanes_.size(); tried++) {
    Lane& lane = lanes_[next_lane_];
    next_lane_ = (next_lane_ + 1) % lanes_.size();
    if (lane.out_header_left + lane.out_left > 0) RAILCCL_CHECK(push(&lane));
    if (lane.out_header_left + lane.out_left > 0 || !lane.writable) continue;
    const size_t bytes = std::min(left, kSegmentBytes);
    lane.out_header = encode(TcpFrame{accepted_, static_cast<uint32_t>(bytes)});
    lane.out_header_left = kTcpFrameBytes;
    lane.out_left = bytes;
    lane.out_offset = accepted_;
    size_t open = bytes;
    for (size_t i = 0; i < rest.size(); i++) {
      lane.out_ranges[i] = {rest[i].iov_base, std::min(rest[i].iov_len, open)};
      open -= lane.out_ranges[i].iov_len;
    }
    advance(rest.data(), rest.size(), bytes);
    accepted_ += bytes;
    left -= bytes;
    RAILCCL_CHECK(push(&lane));
    tried = 0;
  }
  return total - left;
}

// Writes what the lane still has of its segment.
Status TcpLink::push(Lane* lane) {
  if (!send_failure_.is_ok()) return send_failure_;
  while (lane->writable && lane->out_header_left + lane->out_left > 0) {
    std::array<iovec, 5> ranges{};
    ranges[0] = {lane->out_header.data() + kTcpFrameBytes - lane->out_header_left,
                 lane->out_header_left};
    std::copy(lane->out_ranges.begin(), lane->out_ranges.end(), ranges.begin() + 1);
    const ssize_t sent = send_ranges(lane->socket.get(), ranges.data(), ranges.size());
    if (sent < 0 && !again(errno)) {
      send_failure_ = Status(Code::remote, Scope::link, "{}: {}", name(), error_text(errno));
      return send_failure_;
    }
    size_t done = sent < 0 ? 0 : static_cast<size_t>(sent);
    if (done < lane->out_header_left + lane->out_left) lane->writable = lane->hung_up;
    const size_t of_header = std::min(done, lane->out_header_left);
    lane->out_header_left -= of_header;
    done -= of_header;
    advance(lane->out_ranges.data(), lane->out_ranges.size(), done);
    lane->out_left -= done;
    lane->out_offset += done;
    if (sent < 0) break;
  }
  return ok();
}

uint64_t TcpLink::released() const {
  uint64_t released = accepted_;
  for (const Lane& lane : lanes_)
    if (lane.out_left > 0) released = std::min(released, lane.out_offset);
  return released;
}

Result<bool> TcpLink::flush() {
  if (abort_->raised()) return abort_->why();
  if (!send_failure_.is_ok()) return send_failure_;
  bool empty = true;
  if (striped()) {
    for (Lane& lane : lanes_) {
      RAILCCL_CHECK(push(&lane));
      empty &= lane.out_header_left + lane.out_left == 0;
    }
  }
  return empty;
}

Result<std::span<const std::byte>> TcpLink::peek(size_t want) {
  if (abort_->raised()) return abort_->why();
  if (connected_ == lanes() && staged() < want && stage_room() > 0) {
    const size_t fetched = std::min(std::max(want - staged(), kReadAhead), stage_room());
    // A failure is kept and shown below, once what came before it has been taken.
    if (Result<size_t> got = fetch(stage_end(), fetched, false); got.is_ok()) stage_tail_ += *got;
  }
  if (!receive_failure_.is_ok() && staged() < want) {
    if (staged() == 0 || staged() == last_view_) return receive_failure_;
    last_view_ = staged();
  }
  if (!stage_) return std::span<const std::byte>();
  return std::span<const std::byte>(stage_.data() + (stage_head_ & (stage_.size() - 1)), staged());
}

void TcpLink::consume(size_t bytes) {
  assert(bytes <= staged());
  stage_head_ += bytes;
  last_view_ = kNoView;
}

size_t TcpLink::take_staged(std::byte* dst, size_t bytes) {
  const size_t taken = std::min(bytes, staged());
  if (taken == 0) return 0;
  std::memcpy(dst, stage_.data() + (stage_head_ & (stage_.size() - 1)), taken);
  stage_head_ += taken;
  last_view_ = kNoView;
  return taken;
}

Result<size_t> TcpLink::receive(void* dst, size_t bytes) {
  if (abort_->raised()) return abort_->why();
  auto* to = static_cast<std::byte*>(dst);
  size_t done = take_staged(to, bytes);
  while (done < bytes && connected_ == lanes() && receive_failure_.is_ok()) {
    Result<size_t> got = fetch(to + done, bytes - done, true);
    if (!got.is_ok() || *got == 0) break;
    done += *got;
  }
  if (done == 0 && bytes > 0 && !receive_failure_.is_ok()) return receive_failure_;
  return done;
}

Result<size_t> TcpLink::fetch(std::byte* dst, size_t want, bool ahead) {
  if (!receive_failure_.is_ok()) return receive_failure_;
  Result<size_t> got = striped() ? fetch_striped(dst, want) : fetch_plain(dst, want, ahead);
  if (!got.is_ok()) {
    receive_failure_ = got.status();
    // Nobody closes one direction only: what cannot be read from takes no bytes either.
    if (send_failure_.is_ok()) send_failure_ = receive_failure_;
  }
  return got;
}

// One read from a lane's socket: 0 when it has nothing (or no more: lane->ended).
Result<size_t> TcpLink::read_some(Lane* lane, iovec* ranges, size_t count) {
  if (!lane->readable) return size_t{0};
  const size_t wanted = total_of({ranges, count});
  msghdr message{};
  message.msg_iov = ranges;
  message.msg_iovlen = count;
  ssize_t got;
  do {
    got = recvmsg(lane->socket.get(), &message, MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (!again(errno)) {
      return Status(Code::remote, Scope::link, "{}: {}", name(), error_text(errno));
    }
    lane->readable = false;
    return size_t{0};
  }
  if (got == 0) {
    lane->ended = true;
    lane->readable = false;
    return size_t{0};
  }
  // Less than asked for means that the socket is empty, so the next bytes make a new edge; unless
  // the edge of the hang-up has been there already.
  if (static_cast<size_t>(got) < wanted) lane->readable = lane->hung_up;
  return static_cast<size_t>(got);
}

Result<size_t> TcpLink::fetch_plain(std::byte* dst, size_t want, bool ahead) {
  Lane& lane = lanes_[0];
  iovec ranges[2] = {{dst, want}, {stage_end(), kReadAhead}};
  RAILCCL_TRY(const size_t got, read_some(&lane, ranges, ahead ? 2 : 1));
  if (got == 0 && lane.ended) {
    return Status(Code::remote, Scope::link, "{}: connection closed by peer", name());
  }
  if (got <= want) return got;
  stage_tail_ += got - want;
  return want;
}

Result<size_t> TcpLink::fetch_striped(std::byte* dst, size_t want) {
  while (true) {
    Lane* front = nullptr;
    bool headers = false;  // may there be more frames?
    bool ended = false;
    for (Lane& lane : lanes_) {
      if (lane.in_left == 0) RAILCCL_CHECK(read_header(&lane));
      if (lane.in_left > 0 && lane.in_offset == front_) front = &lane;
      headers |= lane.in_left == 0;
      ended |= lane.ended;
    }
    if (front == nullptr) {
      if (ended) {
        return Status(Code::remote, Scope::link, "{}: connection closed by peer", name());
      }
      if (!headers) {
        return Status(Code::remote, Scope::communicator, "{}: byte {} of the stream is on no lane",
                      name(), front_);
      }
      return size_t{0};
    }
    // The next frame's header comes in the same call when this segment's rest is wanted.
    const size_t bytes = std::min(want, front->in_left);
    iovec ranges[2] = {{dst, bytes}, {front->in_header.data(), kTcpFrameBytes}};
    RAILCCL_TRY(const size_t got, read_some(front, ranges, bytes == front->in_left ? 2 : 1));
    if (got == 0 && front->ended) {
      return Status(Code::remote, Scope::link, "{}: connection closed by peer", name());
    }
    const size_t payload = std::min(got, bytes);
    front->in_left -= payload;
    front->in_offset += payload;
    front_ += payload;
    if (got > payload) {
      front->in_header_have = got - payload;
      RAILCCL_CHECK(accept_header(front));
    }
    return payload;
  }
}

Status TcpLink::read_header(Lane* lane) {
  if (!lane->readable) return ok();
  iovec range{lane->in_header.data() + lane->in_header_have, kTcpFrameBytes - lane->in_header_have};
  RAILCCL_TRY(const size_t got, read_some(lane, &range, 1));
  lane->in_header_have += got;
  return accept_header(lane);
}

Status TcpLink::accept_header(Lane* lane) {
  if (lane->in_header_have < kTcpFrameBytes) return ok();
  lane->in_header_have = 0;
  const std::optional<TcpFrame> frame = decode_tcp_frame(lane->in_header);
  if (!frame || frame->offset < lane->in_offset) {
    return Status(Code::remote, Scope::communicator, "{}: malformed frame", name());
  }
  lane->in_offset = frame->offset;
  lane->in_left = frame->bytes;
  return ok();
}

}  // namespace railccl::transport
