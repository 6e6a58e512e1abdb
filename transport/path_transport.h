// PathTransport: the transport of all links over paths that are made over TCP connections
// (path_maker.h says how a connection becomes a path).
//
// Each rank listens on one port. For each link the lower rank connects, one connection per lane (so
// many for each pair of interfaces), and says who it is (tcp_wire.h); the higher rank accepts,
// checks and answers; when the path is known to carry bytes, it is the link's. Where a link has
// several lanes, those that are lost or silent are connected anew for as long as the link lives: a
// rail that returns is used again. Connections that say anything else, or nothing for some seconds,
// are closed; only a bounded number is kept open undecided. epoll is used edge-triggered: links
// remember readiness, so a quiet link costs no system call, and progress() is one for all.
//
// One thread at a time drives a transport with all its links; wake() and abort() are for others.
// New bytes show only after progress() or wait() has fetched the readiness events.
//
// path_transport.cc has links and waiting, path_meeting.cc how connections are made.
#pragma once

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/log.h"
#include "transport/abort_flag.h"
#include "transport/path_log.h"
#include "transport/path_maker.h"
#include "transport/tcp_link.h"
#include "transport/tcp_nics.h"

namespace railccl::transport {

class PathTransport final : public Transport {
 public:
  PathTransport(const Context& context, std::vector<TcpEndpoint> control,
                std::unique_ptr<PathMaker> maker, TcpListener listener, UniqueFd epoll,
                UniqueFd wake)
      : context_(context),
        maker_(std::move(maker)),
        sockets_(maker_->paths_per_pair()),
        control_(std::move(control)),
        endpoints_(maker_->endpoints()),
        listener_(std::move(listener)),
        epoll_(std::move(epoll)),
        wake_(std::move(wake)) {}

  const char* name() const override { return maker_->medium(); }
  Capabilities capabilities() const override {
    const bool several =
        sockets_ > 1 || endpoints_.front().interface != endpoints_.back().interface;
    return {.load_store = false,
            .zero_copy = several || maker_->reads_in_place(),
            .in_place_view = false};
  }
  Address address() const override { return maker_->address({listener_.port, control_}); }
  Status set_peers(const Peers& peers) override;
  bool reaches(int peer) const override {
    return peer >= 0 && static_cast<size_t>(peer) < peers_.size() && peer != context_.rank &&
           peers_[static_cast<size_t>(peer)].has_value();
  }
  Result<Link*> link(int peer, int channel) override;
  Status progress() override {
    if (abort_.raised()) return abort_.why();
    poll(0);
    return ok();
  }
  void wait(int64_t timeout_us) override;
  bool settled() override;
  PathReport report() const override { return path_log_.report(); }
  std::vector<NicSpeed> speeds() const override;
  void look_anew() override {
    for (auto& [key, line] : lines_) line.link->look_anew();
  }
  void wake() override {
    const uint64_t one = 1;
    // Can only fail when the counter is full, and then the sleeper wakes anyway.
    (void)!write(wake_.get(), &one, sizeof(one));
  }
  Result<std::byte*> shared_memory(size_t) override { return no_memory(); }
  Result<std::byte*> peer_memory(int, size_t) override { return no_memory(); }
  void abort(const Status& why) override {
    abort_.raise(why);
    wake();
  }

  Status start();

 private:
  static constexpr int kChannelsMax = 256;
  static constexpr int kComplaintsMax = 8;
  /// A lost lane is tried again after a pause that doubles each time.
  static constexpr int64_t kRedialNs = 100'000'000, kRedialNsMax = 2'000'000'000;
  /// How often deadlines of unfinished connections are looked at.
  static constexpr int64_t kSweepMs = 100;

