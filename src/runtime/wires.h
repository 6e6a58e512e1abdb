// Wires: all transports of one communicator behind one face, with messages instead of bytes.
//
// A Wire is one (peer, channel): the Link, the queue of posted messages, and the message that is
// arriving. Where the link has a lane, messages that fit take it and are gone at once. Which way a
// message goes depends on its size alone, so a receiver knows where to look. Wires outlive the
// executions that use them, because a link's byte count does. Wires are made at first use, which
// allocates; moving messages then neither allocates nor locks.
// One thread at a time drives a communicator's wires; only wake() and abort() are for any thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/settings.h"
#include "base/status.h"
#include "kernels/kernels.h"
#include "plan/plan.h"
#include "runtime/frame.h"
#include "transport/lane.h"
#include "transport/link.h"
#include "transport/registered_memory.h"

namespace railccl::runtime {

/// Sends and receives outside of plans use this channel. Plans stay below it.
inline constexpr int kPointToPointChannel = 255;
inline constexpr int kPlanChannelsMax = 255;

/// A source that wants scaling on its way out is scaled piece by piece through a bounce buffer.
struct OutgoingScale {
  kernels::Scale scale;
  Datatype datatype = Datatype::float32;
};

static_assert(kHeaderBytes == transport::kLaneHeaderBytes);

class Wire {
 public:
  /// `news`: where lanes are listed whose peers are to be woken; Wires::ring() does.
  Wire(transport::Link* link, int peer, int channel, size_t medium,
       const transport::Capabilities& capabilities, std::vector<transport::Lane*>* news)
      : link_(link),
        lane_(link->lane()),
        news_(news),
        peer_(peer),
        channel_(channel),
        medium_(medium),
        zero_copy_(capabilities.zero_copy),
        in_place_view_(capabilities.in_place_view) {}

  int peer() const { return peer_; }
  int channel() const { return channel_; }
  /// Index of its medium among those of the Wires.
  size_t medium() const { return medium_; }
  std::string name() const { return link_->name(); }
  /// Is looking at what arrived as cheap as taking it?
  bool in_place_view() const { return in_place_view_; }

  // Sending. Posted messages keep their order; at most plan::kSendWindow are in flight.
  bool window_full() const { return in_flight_ == plan::kSendWindow; }
  /// True when nothing posted is still in need of its source or of push().
  bool idle() const { return in_flight_ == 0 && flushed_; }
  /// Not when the window is full. The source must stay untouched until the message has left.
  void post(const Header& header, const std::byte* data, const OutgoingScale* scale);
  /// Moves what the link takes; true when anything moved.
  Result<bool> push();
  /// Does any message in flight still read [begin, begin + bytes)?
  bool reads(const std::byte* begin, size_t bytes) const;

  // For strips (strip.h), while nothing is queued: the lane by itself.
  /// Does a message of that size take the lane?
  bool by_lane(uint64_t bytes) const {
    return lane_ != nullptr && bytes <= transport::kLaneBytesMax;
  }
  /// Where the payload of the next message goes; null: no room now. Then publish().
  std::byte* lane_place(size_t bytes) { return lane_->has_room() ? lane_->place(bytes) : nullptr; }
  void publish(const std::byte* header) {
    if (!lane_->unrung()) news_->push_back(lane_);
    lane_->publish(header);
  }
  bool lane_arrived() const { return lane_->arrived(); }
  /// Opens the message that has arrived; false when its header is another one.
  bool open_lane(const HeaderBytes& header, size_t bytes) {
    if (std::memcmp(lane_->header(), header.data(), kHeaderBytes) != 0) return false;
    lane_payload_ = {lane_->payload(bytes), bytes};
    lane_open_ = true;
    return true;
  }
  const std::byte* lane_payload() const { return lane_payload_.data(); }
  /// ok, or why the peer will send nothing more.
  Status state() const { return link_->state(); }

