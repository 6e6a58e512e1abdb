// tcp: links between ranks over sockets.
//
// Each rank listens on one port. For each link the lower rank connects, one connection per lane (so
// many sockets for each pair of interfaces), and says who it is (tcp_wire.h); the higher rank
// accepts, checks and answers. Where a link has several lanes, those that are lost or silent are
// connected anew for as long as the link lives: a rail that returns is used again. Connections that
// say anything else, or nothing for some seconds, are closed; only a bounded number is kept open
// undecided. epoll is used edge-triggered: links remember readiness, so a quiet link costs no
// system call, and progress() is one for all.
//
// One thread at a time drives a transport with all its links; wake() and abort() are for others.
// New bytes show only after progress() or wait() has fetched the readiness events.
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <system_error>

#include "base/clock.h"
#include "base/log.h"
#include "transport/registry.h"
#include "transport/tcp_link.h"
#include "transport/tcp_nics.h"
#include "transport/tcp_socket.h"

namespace railccl::transport {
namespace {

constexpr int kChannelsMax = 256;
constexpr int64_t kStrangerMs = 5000;  // for a hello, from the moment a connection is accepted
constexpr int kStrangersMax = 256;
constexpr int kComplaintsMax = 8;
constexpr int64_t kSweepMs = 100;  // how often deadlines of unfinished connections are looked at
constexpr int64_t kUpkeepNs = 2'000'000;    // how often links over several paths are looked after
constexpr int64_t kReportNs = 100'000'000;  // how often others are told how paths are
// A lost lane is tried again after a pause that doubles each time.
constexpr int64_t kRedialNs = 100'000'000, kRedialNsMax = 2'000'000'000;
constexpr int64_t kRedialConnectMs = 300;  // for the connection, not for the answer to our hello

/// epoll_wait in microseconds. A look without a wait is cheaper by epoll_wait itself, which has no
/// time and no signals to fetch from user space.
int sleep_in_epoll(int epoll, epoll_event* events, int most, int64_t timeout_us) {
  const timespec timeout{static_cast<time_t>(timeout_us / 1'000'000),
                         static_cast<long>(timeout_us % 1'000'000) * 1000};
  const int count = epoll_pwait2(epoll, events, most, &timeout, nullptr);
  if (count >= 0 || errno != ENOSYS) return count;
  // Linux before 5.11: milliseconds.
  return epoll_wait(epoll, events, most, static_cast<int>((timeout_us + 999) / 1000));
}

// One file descriptor that epoll watches.
struct Watched {
  enum class Kind : uint8_t { free, listener, wake, dial, stranger, lane };
  Kind kind = Kind::free;
  uint32_t generation = 0;  // tells events for an earlier use of this entry apart
  UniqueFd socket;          // dial and stranger; a lane's belongs to its link
  TcpLink* link = nullptr;  // dial and lane
  TcpHello hello;           // dial and lane
  int path = 0;             // lane: its number in the link
  bool anew = false;        // dial: the link has been connected before
  int64_t deadline_ns = 0;  // dial and stranger
  bool said_hello = false;  // dial
  uint32_t events = 0;      // as they came; a lane looks at those before it was one
  std::array<std::byte, kTcpHelloBytes> heard{};
  size_t heard_bytes = 0;
};

class TcpTransport final : public Transport {
 public:
  TcpTransport(const Context& context, std::vector<TcpEndpoint> endpoints, TcpListener listener,
               UniqueFd epoll, UniqueFd wake)
      : context_(context),
        sockets_(static_cast<int>(context.settings.sockets_per_path)),
        endpoints_(std::move(endpoints)),
        listener_(std::move(listener)),
        epoll_(std::move(epoll)),
        wake_(std::move(wake)) {}

  const char* name() const override { return "tcp"; }
  Capabilities capabilities() const override {
    const bool several =
        sockets_ > 1 || endpoints_.front().interface != endpoints_.back().interface;
    return {.load_store = false, .zero_copy = several, .in_place_view = false};
  }
  Address address() const override { return encode(TcpAddress{listener_.port, endpoints_}); }
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
  std::vector<NicSpeed> speeds() const override { return nics_.speeds(); }
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
  static Status no_memory() {
    return Status(Code::unsupported, "tcp: there is no shared memory over a network");
  }
  /// A link, and what it takes to connect its lanes.
  struct Line {
    std::unique_ptr<TcpLink> link;
    std::vector<TcpPath> paths;  // where this rank connects
    struct Redial {
      bool dialling = false;
      int64_t next_ns = 0;
      int64_t pause_ns = kRedialNs;
    };
    std::vector<Redial> redials;  // by lane
  };

