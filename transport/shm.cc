// shm: links between the ranks of one host, through memory that both map.
//
// Data goes through rings in the receiver's segment (ring.h, shm_segment.h): one copy in, one copy
// out or a reduction straight out of the ring. Ranks of one process share the segment object, ranks
// of different processes exchange file descriptors (shm_handshake.h): for each pair the lower rank
// connects once it has use for the peer, the higher one accepts whenever it makes progress. So a
// peer that a rank never talks to costs it neither a descriptor nor a page.
//
// One thread at a time drives a transport with all its links; wake() and abort() are for others.
#include <sys/epoll.h>

#include <algorithm>
#include <map>
#include <vector>

#include "base/clock.h"
#include "base/log.h"
#include "transport/abort_flag.h"
#include "transport/registry.h"
#include "transport/shm_handshake.h"
#include "transport/shm_offers.h"
#include "transport/shm_segment.h"

namespace railccl::transport {
namespace {

// How often the sockets are looked at: while peers are still to come, and once all are there and
// only a death can show. Both also bound a sleep.
constexpr int64_t kConnectingPollUs = 500;
constexpr int64_t kQuietPollUs = 50'000;
constexpr int64_t kStrangerMs = 5000;  // a connection that has not said hello by then is closed
constexpr size_t kStrangersMax = 64;
constexpr int kComplaintsMax = 8;

struct Peer {
  int rank = -1;
  bool local = false;
  bool same_process = false;
  bool wanted = false;  // this rank has use for it
  ShmKey key;
  std::shared_ptr<ShmSegment> segment;  // null until connected
  UniqueFd socket;
  pid_t pid = 0;
  ShmIncoming memory;
  Status lost;  // not ok: it will send and read no more

  std::string text() const {
    if (same_process) return fmt::format("rank {} (same process)", rank);
    if (pid != 0) return fmt::format("rank {} (pid {})", rank, pid);
    return fmt::format("rank {}", rank);
  }
};

class ShmLink final : public Link {
 public:
  ShmLink(const AbortFlag& abort, const Peer* peer, int channel, ShmSegment::Ring incoming,
          size_t ring_bytes, BulkCopy bulk)
      : abort_(abort),
        peer_(peer),
        channel_(channel),
        ring_bytes_(ring_bytes),
        bulk_(bulk),
        lane_(incoming.lane),
        reader_(incoming.header, incoming.data, ring_bytes, nullptr) {}
  Result<size_t> send(std::span<const iovec> ranges) override;
  uint64_t released() const override { return writer_.accepted(); }
  Result<bool> flush() override;
  Result<std::span<const std::byte>> peek(size_t want) override;
  void consume(size_t bytes) override {
    reader_.consume(bytes);
    last_view_ = kNoView;
  }
  Result<size_t> receive(void* dst, size_t bytes) override;
  Lane* lane() override { return &lane_; }
  Status state() const override { return failed() ? failure() : ok(); }
  std::string name() const override {
    return fmt::format("shm to {} channel {}", peer_->text(), channel_);
  }
  /// Called when the peer's segment is there.
  Status attach(int my_rank);

 private:
  bool failed() const { return abort_.raised() || !peer_->lost.is_ok(); }
  Status failure() const;
  const AbortFlag& abort_;
  const Peer* peer_;
  int channel_;
  size_t ring_bytes_;
  BulkCopy bulk_;
  bool attached_ = false;
  size_t last_view_ = kNoView;  // size of the view given since consume(), once the peer is lost
  static constexpr size_t kNoView = ~size_t{0};
  Lane lane_;
  RingReader reader_;
  RingWriter writer_;
};

class ShmTransport final : public Transport {
 public:
  ShmTransport(const Context& context, std::shared_ptr<ShmSegment> mine, UniqueFd listener,
               UniqueFd epoll)
      : context_(context),
        mine_(std::move(mine)),
        listener_(std::move(listener)),
        epoll_(std::move(epoll)),
        sleeper_(mine_->bell()) {
    watch(listener_.get());
  }
  ~ShmTransport() override {
    mine_->leave();
    for (Peer& peer : peers_)
      if (peer.segment != nullptr) peer.segment->bell()->ring();
  }

