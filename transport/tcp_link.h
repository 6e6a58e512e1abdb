// TcpLink: one link's byte stream over one or several sockets, or over other paths that are made
// over sockets (path_maker.h); what is said of sockets here holds for them all.
//
// One socket: the stream itself is what travels, without frames, and whoever loses the socket loses
// the link. Several: multipath_send.h and multipath_receive.h cut and join it; then send() does not
// copy everything, so the source must stay until released() has passed it, and the link lives as
// long as one path does.
//
// A *lane* is a place for a socket: which pair of interfaces, and which of the sockets between
// them. When a lane's socket is lost or silent, a new one may take its place; the old one's bytes
// are read to their end, in their place in the stream.
//
// Driven by one thread at a time, with the transport that owns it and delivers readiness events.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "transport/abort_flag.h"
#include "transport/link.h"
#include "transport/mirrored.h"
#include "transport/multipath_receive.h"
#include "transport/multipath_send.h"
#include "transport/path.h"

namespace railccl::transport {

class TcpLink final : public Link {
 public:
  /// `detail` describes the far end until a socket is connected.
  TcpLink(const AbortFlag* abort, const char* medium, int peer, int channel, std::string detail);

  Result<size_t> send(std::span<const iovec> ranges) override;
  uint64_t released() const override;
  Result<bool> flush() override;
  Result<std::span<const std::byte>> peek(size_t want) override;
  void consume(size_t bytes) override;
  Result<size_t> receive(void* dst, size_t bytes) override;
  std::string name() const override;

  int peer() const { return peer_; }
  int channel() const { return channel_; }
  /// How many lanes there are; 0: not said yet.
  int lanes() const { return lanes_; }
  /// Said once, before the first socket.
  void set_lanes(int lanes) {
    lanes_ = lanes;
    by_lane_.resize(static_cast<size_t>(lanes));
  }
  /// The dialling side knows beforehand which NIC a lane is for: one that does not come about is
  /// missing, too.
  void expect(int lane, const std::string& nic) {
    by_lane_[static_cast<size_t>(lane)].nic = nic;
    by_lane_[static_cast<size_t>(lane)].expected = true;
  }
  bool striped() const { return lanes_ > 1; }
  /// Does a socket of this lane work?
  bool lane_works(int lane) const;
  /// Does the peer seem not to get through by this lane? It sends by spare paths while nothing
  /// comes by this home path. That shows nowhere else when we have nothing to send. Until something
  /// comes by it, or a new socket takes its place.
  bool doubted(int lane) const {
    return static_cast<size_t>(lane) < by_lane_.size() &&
           by_lane_[static_cast<size_t>(lane)].doubted;
  }
  /// Has any socket ever been there?
  bool ever_connected() const { return first_ns_ != 0; }
  /// Has one of this lane?
  bool lane_taken(int lane) const;

  /// A connected, greeted socket, as the lane's; returns the number of its path. Its name replaces
  /// the description of the far end.
  Result<int> add_socket(int lane, bool home, std::unique_ptr<NicPath> socket);
  void set_detail(std::string detail) { detail_ = std::move(detail); }
  /// What epoll (edge-triggered) said about a path. Ignored when the path is gone.
  void on_events(int path, uint32_t events);
  bool has_path(int path) const {
    return static_cast<size_t>(path) < paths_.size() && paths_[static_cast<size_t>(path)].socket;
  }
  /// Ends the link; the reason is put behind the link's name.
  void fail(const std::string& why, Code code = Code::remote);
  bool failed() const { return !send_failure_.is_ok() || !receive_failure_.is_ok(); }