  Line& find_line(int peer, int channel);
  Line& line_of(const TcpLink& link) { return lines_.at({link.peer(), link.channel()}); }
  TcpLink* find_link(int peer, int channel) { return find_line(peer, channel).link.get(); }
  void dial(Line& line);
  Status dial_lane(Line& line, int lane, bool anew);
  void dial_failed(size_t index, const std::string& why, Code code = Code::remote);
  void keep_up(int64_t now_ns);
  void forget(const TcpLink* link, int path);
  int64_t rest_us(int64_t timeout_us) const;
  Status watch(int fd, size_t index);
  size_t new_entry(Watched::Kind kind);
  void drop(size_t index);

  void poll(int64_t timeout_us);
  void handle(const epoll_event& event);
  void accept_all();
  void advance_dial(size_t index);
  void advance_stranger(size_t index);
  bool hear(Watched* entry, size_t bytes);
  void welcome(size_t index, const TcpHello& hello);
  void adopt(size_t index, TcpLink* link, const TcpHello& hello);
  void sweep();
  void complain(const std::string& text) {
    if (complaints_++ < kComplaintsMax) log::warn("tcp: rank {}: {}", context_.rank, text);
  }

  const Context context_;
  const int sockets_;  // of each pair of interfaces
  std::vector<TcpEndpoint> endpoints_;
  TcpListener listener_;
  UniqueFd epoll_;
  UniqueFd wake_;
  AbortFlag abort_;
  std::vector<std::optional<TcpAddress>> peers_;
  std::vector<uint64_t> host_ids_;
  std::map<std::pair<int, int>, Line> lines_;
  PathLog path_log_;
  TcpNics nics_{&path_log_};
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
};

Status TcpTransport::watch(int fd, size_t index) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = static_cast<uint64_t>(watched_[index].generation) << 32 | index;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return system_error(errno, "tcp: epoll cannot watch a socket");
  }
  return ok();
}

size_t TcpTransport::new_entry(Watched::Kind kind) {
  if (free_.empty()) {
    watched_.emplace_back();
    free_.push_back(watched_.size() - 1);
  }
  const size_t index = free_.back();
  free_.pop_back();
  watched_[index].kind = kind;
  if (kind == Watched::Kind::dial || kind == Watched::Kind::stranger) unfinished_++;
  return index;
}

// Closes a dial or a stranger.
void TcpTransport::drop(size_t index) {
  const uint32_t generation = watched_[index].generation + 1;
  std::erase(strangers_, index);
  watched_[index] = Watched();
  watched_[index].generation = generation;
  free_.push_back(index);
  unfinished_--;
}

Status TcpTransport::start() {
  RAILCCL_CHECK(watch(wake_.get(), new_entry(Watched::Kind::wake)));
  return ok();
}

Status TcpTransport::set_peers(const Peers& peers) {
  const size_t ranks = static_cast<size_t>(context_.ranks);
  if (peers.addresses.size() != ranks || peers.host_ids.size() != ranks) {
    return Status(Code::invalid_argument, "tcp: {} addresses for {} ranks", peers.addresses.size(),
                  ranks);
  }
  std::vector<std::optional<TcpAddress>> all(ranks);
  for (size_t r = 0; r < ranks; r++) {
    if (peers.addresses[r].empty()) continue;  // it has no tcp
    all[r] = decode_tcp_address(peers.addresses[r]);
    if (!all[r]) return Status(Code::remote, "tcp: the address of rank {} is malformed", r);
  }
  // The NICs that the topology gives to ranks come first: ranks of one rail so meet on it.
  const auto nearest_first = [&](std::vector<TcpEndpoint>& endpoints, size_t rank) {
    if (rank >= peers.nics.size()) return;
    std::stable_partition(endpoints.begin(), endpoints.end(), [&](const TcpEndpoint& endpoint) {
      return endpoint.interface == peers.nics[rank];
    });
  };
  for (size_t r = 0; r < ranks; r++)
    if (all[r]) nearest_first(all[r]->endpoints, r);
  nearest_first(endpoints_, static_cast<size_t>(context_.rank));
  peers_ = std::move(all);
  host_ids_ = peers.host_ids;
  std::vector<std::string> ours;
  for (const TcpEndpoint& endpoint : endpoints_)
    if (std::find(ours.begin(), ours.end(), endpoint.interface) == ours.end())
      ours.push_back(endpoint.interface);
  nics_.set_peers(context_.rank, ours, peers);
  // Only now can greetings be told from noise.
  return watch(listener_.socket.get(), new_entry(Watched::Kind::listener));
}