  const char* name() const override { return "shm"; }
  Capabilities capabilities() const override {
    return {.load_store = true, .zero_copy = false, .in_place_view = true};
  }
  Address address() const override { return encode_shm_address(mine_->key()); }
  Status set_peers(const Peers& peers) override;
  bool reaches(int peer) const override {
    return peer >= 0 && static_cast<size_t>(peer) < peers_.size() && at(peer).local;
  }
  Result<Link*> link(int peer, int channel) override;
  Status progress() override;
  void wait(int64_t timeout_us) override;
  void wake() override { mine_->bell()->ring(); }
  Result<std::byte*> shared_memory(size_t bytes) override { return mine_->grow_scratch(bytes); }
  Result<std::byte*> peer_memory(int peer, size_t bytes) override;
  Offer offer(const std::shared_ptr<MemoryFile>& file) override;
  Result<std::shared_ptr<const Mapping>> offered(int peer, uint64_t id) override;
  void abort(const Status& why) override {
    abort_.raise(why);
    mine_->bell()->ring();
  }

 private:
  struct Stranger {
    UniqueFd socket;
    pid_t pid = 0;
    int64_t since_ns = 0;
  };

  Peer& at(int rank) { return peers_[static_cast<size_t>(rank)]; }
  const Peer& at(int rank) const { return peers_[static_cast<size_t>(rank)]; }
  bool remote(const Peer& peer) const { return peer.local && !peer.same_process; }
  void watch(int fd) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP;
    event.data.fd = fd;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      log::warn("shm: epoll cannot watch a socket: errno {}", errno);
    }
  }
  bool connecting() const { return missing_ > 0; }
  // A stranger must not be able to fill the log.
  void complain(const std::string& text) {
    if (complaints_++ < kComplaintsMax) log::warn("{}", text);
  }
  void want(Peer* peer);
  void poll_peers();
  void connect(Peer* peer);
  void accept_all();
  void greet_strangers();
  void hear(Peer* peer);
  void found(Peer* peer, std::shared_ptr<ShmSegment> segment);
  void lose(Peer* peer, Status why);
  std::vector<int> remote_sockets() const;

  const Context context_;
  const std::shared_ptr<ShmSegment> mine_;
  UniqueFd listener_;
  UniqueFd epoll_;
  Sleeper sleeper_;
  AbortFlag abort_;
  std::vector<Peer> peers_;
  std::vector<Peer*> company_;  // local ones, of other processes only those with a use or a socket
  std::vector<Stranger> strangers_;
  ShmOutgoing outgoing_;
  std::map<std::pair<int, int>, std::unique_ptr<ShmLink>> links_;
  size_t ring_bytes_ = 0;
  int missing_ = 0;  // wanted peers without a segment that are not lost either
  int complaints_ = 0;
  bool news_ = false;  // progress changed a peer since the last wait
  int64_t next_poll_ns_ = 0;
};

Status ShmLink::failure() const {
  if (abort_.raised()) return abort_.why();
  return peer_->lost.context("shm channel {}", channel_);
}

Status ShmLink::attach(int my_rank) {
  RAILCCL_TRY(const ShmSegment::Ring out, peer_->segment->ring(my_rank, channel_, ring_bytes_));
  writer_ = RingWriter(out.header, out.data, ring_bytes_, peer_->segment->bell(), bulk_);
  reader_.set_writer(peer_->segment->bell());
  lane_.attach(out.lane, peer_->segment->bell());
  attached_ = true;
  return ok();
}

Result<size_t> ShmLink::send(std::span<const iovec> ranges) {
  if (failed()) return failure();
  if (!attached_) return size_t{0};
  return writer_.write(ranges);
}

Result<bool> ShmLink::flush() {
  if (failed()) return failure();
  return true;
}

Result<std::span<const std::byte>> ShmLink::peek(size_t want) {
  // Failure first, bytes second: what a lost peer wrote was there before its loss showed.
  const bool over = failed();
  if (over && abort_.raised()) return failure();
  const std::span<const std::byte> view = reader_.view(std::max<size_t>(want, 1));
  if (!reader_.sane()) {
    return Status(Code::remote, Scope::communicator, "{}: its ring is corrupt", name());
  }
  if (over && view.size() < want) {
    // What the peer left behind is still good, but no more will come: a caller that did not take
    // any of it waits for more.
    if (view.empty() || view.size() == last_view_) return failure();
    last_view_ = view.size();
  }
  return view;
}

