// VerbsPath: a reliable-connected queue pair as a Path.
//
// Each end has a *ring*: registered memory into which the far end writes. Position p of the byte
// stream is at p modulo the ring's size, on both sides: the sender copies its bytes to that place
// in a registered buffer of its own and has its device write them from there into the far ring, by
// RDMA writes whose immediate says how many bytes were added (verbs_wire.h). Only the completion
// that brings the immediate makes the receiver look, and a device completes a message only when all
// of it is in place: packets may take different ways and data may land in any order. Small messages
// go inline: the device gets the bytes with the request.
//
// Credit is granted ahead: the whole ring at first, and receives for so many messages; from then on
// what was read, and receives that were posted again, in grants (immediates without data) for every
// quarter. So no write ever waits for a clear-to-send, nothing is sent that finds no room or no
// receive, and completion queues (verbs_port.h) never have more to hold than was set aside:
//
//   data messages under way            <= kMessages, by credit
//   grants that one side has not seen  <= kGrants: it has to be answered for a quarter each
//   requests outstanding               <= kSends, counted here
//
// Of the sender's requests only some are signalled: one in so many or so many bytes, and the last
// of each write where there are other paths to which what is not acknowledged could go. A
// completion stands for all requests before it. That a signalled write is complete means that it is
// in the far ring, and that the far end's completion queue knows: it is read there even when the
// path breaks.
//
// A connection over TCP stays with the path: it was made over it, and its end tells that the far
// end's process is gone, which a queue pair does not notice until it sends. A side that gives the
// path up says so on it first, so that this is not taken for a death.
//
// Copies: one on each side, into our buffer and out of the far ring. The first is saved for large
// pieces of registered memory (registered_memory.h) where the path is the link's only one: the
// device reads them where they are, and they stay until released(). Where there are several,
// another path may have brought what this one, silent for a while, still means to read, and the
// source, released, would change under it: the far end could take the wrong bytes. To save the
// second copy the receiver would have to tell where a message belongs before it is sent, which a
// byte stream does not know.
//
// One thread at a time, that of the transport.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <string>

#include "base/owners.h"
#include "transport/mirrored.h"
#include "transport/path.h"
#include "transport/verbs_port.h"
#include "transport/verbs_wire.h"

namespace railccl::transport {

/// How queue pairs are to behave, as the settings of those names say.
struct VerbsHabits {
  int traffic_class = 0;
  int service_level = 0;
  int timeout = 14;  // 4.096 us times two to this
  int retries = 7;
};

class VerbsPath final : public NicPath, private VerbsPort::User {
 public:
  /// `port` must outlive it. Fails when the device or the limits of this process refuse.
  static Result<std::unique_ptr<VerbsPath>> make(VerbsPort* port, const VerbsHabits& habits,
                                                 const Gid& far_gid);
  ~VerbsPath() override;

  const VerbsCard& card() const { return card_; }
  /// Connects the queue pair. The side that `knocks` sends a first message that fills a packet.
  Status connect(const VerbsCard& theirs, bool knocks);
  /// Did the knock come across? Fails when the path is broken.
  Result<bool> proven();
  /// The connection that it was made over; `name`: of the far end.
  void keep(UniqueFd connection, bool one_of_several);

  Result<size_t> write(std::span<const iovec> ranges) override;
  uint64_t acknowledged() override { return acknowledged_; }
  bool under_way() override { return acknowledged_ < written_; }
  int64_t round_trip_ns() override { return round_trip_ns_; }
  double bytes_per_s() override { return bytes_per_s_; }
  Result<size_t> read(std::span<const iovec> ranges) override;

  const std::string& nic() const override { return port_->interface(); }
  const std::string& name() const override { return name_; }
  uint64_t written() const override { return written_; }
  uint64_t released() const override {
    return in_place_end_ > acknowledged_ ? std::max(acknowledged_, in_place_begin_) : written_;
  }
  uint64_t received() const override { return read_; }
  Usage usage() const override;
  void on_events(uint32_t events) override;
  void close_writing() override;
  bool closed_by_peer() const override { return closed_by_peer_; }
  bool measure() override;
  bool settled() override;

  static constexpr uint32_t kRingBytes = 512 << 10;
  static constexpr uint32_t kMessages = 128, kGrants = 16, kSends = 128;

 private:
  VerbsPath(VerbsPort* port, const VerbsHabits& habits) : port_(port), habits_(habits) {}
  void complete(const ibv_wc& completion) override;
  void port_down(const std::string& why) override { fail(why); }
  void fail(const std::string& why);
  void on_message(const VerbsImmediate& immediate);
  bool post_receives(uint32_t count);
  struct Request {
    ibv_send_wr request{};
    std::array<ibv_sge, VerbsPort::kPiecesMax> pieces{};
  };
  /// A piece of the user's memory that the device reads in place: which bytes of the stream it is.
  struct InPlace {
    uint64_t from = 0, to = 0;
    const std::byte* data = nullptr;
    uint32_t key = 0;
  };
  using InPlaces = std::array<InPlace, VerbsPort::kPiecesMax>;
  size_t take_in(std::span<const iovec> ranges, size_t bytes, InPlaces* in_place);
  Request request_of(uint64_t from, uint32_t bytes, uint32_t immediate, bool signalled);
  void read_in_place(Request* request, uint64_t from, std::span<const InPlace> in_place);
  bool post(std::span<Request> requests);
  void grant();
  Status to_ready(const VerbsCard& theirs);
  Status end() const;

  struct Signal {  // a signalled request that has not completed
    uint32_t requests = 0;
    uint64_t end = 0;  // of the bytes written up to it
    int64_t posted_ns = 0;
    bool alone = false;  // nothing was under way when it was posted
  };

  VerbsPort* const port_;
  const VerbsHabits habits_;
  std::string name_;
  UniqueFd connection_;
  bool one_of_several_ = false;
  Status broken_;
  bool closed_ = false;  // the far end sends no more
  bool closed_by_peer_ = false;
  bool knocking_ = false, proven_ = false;

  VerbsCard card_;
  VerbsCard theirs_;
  Mirrored ring_, out_;  // what comes, what goes
  VerbsMemory ring_memory_, out_memory_;
  VerbsPort::Enrolled queue_pair_;

  // Sending.
  uint64_t written_ = 0;
  uint64_t limit_ = 0;  // of written_, as granted
  uint32_t messages_left_ = 0;
  uint64_t acknowledged_ = 0;
  uint32_t requests_ = 0;     // outstanding
  uint32_t unsignalled_ = 0;  // of them, since the last signalled
  uint64_t signalled_to_ = 0;
  // Of the bytes written: where those begin, and end, that the device may be reading in place.
  uint64_t in_place_begin_ = 0, in_place_end_ = 0;
  std::deque<Signal> signals_;

  // Receiving.
  uint64_t arrived_ = 0;
  uint64_t read_ = 0;
  uint64_t granted_ = 0;        // of read_
  uint32_t receives_used_ = 0;  // and not posted again
  uint32_t messages_used_ = 0;  // of them, by messages that count
  uint32_t messages_to_grant_ = 0;

  // Measuring, while bytes are under way.
  int64_t round_trip_ns_ = 0;
  int64_t busy_since_ns_ = 0, busy_ns_ = 0;
  int64_t measured_ns_ = 0;  // busy before measured_to_
  uint64_t measured_to_ = 0;
  double bytes_per_s_ = 0;
};

}  // namespace railccl::transport