  // Receiving.
  /// Takes in the header of the next message where one of `bytes` would come in. False: not all
  /// there yet. A header that cannot be one is an error. Stays true until finish_message().
  Result<bool> header_arrived(uint64_t bytes);
  const Header& header() const { return header_; }
  /// The header of the next message on the other way than one of `bytes` takes, if one is there.
  Result<std::optional<Header>> other_header(uint64_t bytes);
  /// Up to `bytes` of payload straight to dst.
  Result<size_t> receive(std::byte* dst, size_t bytes);
  /// Whole elements of payload where they lie: at most `bytes`, a multiple of `element` (at most
  /// 8). An element that straddles the end of the link's view is collected in a buffer of the wire.
  Result<std::span<const std::byte>> peek_elements(size_t bytes, size_t element);
  /// Gives back what peek_elements() showed.
  void consume_elements(size_t bytes);
  void finish_message();
  /// Has the peer sent bytes nobody asked for?
  Result<bool> has_unread();
  /// Does header() say what they are?
  bool header_known() const { return lane_open_ || header_fill_ == kHeaderBytes; }

  /// Transfers of send/recv calls so far: their sequence numbers.
  uint32_t transfers_sent = 0;
  uint32_t transfers_received = 0;

 private:
  struct Outgoing {
    HeaderBytes header;
    const std::byte* data = nullptr;
    uint64_t bytes = 0;
    uint64_t end = 0;  // position in the link's stream just behind this message
    bool by_lane = false;
    bool scaled = false;
    OutgoingScale scale;
  };
  static constexpr size_t kBounceBytes = 32 << 10;

  void write_lane(const std::byte* header, const std::byte* data, uint64_t bytes,
                  const OutgoingScale* scale);
  Result<bool> link_header_arrived();

  Outgoing& slot(unsigned index) { return queue_[index % plan::kSendWindow]; }
  const Outgoing& slot(unsigned index) const { return queue_[index % plan::kSendWindow]; }
  Result<bool> push_head(Outgoing& message);
  void retire();

  transport::Link* link_;
  transport::Lane* lane_;  // null: there is none
  std::vector<transport::Lane*>* news_;
  int peer_;
  int channel_;
  size_t medium_;
  bool zero_copy_;
  bool in_place_view_;

  std::array<Outgoing, plan::kSendWindow> queue_;
  unsigned first_ = 0;     // oldest message in flight
  int in_flight_ = 0;      // first_ .. first_ + in_flight_
  int unpushed_ = 0;       // of these, the last unpushed_ are not fully accepted by the link
  uint64_t pushed_ = 0;    // bytes of the oldest unpushed message (header included) accepted
  uint64_t accepted_ = 0;  // bytes the link ever accepted
  int lane_queued_ = 0;    // of those in flight, how many wait for room in the lane
  bool flushed_ = true;
  std::vector<std::byte> bounce_;  // scaled payload [bounce_from_, bounce_to_) of that message
  uint64_t bounce_from_ = 0;
  uint64_t bounce_to_ = 0;
  uint64_t bounce_end_ = 0;  // stream position behind the last bounced byte

  Header header_;                            // of the message that is open
  std::span<const std::byte> lane_payload_;  // what is left of the open message
  bool lane_open_ = false;                   // the open message came by the lane
  Header link_header_;
  std::array<std::byte, kHeaderBytes> header_bytes_;
  size_t header_fill_ = 0;  // of link_header_
  std::array<std::byte, 8> carry_;
  size_t carry_fill_ = 0;
};

/// What an execution needs from its surroundings. Also implemented over simulated links in tests.
class Wires {
 public:
  /// `media` in order of preference; a peer uses the first that reaches it.
  Wires(int rank, int ranks, std::vector<std::unique_ptr<transport::Transport>> media);

  /// Tells the media about each other's addresses: addresses[m][r] for medium m and rank r; the
  /// rest as in transport::Peers.
  Status set_peers(const std::vector<std::vector<transport::Address>>& addresses,
                   const std::vector<uint64_t>& host_ids, const std::vector<uint64_t>& processes,
                   const std::vector<std::string>& nics = {},
                   const std::function<int(int, const std::string&)>& rail_of = nullptr);

