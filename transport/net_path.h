// NetPath: a pair of connections of a network of messages, one each way, as a Path.
//
// Each end listens, and connects to the other's handle. Both ends keep receives posted, in order,
// and copy bytes out of them; what is sent is copied into registered memory first. A message has a
// header (net_wire.h) that also says what has come the other way: a network calls a message
// sent when its source may be reused, which tells nothing of the far end, and multipath must not
// lose what a broken path swallowed.
//
//   data messages not read by the far end  <= kData, by credit; their bytes wait there in receives
//   receives posted                        <= kReceives: control messages always find one
//
// Bytes that find no credit, or no request, gather in one message that goes out when they may.
// Control messages (headers alone) carry credit for every half, and, where the far end asks or
// keeps what is not acknowledged for other paths, what has arrived.
//
// Nothing moves by itself: poll() has to be called, by the rank or, while that does not, by its
// keeper's thread. Silence is not noticed, errors are; and that the far end's process
// is gone, by the TCP connection over which the path was made.
//
// Used by the transport's thread; what its keeper's thread uses, too, is behind the keeper's lock,
// which public functions take and private ones, poll() and unfinished() want held.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>

#include "base/owners.h"
#include "transport/message_net.h"
#include "transport/net_keeper.h"
#include "transport/net_wire.h"
#include "transport/path.h"

namespace railccl::transport {

class NetPath final : public NicPath {
 public:
  /// Listens at the device. `keeper` must outlive it.
  static Result<std::unique_ptr<NetPath>> make(std::shared_ptr<MessageNet> net,
                                               const NetDevice* device, NetKeeper* keeper);
  ~NetPath() override;

  /// For the far end; `far_device`: its device that is meant.
  NetCard card(uint16_t far_device) const;
  Status meet(const NetCard& theirs);
  /// Goes on connecting; true when a message has come that only the far end can have sent. Fails
  /// when it never will.
  Result<bool> proven();
  /// The TCP connection that it was made over. From now on its keeper polls it.
  void keep(UniqueFd connection, bool one_of_several);
  /// Moves what can be moved; true when there may be something to do for the link.
  bool poll();
  /// Would a poll help the far end, or us, on? Only what comes unasked for does not count.
  bool unfinished() const;

  Result<size_t> write(std::span<const iovec> ranges) override;
  uint64_t acknowledged() override;
  bool under_way() override { return false; }
  int64_t round_trip_ns() override { return 0; }
  double bytes_per_s() override { return bytes_per_s_; }
  Result<size_t> read(std::span<const iovec> ranges) override;

  const std::string& nic() const override { return device_->nic; }
  const std::string& name() const override { return name_; }
  uint64_t written() const override { return written_; }
  uint64_t received() const override { return read_; }
  Usage usage() const override;
  void on_events(uint32_t events) override;
  void close_writing() override;
  bool closed_by_peer() const override { return closed_by_peer_; }
  bool measure() override;
  bool flushed() const override;
  bool settled() override;

  static constexpr uint32_t kMessageBytes = (64 << 10) + 256;  // a segment with all its headers
  static constexpr size_t kData = 6, kControls = 2, kReceives = 8;
  static_assert(kData + kControls <= kReceives && kReceives <= MessageNet::kRequestsMax);

 private:
  NetPath(std::shared_ptr<MessageNet> net, const NetDevice* device, NetKeeper* keeper)
      : net_(std::move(net)), device_(device), keeper_(keeper) {}

  struct Sent {
    size_t place = 0;  // of out_
    void* request = nullptr;
    uint64_t bytes = 0;  // of data
  };
  struct Arrived {  // data that wait to be read
    size_t place = 0;
    size_t at = 0, end = 0;  // in the message
  };

  Status connect_sender();
  Status accept_receiver();
  Status post_receives();
  Status look_at_sends();
  Status look_at_receives();
  Status on_message(size_t place, int bytes);
  Result<bool> post(size_t place, NetHeader header);
  Status post_open();
  bool owes() const;  // a control message
  Status post_control();
  Status hear();
  Status advance();
  size_t free_place(size_t from, size_t to) const;
  uint32_t room() const;  // in a message, behind its header
  Status wrong(const std::string& what) const;
  void fail(const Status& why);
  void look_at_connection();
  Status verdict();
  void give_up();
  std::byte* out(size_t place) { return out_.bytes() + place * kMessageBytes; }
  std::byte* in(size_t place) { return in_.bytes() + place * kMessageBytes; }
  bool let_go();

  const std::shared_ptr<MessageNet> net_;
  const NetDevice* const device_;  // the network's
  NetKeeper* const keeper_;
  std::string name_;
  UniqueFd connection_;
  bool one_of_several_ = false;
  Status broken_;
  int64_t broken_ns_ = 0;
  bool gave_up_ = false;
  int64_t closed_ns_ = 0;  // when the far end was seen to send no more
  bool closed_by_peer_ = false;
  bool over_ = false;  // poll() has told that verdict() knows
  bool deaf_ = false;  // nothing more is to be received

  uint32_t message_bytes_ = 0;  // of ours, the header included
  uint64_t secret_ = 0;
  NetHandle handle_;        // of our listener
  NetHandle their_handle_;  // with the network's notes
  NetCard theirs_;
  bool met_ = false, proven_ = false, knocked_ = false;
  void* listener_ = nullptr;
  void* sender_ = nullptr;
  void* receiver_ = nullptr;
  Mapping out_, in_;
  void* out_memory_ = nullptr;
  void* in_memory_ = nullptr;
  bool out_enrolled_ = false, in_enrolled_ = false;

  // Sending. Places below kData of out_ are for data, the rest for control messages.
  uint64_t written_ = 0;
  uint64_t posted_ = 0;        // data messages
  uint64_t credit_ = kData;    // of posted_
  uint64_t acknowledged_ = 0;  // bytes
  uint64_t sent_bytes_ = 0;    // whose requests are done
  std::deque<Sent> sent_;
  std::array<bool, kData + kControls> taken_{};
  size_t open_ = kNone;  // place of the message that gathers
  size_t open_bytes_ = 0;
  bool ask_ = false;     // what has arrived there, with the next message
  bool asking_ = false;  // no answer has come yet
  static constexpr size_t kNone = ~size_t{0};

  // Receiving.
  std::deque<std::pair<size_t, void*>> receives_;  // places with their requests, in order
  std::deque<size_t> idle_;                        // places to post
  std::deque<Arrived> arrived_queue_;
  uint64_t arrived_ = 0;  // bytes
  uint64_t read_ = 0;
  uint64_t freed_ = 0;  // messages
  uint64_t told_arrived_ = 0, told_freed_ = 0;
  bool asked_ = false;

  // Measuring, while anything is with the network.
  int64_t busy_since_ns_ = 0, busy_ns_ = 0;
  int64_t measured_ns_ = 0;
  uint64_t measured_to_ = 0;
  double bytes_per_s_ = 0;
};

}  // namespace railccl::transport