TcpTransport::Line& TcpTransport::find_line(int peer, int channel) {
  Line& line = lines_[{peer, channel}];
  if (line.link == nullptr) {
    line.link = std::make_unique<TcpLink>(&abort_, peer, channel, "not connected");
    if (context_.rank < peer) dial(line);
  }
  return line;
}

Result<Link*> TcpTransport::link(int peer, int channel) {
  if (!reaches(peer)) {
    return Status(Code::invalid_argument, "tcp does not reach rank {} from rank {}", peer,
                  context_.rank);
  }
  if (channel < 0 || channel >= kChannelsMax) {
    return Status(Code::invalid_argument, "tcp has no channel {}", channel);
  }
  return static_cast<Link*>(find_link(peer, channel));
}

void TcpTransport::dial(Line& line) {
  TcpLink& link = *line.link;
  const TcpAddress& address = *peers_[static_cast<size_t>(link.peer())];
  const bool same_host = host_ids_[static_cast<size_t>(link.peer())] == context_.host_id;
  line.paths = tcp_paths(endpoints_, address.endpoints, same_host);
  if (line.paths.empty())
    return link.fail("no address of it can be reached from ours", Code::unsupported);
  line.paths.resize(std::min<size_t>(line.paths.size(), kTcpLanesMax / sockets_));
  const int lanes = static_cast<int>(line.paths.size()) * sockets_;
  link.set_lanes(lanes);
  link.set_detail(tcp_path_text(line.paths[0], address.port));
  line.redials.resize(static_cast<size_t>(lanes));
  several_paths_ |= lanes > 1;
  for (int lane = 0; lane < lanes && !link.failed(); lane++) {
    Status status = dial_lane(line, lane, false);
    if (!status.is_ok() && lane < sockets_) link.fail(status.text(), Code::system);
  }
}

// Begins a connection. When that fails at once, a lane beyond the first pair of interfaces is tried
// again later.
Status TcpTransport::dial_lane(Line& line, int lane, bool anew) {
  const TcpLink& link = *line.link;
  const TcpAddress& address = *peers_[static_cast<size_t>(link.peer())];
  const TcpPath& path = line.paths[static_cast<size_t>(lane / sockets_)];
  Line::Redial& redial = line.redials[static_cast<size_t>(lane)];
  redial.next_ns = now_ns() + redial.pause_ns;
  redial.pause_ns = std::min(2 * redial.pause_ns, kRedialNsMax);
  RAILCCL_TRY(UniqueFd socket, tcp_connect(path, address.port, context_.settings.timeout_ms));
  const size_t index = new_entry(Watched::Kind::dial);
  Watched& entry = watched_[index];
  entry.socket = std::move(socket);
  entry.link = line.link.get();
  entry.anew = anew;
  entry.hello = {.job = context_.job,
                 .from = static_cast<uint32_t>(context_.rank),
                 .to = static_cast<uint32_t>(link.peer()),
                 .channel = static_cast<uint32_t>(link.channel()),
                 .lane = static_cast<uint16_t>(lane),
                 .lanes = static_cast<uint16_t>(link.lanes()),
                 .sockets = static_cast<uint8_t>(sockets_),
                 .home = lane < sockets_ || nics_.home(path.from.interface)};
  entry.deadline_ns =
      now_ns() + 1'000'000 * (anew ? kRedialConnectMs : context_.settings.init_timeout_ms);
  redial.dialling = true;
  Status status = watch(entry.socket.get(), index);
  if (!status.is_ok()) {
    redial.dialling = false;
    drop(index);
  }
  return status;
}