  /// One file descriptor that epoll watches.
  struct Watched {
    enum class Kind : uint8_t { free, listener, wake, maker, dial, stranger, lane };
    Kind kind = Kind::free;
    uint32_t generation = 0;           // tells events for an earlier use of this entry apart
    UniqueFd socket;                   // dial and stranger; a lane's belongs to its link
    TcpLink* link = nullptr;           // dial and lane
    TcpHello hello;                    // dial and lane
    int path = 0;                      // lane: its number in the link
    bool anew = false;                 // dial: the link has been connected before
    int64_t deadline_ns = 0;           // dial and stranger
    bool said_hello = false;           // dial
    std::unique_ptr<PathStart> start;  // dial and stranger
    bool met = false;                  // start has the far end's card
    bool agreed = false;               // both ends know that it is proven
    bool left = false;                 // met, and then the far end has hung up
    uint32_t events = 0;               // as they came; a lane looks at those before it was one
    int descriptor = -1;               // maker
    std::vector<std::byte> heard;      // of a greeting; some bytes of it are still to come
    size_t heard_bytes = 0;
  };

  static Status no_memory() {
    return Status(Code::unsupported, "there is no shared memory over a network");
  }
  /// A link, and what it takes to connect its lanes.
  struct Line {
    std::unique_ptr<TcpLink> link;
    std::vector<TcpPath> paths;  // where this rank connects
    struct Redial {
      bool dialling = false;
      bool hopeless = false;  // connections are made by it, but paths are not
      int64_t next_ns = 0;
      int64_t pause_ns = kRedialNs;
    };
    std::vector<Redial> redials;  // by lane
    bool plain = false;           // its paths are the connections themselves, for want of others
  };

  Line& find_line(int peer, int channel);
  Line& line_of(const TcpLink& link) { return lines_.at({link.peer(), link.channel()}); }
  TcpLink* find_link(int peer, int channel) { return find_line(peer, channel).link.get(); }
  void dial(Line& line);
  Status dial_lane(Line& line, int lane, bool anew);
  void dial_failed(size_t index, const std::string& why, Code code = Code::remote);
  bool fall_back(Line& line, const std::string& why);
  void keep_up(int64_t now_ns);
  void forget(const TcpLink* link, int path);
  int64_t rest_us(int64_t timeout_us) const;
  std::optional<TcpPath> control_path(const TcpPath& path, const MetPlaces& peer,
                                      bool same_host) const;
  Status watch(int fd, size_t index);
  size_t new_entry(Watched::Kind kind);
  void drop(size_t index);

  void poll(int64_t timeout_us);
  void handle(const epoll_event& event);
  void accept_all();
  void advance_dial(size_t index);
  void advance_stranger(size_t index);
  void look_for_proof();
  static bool agree(Watched* entry);
  void go_on();
  bool hear(Watched* entry, size_t bytes);
  void note_leaving(Watched* entry);
  void refuse(size_t index, const TcpHello& hello, TcpLink* link, const Status& why);
  void welcome(size_t index, const TcpHello& hello);
  void adopt(size_t index, TcpLink* link, const TcpHello& hello);
  void sweep();
  void complain(const std::string& text) {
    if (complaints_++ < kComplaintsMax) log::warn("{}: rank {}: {}", name(), context_.rank, text);
  }

  const Context context_;
  const std::unique_ptr<PathMaker> maker_;
  const int sockets_;                   // of each pair of interfaces
  std::vector<TcpEndpoint> control_;    // where connections can begin
  std::vector<TcpEndpoint> endpoints_;  // where paths can
  TcpListener listener_;
  UniqueFd epoll_;
  UniqueFd wake_;
  AbortFlag abort_;
  std::vector<std::optional<MetPlaces>> peers_;
  std::vector<uint64_t> host_ids_;
  std::map<std::pair<int, int>, Line> lines_;
  PathLog path_log_;
  TcpNics nics_{maker_->medium(), &path_log_};
  int64_t next_report_ns_ = 0;
  int64_t next_upkeep_ns_ = 0;
  bool several_paths_ = false;   // of some link
  std::deque<Watched> watched_;  // a deque: entries stay in place when one is added
  std::vector<size_t> free_;
  std::deque<size_t> strangers_;  // indices into watched_, oldest first
  int unfinished_ = 0;            // dials and strangers
  int64_t next_sweep_ns_ = 0;
  bool accept_later_ = false;
  bool news_ = false;  // events came since the last wait
  int complaints_ = 0;
  std::set<int> plain_peers_;  // some link to which has fallen back
  unsigned polls_ = 0;
};

}  // namespace railccl::transport