  int rank() const { return rank_; }
  int ranks() const { return ranks_; }

  /// The wire to `peer` on `channel`; made at first use.
  Result<Wire*> wire(int peer, int channel);

  /// This rank's scratch, at least `bytes`, visible to load/store peers where there are any. The
  /// address may change until the first call that returned memory visible to peers. Only between
  /// operations.
  Result<std::byte*> scratch(size_t bytes);
  /// Bytes of scratch that are held now, and whether peers look into them.
  size_t scratch_bytes() const { return scratch_bytes_; }
  bool scratch_is_shared() const { return sharing_ != nullptr; }
  /// Gives the scratch back, unless peers look into it. Only between operations.
  void release_scratch();
  /// `peer`'s scratch as mapped here, or null while the peer has not grown it that far.
  Result<std::byte*> peer_scratch(int peer, size_t bytes);
  /// Can `peer`'s scratch be loaded and stored?
  bool load_store(int peer) const;
  /// Is `peer` a thread of this process?
  bool same_process(int peer) const { return same_process_[static_cast<size_t>(peer)]; }
  /// Gives a memory file to the load/store peers of other processes, as Transport::offer.
  transport::Offer offer(const std::shared_ptr<transport::MemoryFile>& file) {
    return sharing_ == nullptr ? transport::Offer::impossible : sharing_->offer(file);
  }
  /// `peer`'s file as mapped here, or null, as Transport::offered.
  Result<std::shared_ptr<const Mapping>> offered(int peer, uint64_t id) {
    if (!load_store(peer)) return std::shared_ptr<const Mapping>();
    return sharing_->offered(peer, id);
  }

  /// Wakes peers that sleep and have been sent something by a lane. Call before waiting for
  /// anything, and when an operation is over.
  void ring() {
    if (!news_.empty()) ring_all();
  }

  /// Moves what no link's caller moves: on media that have links, or on all (a peer may want to
  /// connect over one that has none yet).
  Status progress(bool all);
  /// Lets media go on until all that was sent has come across, at most so long.
  void settle(int64_t timeout_ns);
  /// What the media tell of their paths. Any thread.
  transport::PathReport report() const;
  /// What the media measured of this rank's NICs, as Transport::speeds.
  std::vector<transport::NicSpeed> speeds() const;
  /// As Transport::look_anew.
  void look_anew();
  /// Sleeps until something may have changed, at most `timeout_us`. `awaited`: whose news is waited
  /// for, a bit for each medium; 0: nobody knows.
  void wait(int64_t timeout_us, uint32_t awaited = 0);
  void wake();
  void abort(const Status& why);

  /// "shm", "tcp", "shm+tcp", "self": the media whose bits are set, without self where there are
  /// others. Any thread.
  std::string media_text(unsigned mask) const;
  /// Is it a network?
  bool crosses_hosts(size_t medium) const;
  /// A peer that sent bytes nobody asked for (the other side of a mismatch), or null.
  Result<Wire*> unread();

 private:
  transport::Transport* medium_of(int peer) const { return route_[static_cast<size_t>(peer)]; }
  int rank_;
  int ranks_;
  std::vector<std::unique_ptr<transport::Transport>> media_;
  std::vector<transport::Transport*> route_;  // per peer; null: unreachable
  std::vector<bool> used_;                    // per medium: has links
  std::vector<bool> same_process_;            // per peer
  void ring_all();

  std::map<std::pair<int, int>, std::unique_ptr<Wire>> wires_;
  std::vector<transport::Lane*> news_;       // room for all lanes
  transport::Transport* sharing_ = nullptr;  // the medium whose shared memory is the scratch
  std::vector<std::byte> private_scratch_;
  std::byte* scratch_ = nullptr;
  size_t scratch_bytes_ = 0;
  std::shared_ptr<const transport::RegisteredMemory> scratch_registered_;
  unsigned next_wait_ = 0;
};

}  // namespace railccl::runtime