// A connection did not come about. The link ends with it where it was the last hope, or where
// nobody listens any more; else the lane is tried again.
void TcpTransport::dial_failed(size_t index, const std::string& why, Code code) {
  Watched& entry = watched_[index];
  TcpLink* const link = entry.link;
  const int lane = entry.hello.lane;
  const bool gone = entry.anew && code == Code::remote;
  drop(index);
  Line& line = line_of(*link);
  line.redials[static_cast<size_t>(lane)].dialling = false;
  const bool hope = link->ever_connected() ||
                    std::any_of(line.redials.begin(), line.redials.end(),
                                [](const Line::Redial& redial) { return redial.dialling; });
  if (gone || !hope) link->fail(why, code);
}

// Looks after links over several paths: silent ones, lost ones, and what NICs carry.
void TcpTransport::keep_up(int64_t now_ns) {
  next_upkeep_ns_ = now_ns + kUpkeepNs;
  std::vector<TcpLink::NicLoad> loads;
  for (auto& [key, line] : lines_) {
    TcpLink& link = *line.link;
    if (!link.striped() || link.failed()) continue;
    link.watch(now_ns);
    while (const auto news = link.take_news()) nics_.tell(link, *news, now_ns);
    link.add_loads(&loads);
    for (size_t lane = 0; lane < line.redials.size(); lane++) {
      Line::Redial& redial = line.redials[lane];
      const int number = static_cast<int>(lane);
      if (link.lane_works(number)) {
        redial.pause_ns = kRedialNs;
        redial.next_ns = now_ns + kRedialNs;
      } else if (!redial.dialling && now_ns >= redial.next_ns) {
        // A failure is one more reason to try again later.
        if (Status status = dial_lane(line, number, link.lane_taken(number)); !status.is_ok())
          continue;
      }
    }
  }
  nics_.observe(loads, now_ns);
  if (now_ns < next_report_ns_) return;
  next_report_ns_ = now_ns + kReportNs;
  std::vector<PathState> states;
  for (const auto& [key, line] : lines_) line.link->add_states(&states);
  path_log_.set(std::move(states));
}

bool TcpTransport::settled() {
  if (several_paths_) keep_up(now_ns());
  return std::all_of(lines_.begin(), lines_.end(), [](const auto& line) {
    return line.second.link->failed() || !line.second.link->pending();
  });
}

// How long to sleep at most without letting a link over several paths wait.
int64_t TcpTransport::rest_us(int64_t timeout_us) const {
  if (unfinished_ > 0) timeout_us = std::min(timeout_us, kSweepMs * 1000);
  if (!several_paths_) return timeout_us;
  for (const auto& [key, line] : lines_) {
    const int64_t rest_ns = line.link->rest_ns();
    if (rest_ns >= 0) timeout_us = std::min(timeout_us, rest_ns / 1000);
  }
  return std::min(timeout_us, kSweepMs * 1000);
}

void TcpTransport::wait(int64_t timeout_us) {
  if (abort_.raised()) return;
  if (!news_) poll(rest_us(timeout_us));
  // Events that an earlier progress() took may be what the caller has not looked at since.
  news_ = false;
}

void TcpTransport::poll(int64_t timeout_us) {
  constexpr int kBatch = 64;
  epoll_event events[kBatch];
  while (true) {
    const int count = timeout_us > 0 ? sleep_in_epoll(epoll_.get(), events, kBatch, timeout_us)
                                     : epoll_wait(epoll_.get(), events, kBatch, 0);
    for (int i = 0; i < count; i++) handle(events[i]);
    if (count > 0) news_ = true;
    if (count < kBatch) break;
    timeout_us = 0;
  }
  if (unfinished_ == 0 && !accept_later_ && !several_paths_) return;
  const int64_t now = now_ns();
  if ((unfinished_ > 0 || accept_later_) && now >= next_sweep_ns_) sweep();
  if (several_paths_ && now >= next_upkeep_ns_) keep_up(now);
}

void TcpTransport::handle(const epoll_event& event) {
  const size_t index = event.data.u64 & 0xffffffff;
  Watched& entry = watched_[index];
  if (entry.generation != event.data.u64 >> 32) return;
  entry.events |= event.events;
  switch (entry.kind) {
    case Watched::Kind::listener:
      return accept_all();
    case Watched::Kind::wake: {
      uint64_t count;
      (void)!read(wake_.get(), &count, sizeof(count));
      return;
    }
    case Watched::Kind::dial:
      return advance_dial(index);
    case Watched::Kind::stranger:
      return advance_stranger(index);
    case Watched::Kind::lane:
      return entry.link->on_events(entry.path, event.events);
    case Watched::Kind::free:
      return;
  }
}