  // Upkeep of several sockets, by the transport.
  struct News {
    PathNews news;
    std::string nic;   // ours
    std::string name;  // of the path: "10.0.0.4:5123, eth1"
  };
  std::optional<News> take_news();
  /// To be called every few milliseconds.
  void watch(int64_t now_ns);
  /// Is anything sent that would be lost with this process?
  bool pending();
  /// Goes on sending after a path may have got room, or bytes across.
  void go_on();
  /// How long its callers may sleep without missing that something came across; -1: any time.
  int64_t rest_ns() const;
  /// Adds, per NIC of ours, what became of its paths since the last time.
  struct NicLoad {
    std::string nic;
    bool missing = false;  // some path by it does not work
    NicPath::Usage usage;  // all paths' together, if asked for
  };
  void add_loads(std::vector<NicLoad>* loads, bool with_usage, int64_t now_ns);
  /// Does this NIC of ours reach the peer, by all of its lanes? Yes when something sent since
  /// look_anew() shows it, or a new connection; no when a lane has not worked for kLostNs.
  enum class Reach : uint8_t { unknown, works, missing };
  Reach reach(const std::string& nic, int64_t now_ns) const;
  void look_anew();

  /// Adds what its lanes do.
  void add_states(std::vector<PathState>* states) const;

  /// How long a link without any working path waits for one to come back.
  static constexpr int64_t kReunionNs = 10'000'000'000;
  /// How long a link waits for its home path before it begins with others.
  static constexpr int64_t kHomeFirstNs = 100'000'000;
  /// A lane that does not work for a moment is not lost.
  static constexpr int64_t kLostNs = 100'000'000;
  /// A lane that has not come about so long after the link's first one is missing.
  static constexpr int64_t kNeverCameNs = 500'000'000;

 private:
  struct Place {  // of a path
    std::unique_ptr<NicPath> socket;
    int lane = 0;
    bool home = false;
    bool replaced = false;  // only read from
    NicPath::Usage seen;    // by add_loads()
    uint64_t received = 0;  // by compare_arrivals()
  };

  bool connected() const { return working_ > 0; }
  bool may_begin(int64_t now_ns);
  void drop_path(int path);
  void lose_path(int path, const Status& why);
  void gather_losses();
  void compare_arrivals();

  // Moves bytes of the stream's front to dst, 0 when there are none now. Bytes beyond `want` may
  // land in the stage when `ahead` (the stage must be empty).
  Result<size_t> fetch(std::byte* dst, size_t want, bool ahead);
  Result<size_t> fetch_plain(std::byte* dst, size_t want, bool ahead);

  size_t staged() const { return stage_tail_ - stage_head_; }
  std::byte* stage_end() const { return stage_.data() + (stage_tail_ & (stage_.size() - 1)); }
  size_t stage_room() const { return stage_.size() - staged(); }
  size_t take_staged(std::byte* dst, size_t bytes);

  const AbortFlag* abort_;
  const char* const medium_;
  const int peer_;
  const int channel_;
  std::string detail_;
  int lanes_ = 0;
  int working_ = 0;  // sockets in paths_ that are not replaced
  std::vector<Place> paths_;
  struct Lane {
    std::string nic;  // ours; empty: not known yet
    bool home = false;
    bool expected = false;  // by us, who dial
    bool taken = false;     // had a socket
    bool fresh = false;     // was connected since look_anew()
    bool doubted = false;
    int64_t missing_since_ns = 0;  // 0: it works
  };
  std::vector<Lane> by_lane_;
  Status send_failure_;
  Status receive_failure_;

  uint64_t accepted_ = 0;  // bytes of the stream that send() took, without frames
  MultipathSender sender_;
  MultipathReceiver receiver_;
  std::deque<News> news_;
  int64_t first_ns_ = 0;     // the first socket came
  int64_t compared_ns_ = 0;  // compare_arrivals()
  int64_t alone_ns_ = 0;     // since when no path works; 0: one does

  Mirrored stage_;  // fetched, not yet taken: for peek() and read-ahead
  uint64_t stage_head_ = 0;
  uint64_t stage_tail_ = 0;
  size_t last_view_ = kNoView;  // size of the view given since consume(), once the peer is gone
  static constexpr size_t kNoView = ~size_t{0};
};

}  // namespace railccl::transport