Result<size_t> ShmLink::receive(void* dst, size_t bytes) {
  const bool over = failed();
  if (over && abort_.raised()) return failure();
  const size_t got = reader_.read(dst, bytes);
  if (!reader_.sane()) {
    return Status(Code::remote, Scope::communicator, "{}: its ring is corrupt", name());
  }
  if (over && got == 0 && bytes > 0) return failure();
  return got;
}

Status ShmTransport::set_peers(const Peers& peers) {
  const size_t ranks = static_cast<size_t>(context_.ranks);
  if (peers.addresses.size() != ranks || peers.host_ids.size() != ranks ||
      peers.processes.size() != ranks) {
    return Status(Code::invalid_argument, "shm: {} addresses for {} ranks", peers.addresses.size(),
                  ranks);
  }
  std::vector<Peer> all(ranks);
  for (size_t r = 0; r < ranks; r++) {
    Peer& peer = all[r];
    peer.rank = static_cast<int>(r);
    if (peers.addresses[r].empty()) continue;  // it has no shared memory
    const std::optional<ShmKey> key = decode_shm_address(peers.addresses[r]);
    if (!key) return Status(Code::remote, "shm: the address of rank {} is malformed", r);
    peer.key = *key;
    peer.local = peer.rank != context_.rank && peers.host_ids[r] == context_.host_id;
    peer.same_process = peer.local && peers.processes[r] == context_.process;
  }
  peers_ = std::move(all);
  const auto local = std::count_if(peers_.begin(), peers_.end(), [](auto& p) { return p.local; });
  ring_bytes_ = shm_ring_bytes(static_cast<int>(local) + 1);
  for (Peer& peer : peers_) {
    if (!peer.same_process) continue;
    company_.push_back(&peer);
    std::shared_ptr<ShmSegment> segment = ShmSegment::find_in_process(peer.key);
    if (segment != nullptr) {
      found(&peer, std::move(segment));
    } else {
      lose(&peer, Status(Code::remote, Scope::link, "{} has left", peer.text()));
    }
  }
  return ok();
}

Result<Link*> ShmTransport::link(int rank, int channel) {
  if (!reaches(rank)) {
    return Status(Code::invalid_argument, "shm does not reach rank {} from rank {}", rank,
                  context_.rank);
  }
  if (channel < 0 || channel >= kShmChannelsMax) {
    return Status(Code::invalid_argument, "shm has no channel {}", channel);
  }
  want(&at(rank));
  std::unique_ptr<ShmLink>& slot = links_[{rank, channel}];
  if (slot == nullptr) {
    RAILCCL_TRY(const ShmSegment::Ring incoming, mine_->ring(rank, channel, ring_bytes_));
    auto made = std::make_unique<ShmLink>(abort_, &at(rank), channel, incoming, ring_bytes_,
                                          context_.bulk_copy);
    if (at(rank).segment != nullptr) RAILCCL_CHECK(made->attach(context_.rank));
    slot = std::move(made);
  }
  return static_cast<Link*>(slot.get());
}

Result<std::byte*> ShmTransport::peer_memory(int rank, size_t bytes) {
  if (abort_.raised()) return abort_.why();
  if (rank == context_.rank) return mine_->scratch(bytes);
  if (!reaches(rank)) {
    return Status(Code::invalid_argument, "shm does not reach rank {}", rank);
  }
  Peer& peer = at(rank);
  want(&peer);
  if (peer.segment == nullptr) {
    if (!peer.lost.is_ok()) return peer.lost;
    return nullptr;
  }
  RAILCCL_TRY(std::byte* const memory, peer.segment->scratch(bytes));
  if (memory == nullptr && !peer.lost.is_ok()) return peer.lost;
  return memory;
}

Result<std::shared_ptr<const Mapping>> ShmTransport::offered(int rank, uint64_t id) {
  if (abort_.raised()) return abort_.why();
  if (!reaches(rank)) return Status(Code::invalid_argument, "shm does not reach rank {}", rank);
  Peer& peer = at(rank);
  want(&peer);
  std::shared_ptr<const Mapping> memory = peer.memory.find(id);
  if (memory == nullptr && peer.segment != nullptr && peer.socket) {
    hear(&peer);
    memory = peer.memory.find(id);
  }
  if (memory == nullptr && !peer.lost.is_ok()) return peer.lost;
  return memory;
}

