// tcp: links between ranks over sockets.
//
// Each rank listens on one port. For each link the lower rank connects, one connection per lane,
// and says who it is (tcp_wire.h); the higher rank accepts, checks and answers. Connections that
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
#include "transport/tcp_socket.h"

namespace railccl::transport {
namespace {

constexpr int kChannelsMax = 256;
constexpr int64_t kStrangerMs = 5000;  // for a hello, from the moment a connection is accepted
constexpr int kStrangersMax = 256;
constexpr int kComplaintsMax = 8;
constexpr int64_t kSweepMs = 100;  // how often deadlines of unfinished connections are looked at

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
        lanes_(static_cast<int>(context.settings.sockets_per_path)),
        endpoints_(std::move(endpoints)),
        listener_(std::move(listener)),
        epoll_(std::move(epoll)),
        wake_(std::move(wake)) {}

  const char* name() const override { return "tcp"; }
  Capabilities capabilities() const override {
    return {.load_store = false, .zero_copy = lanes_ > 1, .in_place_view = false};
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
  TcpLink* find_link(int peer, int channel);
  void dial(TcpLink* link, int peer, int channel);
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
  const int lanes_;
  std::vector<TcpEndpoint> endpoints_;
  TcpListener listener_;
  UniqueFd epoll_;
  UniqueFd wake_;
  AbortFlag abort_;
  std::vector<std::optional<TcpAddress>> peers_;
  std::vector<uint64_t> host_ids_;
  std::map<std::pair<int, int>, std::unique_ptr<TcpLink>> links_;
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
  // Only now can greetings be told from noise.
  return watch(listener_.socket.get(), new_entry(Watched::Kind::listener));
}

TcpLink* TcpTransport::find_link(int peer, int channel) {
  std::unique_ptr<TcpLink>& slot = links_[{peer, channel}];
  if (slot == nullptr) {
    slot = std::make_unique<TcpLink>(&abort_, peer, channel, lanes_, "not connected");
    if (context_.rank < peer) dial(slot.get(), peer, channel);
  }
  return slot.get();
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

void TcpTransport::dial(TcpLink* link, int peer, int channel) {
  const TcpAddress& address = *peers_[static_cast<size_t>(peer)];
  const bool same_host = host_ids_[static_cast<size_t>(peer)] == context_.host_id;
  const std::optional<TcpPath> path = tcp_path(endpoints_, address.endpoints, same_host);
  if (!path) return link->fail("no address of it can be reached from ours", Code::unsupported);
  link->set_detail(tcp_path_text(*path, address.port));
  for (int lane = 0; lane < lanes_; lane++) {
    Result<UniqueFd> socket = tcp_connect(*path, address.port, context_.settings.timeout_ms);
    if (!socket.is_ok()) return link->fail(socket.status().text(), Code::system);
    const size_t index = new_entry(Watched::Kind::dial);
    Watched& entry = watched_[index];
    entry.socket = std::move(*socket);
    entry.link = link;
    entry.hello = {.job = context_.job,
                   .from = static_cast<uint32_t>(context_.rank),
                   .to = static_cast<uint32_t>(peer),
                   .channel = static_cast<uint32_t>(channel),
                   .lane = static_cast<uint16_t>(lane),
                   .lanes = static_cast<uint16_t>(lanes_)};
    entry.deadline_ns = now_ns() + context_.settings.init_timeout_ms * 1'000'000;
    if (Status status = watch(entry.socket.get(), index); !status.is_ok()) {
      drop(index);
      return link->fail(status.text(), Code::system);
    }
  }
}

void TcpTransport::wait(int64_t timeout_us) {
  if (abort_.raised()) return;
  if (!news_) poll(unfinished_ > 0 ? std::min(timeout_us, kSweepMs * 1000) : timeout_us);
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
  if ((unfinished_ > 0 || accept_later_) && now_ns() >= next_sweep_ns_) sweep();
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
      return entry.link->on_events(entry.hello.lane, event.events);
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
  TcpLink* const link = entry.link;
  const auto fail = [&](const std::string& why) {
    drop(index);
    link->fail(why);
  };
  if (const int error = tcp_error(entry.socket.get()); error != 0) {
    return fail("cannot connect: " + std::system_category().message(error));
  }
  if (!entry.said_hello) {
    const TcpHelloBytes hello = encode(entry.hello);
    const ssize_t sent = send(entry.socket.get(), hello.data(), hello.size(), MSG_NOSIGNAL);
    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINTR)) return;
    if (sent != static_cast<ssize_t>(hello.size())) return fail("cannot say hello");
    entry.said_hello = true;
  }
  if (!hear(&entry, kTcpAnswerBytes)) {
    if (entry.heard_bytes > kTcpAnswerBytes) fail("hung up on our hello");
    return;
  }
  const std::optional<TcpAnswer> answer =
      decode_tcp_answer(std::span(entry.heard).first(kTcpAnswerBytes));
  if (!answer || answer->proof != proof_of(entry.hello)) return fail("is not a rank of this job");
  if (answer->lanes != entry.hello.lanes) {
    return fail(fmt::format("NCCL_NSOCKS_PERTHREAD is {} there and {} here", answer->lanes,
                            entry.hello.lanes));
  }
  adopt(index, link, entry.hello);
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
  if (hello.lanes == lanes_ && link->has_lane(hello.lane)) {
    complain(fmt::format("rank {} connects a second time", hello.from));
    return drop(index);
  }
  const TcpAnswerBytes answer = encode(TcpAnswer{static_cast<uint16_t>(lanes_), proof_of(hello)});
  const ssize_t sent = send(entry.socket.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
  if (hello.lanes != lanes_) {
    drop(index);
    return link->fail(
        fmt::format("NCCL_NSOCKS_PERTHREAD is {} there and {} here", hello.lanes, lanes_));
  }
  if (sent != static_cast<ssize_t>(answer.size())) {
    drop(index);
    return link->fail("hung up while we answered its hello");
  }
  adopt(index, link, hello);
}

void TcpTransport::adopt(size_t index, TcpLink* link, const TcpHello& hello) {
  Watched& entry = watched_[index];
  std::erase(strangers_, index);
  unfinished_--;
  entry.kind = Watched::Kind::lane;
  entry.link = link;
  entry.hello = hello;
  const std::string text = tcp_peer_text(entry.socket.get(), endpoints_);
  if (Status status = link->add_lane(hello.lane, std::move(entry.socket), text); !status.is_ok())
    return link->fail(status.text(), Code::system);
  // Edges come once: a hang-up may have shown together with the greeting.
  link->on_events(hello.lane, entry.events);
}

void TcpTransport::sweep() {
  next_sweep_ns_ = now_ns() + kSweepMs * 1'000'000;
  if (accept_later_) accept_all();
  for (size_t i = 0; i < watched_.size(); i++) {
    const Watched& entry = watched_[i];
    if (entry.deadline_ns == 0 || now_ns() < entry.deadline_ns) continue;
    if (entry.kind == Watched::Kind::stranger) drop(i);
    if (entry.kind != Watched::Kind::dial) continue;
    TcpLink* const link = entry.link;
    const bool connected = entry.said_hello;
    drop(i);
    news_ = true;
    link->fail(connected ? "no answer to our hello in time" : "no connection in time",
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