void TcpTransport::accept_all() {
  accept_later_ = false;
  while (true) {
    Result<UniqueFd> socket = tcp_accept(listener_.socket.get(), context_.settings.timeout_ms);
    if (!socket.is_ok()) {
      // Out of descriptors: the connection stays in the queue, we come back to it.
      complain(socket.status().text());
      accept_later_ = true;
      return;
    }
    if (!*socket) return;
    // A crowd of strangers pushes out its own oldest; ranks say hello at once.
    if (strangers_.size() >= kStrangersMax) drop(strangers_.front());
    const size_t index = new_entry(Watched::Kind::stranger);
    strangers_.push_back(index);
    watched_[index].socket = std::move(*socket);
    watched_[index].deadline_ns = now_ns() + kStrangerMs * 1'000'000;
    if (Status status = watch(watched_[index].socket.get(), index); !status.is_ok()) {
      complain(status.text());
      drop(index);
    }
  }
}

// Reads up to `bytes` of greeting; true when they are complete. Not one byte more: what follows
// belongs to the stream. On error or end the entry is marked by an impossible length.
bool TcpTransport::hear(Watched* entry, size_t bytes) {
  while (entry->heard_bytes < bytes) {
    const ssize_t got = recv(entry->socket.get(), entry->heard.data() + entry->heard_bytes,
                             bytes - entry->heard_bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) {
      entry->heard_bytes = ~size_t{0};
      return false;
    }
    entry->heard_bytes += static_cast<size_t>(got);
  }
  return entry->heard_bytes == bytes;
}

void TcpTransport::advance_dial(size_t index) {
  Watched& entry = watched_[index];
  const auto fail = [&](const std::string& why) { dial_failed(index, why); };
  if (const int error = tcp_error(entry.socket.get()); error != 0) {
    // Only a refusal says that nobody is there: the rest is the network's.
    return dial_failed(index, "cannot connect: " + std::system_category().message(error),
                       error == ECONNREFUSED || !entry.anew ? Code::remote : Code::system);
  }
  if (!entry.said_hello) {
    const TcpHelloBytes hello = encode(entry.hello);
    const ssize_t sent = send(entry.socket.get(), hello.data(), hello.size(), MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINTR)) return;
    if (sent != static_cast<ssize_t>(hello.size())) return fail("cannot say hello");
    entry.said_hello = true;
    entry.deadline_ns = now_ns() + context_.settings.init_timeout_ms * 1'000'000;
  }
  if (!hear(&entry, kTcpAnswerBytes)) {
    if (entry.heard_bytes > kTcpAnswerBytes) fail("hung up on our hello");
    return;
  }
  const std::optional<TcpAnswer> answer =
      decode_tcp_answer(std::span(entry.heard).first(kTcpAnswerBytes));
  if (!answer || answer->proof != proof_of(entry.hello)) return fail("is not a rank of this job");
  if (answer->sockets != entry.hello.sockets) {
    entry.link->fail(fmt::format("NCCL_NSOCKS_PERTHREAD is {} there and {} here", answer->sockets,
                                 entry.hello.sockets));
    return drop(index);
  }
  line_of(*entry.link).redials[entry.hello.lane].dialling = false;
  adopt(index, entry.link, entry.hello);
}

void TcpTransport::advance_stranger(size_t index) {
  Watched& entry = watched_[index];
  if (!hear(&entry, kTcpHelloBytes)) {
    if (entry.heard_bytes > kTcpHelloBytes) drop(index);
    return;
  }
  const std::optional<TcpHello> hello = decode_tcp_hello(entry.heard);
  if (!hello || hello->job != context_.job) {
    complain("a stranger connected: " + tcp_peer_text(entry.socket.get(), endpoints_));
    return drop(index);
  }
  welcome(index, *hello);
}

