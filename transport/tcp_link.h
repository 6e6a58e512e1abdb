// TcpLink: one link's byte stream over one or several sockets (lanes).
//
// One lane: the stream itself is what travels, without frames. Several lanes: the sender cuts the
// stream into segments and gives each to a lane that has room, behind a frame that says where in
// the stream it belongs; a slow lane so gets fewer segments. The receiver always reads from the
// lane whose segment is next in the stream, straight to the destination; segments that are early
// wait in the kernel's socket buffers, whose flow control is all the credit that is needed: the
// frames of one lane have growing offsets, so the lane that has the next byte has it in front, and
// reading it never waits for another.
//
// With several lanes send() does not copy: the source must stay until released() has passed it.
//
// Driven by one thread at a time, with the transport that owns it and delivers readiness events.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "base/owners.h"
#include "transport/abort_flag.h"
#include "transport/link.h"
#include "transport/mirrored.h"
#include "transport/tcp_wire.h"

namespace railccl::transport {

class TcpLink final : public Link {
 public:
  /// `detail` describes the far end until a lane is connected.
  TcpLink(const AbortFlag* abort, int peer, int channel, int lanes, std::string detail);

  Result<size_t> send(std::span<const iovec> ranges) override;
  uint64_t released() const override;
  Result<bool> flush() override;
  Result<std::span<const std::byte>> peek(size_t want) override;
  void consume(size_t bytes) override;
  Result<size_t> receive(void* dst, size_t bytes) override;
  std::string name() const override;

  int lanes() const { return static_cast<int>(lanes_.size()); }
  bool has_lane(int lane) const { return static_cast<bool>(at(lane).socket); }
  /// A connected, greeted socket. `detail` replaces the description of the far end.
  Status add_lane(int lane, UniqueFd socket, std::string detail);
  void set_detail(std::string detail) { detail_ = std::move(detail); }
  /// What epoll (edge-triggered) said about a lane.
  void on_events(int lane, uint32_t events);
  /// Ends the link; the reason is put behind the link's name.
  void fail(const std::string& why, Code code = Code::remote);

 private:
  struct Lane {
    UniqueFd socket;
    // Readiness as last heard: cleared when the kernel had less than was asked for.
    bool readable = true;
    bool writable = true;
    bool hung_up = false;  // no further event will come: read until the end
    bool ended = false;    // the end was read
    // The segment being sent; idle when out_left and the rest of its header are 0.
    TcpFrameBytes out_header{};
    size_t out_header_left = 0;
    std::array<iovec, 4> out_ranges{};
    size_t out_left = 0;
    uint64_t out_offset = 0;  // stream position of the first byte not yet sent
    // The segment being received; none while in_left is 0.
    TcpFrameBytes in_header{};
    size_t in_header_have = 0;
    uint64_t in_offset = 0;
    size_t in_left = 0;
  };

  Lane& at(int lane) { return lanes_[static_cast<size_t>(lane)]; }
  const Lane& at(int lane) const { return lanes_[static_cast<size_t>(lane)]; }
  bool striped() const { return lanes_.size() > 1; }

  Result<size_t> send_plain(std::span<const iovec> ranges);
  Result<size_t> send_striped(std::span<const iovec> ranges);
  Status push(Lane* lane);

  // Moves bytes of the stream's front to dst, 0 when there are none now. Bytes beyond `want` may
  // land in the stage when `ahead` (the stage must be empty).
  Result<size_t> fetch(std::byte* dst, size_t want, bool ahead);
  Result<size_t> fetch_plain(std::byte* dst, size_t want, bool ahead);
  Result<size_t> fetch_striped(std::byte* dst, size_t want);
  Status read_header(Lane* lane);
  Status accept_header(Lane* lane);
  Result<size_t> read_some(Lane* lane, iovec* ranges, size_t count);

  size_t staged() const { return stage_tail_ - stage_head_; }
  std::byte* stage_end() const { return stage_.data() + (stage_tail_ & (stage_.size() - 1)); }
  size_t stage_room() const { return stage_.size() - staged(); }
  size_t take_staged(std::byte* dst, size_t bytes);

  const AbortFlag* abort_;
  const int peer_;
  const int channel_;
  std::string detail_;
  std::vector<Lane> lanes_;
  int connected_ = 0;
  Status send_failure_;
  Status receive_failure_;

  uint64_t accepted_ = 0;  // bytes of the stream that send() took
  size_t next_lane_ = 0;

  uint64_t front_ = 0;  // bytes of the stream that were fetched (striped only)
  Mirrored stage_;      // fetched, not yet taken: for peek() and read-ahead
  uint64_t stage_head_ = 0;
  uint64_t stage_tail_ = 0;
  size_t last_view_ = kNoView;  // size of the view given since consume(), once the peer is gone
  static constexpr size_t kNoView = ~size_t{0};
};

}  // namespace railccl::transport