Offer ShmTransport::offer(const std::shared_ptr<MemoryFile>& file) {
  for (Peer& peer : peers_)
    if (remote(peer)) want(&peer);
  return outgoing_.offer(file, remote_sockets());
}

std::vector<int> ShmTransport::remote_sockets() const {
  std::vector<int> sockets;
  for (const Peer& peer : peers_)
    // Before the greeting a notice would be taken for it.
    if (remote(peer)) sockets.push_back(peer.segment == nullptr ? -1 : peer.socket.get());
  return sockets;
}

Status ShmTransport::progress() {
  if (abort_.raised()) return abort_.why();
  if (now_ns() >= next_poll_ns_) poll_peers();
  return ok();
}

void ShmTransport::wait(int64_t timeout_us) {
  if (abort_.raised()) return;
  if (news_) {
    news_ = false;
    return;
  }
  const int64_t slice_us = connecting() ? kConnectingPollUs : kQuietPollUs;
  if (!sleeper_.wait(std::min(timeout_us, slice_us))) poll_peers();
}

/// Brings the peer's segment here by and by, if it is not.
void ShmTransport::want(Peer* peer) {
  if (peer->wanted || !remote(*peer)) return;
  peer->wanted = true;
  if (peer->segment != nullptr || !peer->lost.is_ok()) return;
  company_.push_back(peer);
  missing_++;
  next_poll_ns_ = 0;
  if (peer->rank > context_.rank) connect(peer);
}

void ShmTransport::poll_peers() {
  next_poll_ns_ = now_ns() + 1000 * (connecting() ? kConnectingPollUs : kQuietPollUs);
  if (peers_.empty()) return;
  for (Peer* peer : company_) {
    if (remote(*peer) && peer->rank > context_.rank && !peer->socket && peer->lost.is_ok())
      connect(peer);
  }
  epoll_event events[32];
  const int count = epoll_wait(epoll_.get(), events, 32, 0);
  for (int i = 0; i < count; i++) {
    if (events[i].data.fd == listener_.get()) accept_all();
    for (Peer* peer : company_)
      if (peer->socket && peer->socket.get() == events[i].data.fd) hear(peer);
  }
  greet_strangers();
  if (outgoing_.outdated()) outgoing_.withdraw_released(remote_sockets());
  for (Peer* peer : company_) {
    if (peer->segment != nullptr && peer->lost.is_ok() && peer->segment->left())
      lose(peer, Status(Code::remote, Scope::link, "{} has left", peer->text()));
  }
}

void ShmTransport::connect(Peer* peer) {
  const auto attempt = [&]() -> Status {
    RAILCCL_TRY(UniqueFd socket, shm_connect(peer->key));
    if (!socket) return ok();
    RAILCCL_TRY(peer->pid, shm_peer_process(socket.get()));
    RAILCCL_CHECK(shm_send_hello(socket.get(), context_.job, context_.rank, peer->rank, *mine_));
    peer->socket = std::move(socket);
    watch(peer->socket.get());
    return ok();
  };
  if (const Status status = attempt(); !status.is_ok())
    lose(peer, status.context("{}", peer->text()).widen(Scope::link));
}

void ShmTransport::accept_all() {
  while (strangers_.size() < kStrangersMax) {
    Result<UniqueFd> socket = shm_accept(listener_.get());
    if (!socket.is_ok() || !*socket) return;
    const Result<pid_t> pid = shm_peer_process(socket->get());
    if (!pid.is_ok()) {
      complain(pid.status().text());
      continue;
    }
    strangers_.push_back({std::move(*socket), *pid, now_ns()});
  }
}