void TcpTransport::welcome(size_t index, const TcpHello& hello) {
  Watched& entry = watched_[index];
  if (hello.to != static_cast<uint32_t>(context_.rank) ||
      hello.from >= static_cast<uint32_t>(context_.rank) || hello.channel >= kChannelsMax ||
      !reaches(static_cast<int>(hello.from))) {
    complain(
        fmt::format("rank {} asks for rank {} channel {}", hello.from, hello.to, hello.channel));
    return drop(index);
  }
  TcpLink* const link = find_link(static_cast<int>(hello.from), static_cast<int>(hello.channel));
  const TcpAnswerBytes answer = encode(TcpAnswer{static_cast<uint16_t>(sockets_), proof_of(hello)});
  if (hello.sockets != sockets_) {
    (void)!send(entry.socket.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    drop(index);
    return link->fail(
        fmt::format("NCCL_NSOCKS_PERTHREAD is {} there and {} here", hello.sockets, sockets_));
  }
  if (link->lanes() == 0) link->set_lanes(hello.lanes);
  several_paths_ |= link->striped();
  // Where there are several paths, a lane may come again: the far end has lost the one before.
  if (hello.lanes != link->lanes() || (!link->striped() && link->lane_taken(hello.lane))) {
    complain(fmt::format("rank {} connects a second time", hello.from));
    return drop(index);
  }
  const ssize_t sent = send(entry.socket.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
  if (sent != static_cast<ssize_t>(answer.size())) {
    drop(index);
    if (!link->striped()) link->fail("hung up while we answered its hello");
    return;
  }
  adopt(index, link, hello);
}

void TcpTransport::adopt(size_t index, TcpLink* link, const TcpHello& hello) {
  Watched& entry = watched_[index];
  std::erase(strangers_, index);
  unfinished_--;
  entry.kind = Watched::Kind::free;  // until it is the link's
  entry.link = link;
  entry.hello = hello;
  std::string nic;
  std::string text = tcp_peer_text(entry.socket.get(), endpoints_, &nic);
  Result<int> path = link->add_socket(hello.lane, hello.home, std::move(entry.socket),
                                      std::move(nic), std::move(text));
  if (!path.is_ok()) return link->fail(path.status().text(), Code::system);
  if (link->striped()) forget(link, *path);
  entry.kind = Watched::Kind::lane;
  entry.path = *path;
  // Edges come once: a hang-up may have shown together with the greeting.
  link->on_events(entry.path, entry.events);
}

// The number of a path that is gone was given to another: events of the old one mean nothing.
void TcpTransport::forget(const TcpLink* link, int path) {
  for (size_t i = 0; i < watched_.size(); i++) {
    Watched& entry = watched_[i];
    if (entry.kind != Watched::Kind::lane || entry.link != link || entry.path != path) continue;
    const uint32_t generation = entry.generation + 1;
    entry = Watched();
    entry.generation = generation;
    free_.push_back(i);
  }
}

void TcpTransport::sweep() {
  next_sweep_ns_ = now_ns() + kSweepMs * 1'000'000;
  if (accept_later_) accept_all();
  for (size_t i = 0; i < watched_.size(); i++) {
    const Watched& entry = watched_[i];
    if (entry.deadline_ns == 0 || now_ns() < entry.deadline_ns) continue;
    if (entry.kind == Watched::Kind::stranger) drop(i);
    if (entry.kind != Watched::Kind::dial) continue;
    const bool connected = entry.said_hello;
    news_ = true;
    dial_failed(i, connected ? "no answer to our hello in time" : "no connection in time",
                Code::timeout);
  }
}

Status usable(const Context& context) {
  Result<std::vector<TcpEndpoint>> endpoints = tcp_endpoints(context.settings, context.interfaces);
  return endpoints.is_ok() ? ok() : endpoints.status().context("tcp");
}

Result<std::unique_ptr<Transport>> create(const Context& context) {
  RAILCCL_TRY(std::vector<TcpEndpoint> endpoints,
              tcp_endpoints(context.settings, context.interfaces));
  RAILCCL_TRY(TcpListener listener, tcp_listen(endpoints));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error(errno, "tcp: epoll");
  UniqueFd wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake) return system_error(errno, "tcp: eventfd");
  auto transport = std::make_unique<TcpTransport>(
      context, std::move(endpoints), std::move(listener), std::move(epoll), std::move(wake));
  RAILCCL_CHECK(transport->start());
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace

RAILCCL_TRANSPORT(tcp){"tcp", 10, usable, create};

}  // namespace railccl::transport