void ShmTransport::greet_strangers() {
  // Whoever says hello correctly becomes a peer; the rest is dropped, at the latest after a while.
  std::erase_if(strangers_, [&](Stranger& stranger) {
    Result<std::optional<ShmHello>> received = shm_receive_hello(stranger.socket.get());
    if (!received.is_ok()) {
      complain(fmt::format("shm: process {}: {}", stranger.pid, received.status().text()));
      return true;
    }
    if (!received->has_value()) return now_ns() - stranger.since_ns > kStrangerMs * 1'000'000;
    ShmHello& hello = **received;
    if (hello.job != context_.job || hello.to != context_.rank || hello.from < 0 ||
        hello.from >= context_.rank || !remote(at(hello.from)) ||
        at(hello.from).segment != nullptr) {
      complain(
          fmt::format("shm: process {} is not a peer of rank {}", stranger.pid, context_.rank));
      return true;
    }
    Peer& peer = at(hello.from);
    if (!peer.wanted) company_.push_back(&peer);
    peer.pid = stranger.pid;
    peer.socket = std::move(stranger.socket);
    watch(peer.socket.get());
    Status status =
        shm_send_hello(peer.socket.get(), context_.job, context_.rank, peer.rank, *mine_);
    if (status.is_ok()) {
      Result<std::shared_ptr<ShmSegment>> segment =
          ShmSegment::adopt(std::move(hello.segment), std::move(hello.scratch),
                            {context_.job, peer.rank, context_.ranks});
      if (segment.is_ok()) {
        found(&peer, std::move(*segment));
        return true;
      }
      status = segment.status();
    }
    lose(&peer, status.context("{}", peer.text()).widen(Scope::link));
    return true;
  });
}

void ShmTransport::hear(Peer* peer) {
  Status why;
  if (peer->segment == nullptr) {
    Result<std::optional<ShmHello>> received = shm_receive_hello(peer->socket.get());
    if (received.is_ok() && !received->has_value()) return;
    if (received.is_ok()) {
      ShmHello& hello = **received;
      if (hello.job == context_.job && hello.from == peer->rank && hello.to == context_.rank) {
        Result<std::shared_ptr<ShmSegment>> segment =
            ShmSegment::adopt(std::move(hello.segment), std::move(hello.scratch),
                              {context_.job, peer->rank, context_.ranks});
        if (segment.is_ok()) return found(peer, std::move(*segment));
        why = segment.status();
      } else {
        why = Status(Code::remote, "shm: the greeting is of another job");
      }
    } else {
      why = received.status();
    }
    return lose(peer, why.context("{}", peer->text()).widen(Scope::link));
  }
  // After hello come notices about memory, and in the end the hang-up.
  const auto there = peer->memory.hear(peer->socket.get());
  if (!there.is_ok())
    return lose(peer, there.status().context("{}", peer->text()).widen(Scope::link));
  if (*there) return;
  const bool left = peer->segment->left();
  lose(peer, Status(Code::remote, Scope::link, "{} {}", peer->text(), left ? "has left" : "died"));
}

void ShmTransport::found(Peer* peer, std::shared_ptr<ShmSegment> segment) {
  peer->segment = std::move(segment);
  if (peer->wanted) missing_--;
  news_ = true;
  for (auto& [key, link] : links_) {
    if (key.first != peer->rank) continue;
    if (Status status = link->attach(context_.rank); !status.is_ok()) {
      return lose(peer, status.context("{}", peer->text()).widen(Scope::link));
    }
  }
  // Space we returned before we knew its bell may be what it sleeps for.
  peer->segment->bell()->ring();
}

void ShmTransport::lose(Peer* peer, Status why) {
  if (!peer->lost.is_ok()) return;
  if (peer->segment == nullptr && peer->wanted) missing_--;
  peer->lost = std::move(why);
  peer->socket.reset();
  news_ = true;
  log::info("shm: rank {} lost {}", context_.rank, peer->lost.text());
}

Status usable(const Context& context) {
  if (context.settings.shm_disable) {
    return Status(Code::unsupported, "shared memory is switched off (NCCL_SHM_DISABLE)");
  }
  // Tried in earnest: a sandbox may forbid memfd_create, limits may be too low.
  const auto attempt = ShmSegment::create({context.job, context.rank, context.ranks});
  return attempt.is_ok() ? ok() : attempt.status();
}

Result<std::unique_ptr<Transport>> create(const Context& context) {
  if (context.settings.shm_disable) return usable(context);
  RAILCCL_TRY(std::shared_ptr<ShmSegment> mine,
              ShmSegment::create({context.job, context.rank, context.ranks}));
  RAILCCL_TRY(UniqueFd listener, shm_listen(mine->key()));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error(errno, "shm: epoll");
  return std::unique_ptr<Transport>(std::make_unique<ShmTransport>(
      context, std::move(mine), std::move(listener), std::move(epoll)));
}

}  // namespace

RAILCCL_TRANSPORT(shm){"shm", 50, usable, create};

}  // namespace railccl::transport
