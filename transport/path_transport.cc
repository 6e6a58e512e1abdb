// Links, upkeep, waiting.
#include "transport/path_transport.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

#include "base/clock.h"

namespace railccl::transport {
namespace {

constexpr int64_t kUpkeepNs = 2'000'000;    // how often links over several paths are looked after
constexpr int64_t kReportNs = 100'000'000;  // how often others are told how paths are
// Where events are polled for, the descriptors are looked at once in so many times.
constexpr unsigned kPollsPerLook = 16;

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

}  // namespace

Status PathTransport::watch(int fd, size_t index) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = static_cast<uint64_t>(watched_[index].generation) << 32 | index;
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return system_error(errno, fmt::format("{}: epoll cannot watch a socket", name()));
  }
  return ok();
}

size_t PathTransport::new_entry(Watched::Kind kind) {
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
void PathTransport::drop(size_t index) {
  const uint32_t generation = watched_[index].generation + 1;
  std::erase(strangers_, index);
  watched_[index] = Watched();
  watched_[index].generation = generation;
  free_.push_back(index);
  unfinished_--;
}

Status PathTransport::start() {
  RAILCCL_CHECK(watch(wake_.get(), new_entry(Watched::Kind::wake)));
  for (const int descriptor : maker_->descriptors()) {
    const size_t index = new_entry(Watched::Kind::maker);
    watched_[index].descriptor = descriptor;
    RAILCCL_CHECK(watch(descriptor, index));
  }
  return ok();
}

Status PathTransport::set_peers(const Peers& peers) {
  const size_t ranks = static_cast<size_t>(context_.ranks);
  if (peers.addresses.size() != ranks || peers.host_ids.size() != ranks) {
    return Status(Code::invalid_argument, "{}: {} addresses for {} ranks", name(),
                  peers.addresses.size(), ranks);
  }
  std::vector<std::optional<MetPlaces>> all(ranks);
  for (size_t r = 0; r < ranks; r++) {
    if (peers.addresses[r].empty()) continue;  // it lacks the medium
    all[r] = maker_->read_address(peers.addresses[r]);
    if (!all[r]) return Status(Code::remote, "{}: the address of rank {} is malformed", name(), r);
  }
  // The NICs that the topology gives to ranks come first: ranks of one rail so meet on it.
  const auto nearest_first = [&](std::vector<TcpEndpoint>& endpoints, size_t rank) {
    if (rank >= peers.nics.size()) return;
    std::stable_partition(endpoints.begin(), endpoints.end(), [&](const TcpEndpoint& endpoint) {
      return endpoint.interface == peers.nics[rank];
    });
  };
  const auto set_rails = [&](std::vector<TcpEndpoint>& endpoints, size_t rank) {
    if (!peers.rail_of) return;
    for (TcpEndpoint& endpoint : endpoints)
      endpoint.rail = peers.rail_of(static_cast<int>(rank), endpoint.interface);
  };
  for (size_t r = 0; r < ranks; r++) {
    if (!all[r]) continue;
    nearest_first(all[r]->endpoints, r);
    set_rails(all[r]->endpoints, r);
  }
  nearest_first(endpoints_, static_cast<size_t>(context_.rank));
  set_rails(endpoints_, static_cast<size_t>(context_.rank));
  // Whom no pair of interfaces leads to, another medium may reach; both sides see it alike.
  for (size_t r = 0; r < ranks; r++) {
    const bool same_host = peers.host_ids[r] == context_.host_id;
    if (all[r] && maker_->pairs(endpoints_, all[r]->endpoints, same_host).empty()) all[r].reset();
  }
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

PathTransport::Line& PathTransport::find_line(int peer, int channel) {
  Line& line = lines_[{peer, channel}];
  if (line.link == nullptr) {
    line.link = std::make_unique<TcpLink>(&abort_, name(), peer, channel, "not connected");
    if (context_.rank < peer) dial(line);
  }
  return line;
}

Result<Link*> PathTransport::link(int peer, int channel) {
  if (!reaches(peer)) {
    return Status(Code::invalid_argument, "{} does not reach rank {} from rank {}", name(), peer,
                  context_.rank);
  }
  if (channel < 0 || channel >= kChannelsMax) {
    return Status(Code::invalid_argument, "{} has no channel {}", name(), channel);
  }
  return static_cast<Link*>(find_link(peer, channel));
}

// Looks after links over several paths: silent ones, lost ones, and what NICs carry.
void PathTransport::keep_up(int64_t now_ns) {
  next_upkeep_ns_ = now_ns + kUpkeepNs;
  std::vector<TcpLink::NicLoad> loads;
  const bool measure = nics_.measure_now(now_ns);
  for (auto& [key, line] : lines_) {
    TcpLink& link = *line.link;
    if (!link.striped() || link.failed()) continue;
    link.watch(now_ns);
    while (const auto news = link.take_news()) nics_.tell(link, *news, now_ns);
    link.add_loads(&loads, measure, now_ns);
    for (size_t lane = 0; lane < line.redials.size(); lane++) {
      Line::Redial& redial = line.redials[lane];
      const int number = static_cast<int>(lane);
      if (link.lane_works(number) && !link.doubted(number)) {
        redial.pause_ns = kRedialNs;
        redial.next_ns = now_ns + kRedialNs;
      } else if (!redial.dialling && now_ns >= redial.next_ns) {
        // A failure is one more reason to try again later.
        if (Status status = dial_lane(line, number, link.lane_taken(number)); !status.is_ok())
          continue;
      }
    }
  }
  nics_.observe(loads, measure, now_ns);
  if (now_ns < next_report_ns_) return;
  next_report_ns_ = now_ns + kReportNs;
  std::vector<PathState> states;
  for (const auto& [key, line] : lines_) line.link->add_states(&states);
  path_log_.set(std::move(states));
}

std::vector<NicSpeed> PathTransport::speeds() const {
  std::vector<NicSpeed> speeds = nics_.measured();
  const int64_t now = now_ns();
  for (NicSpeed& speed : speeds) {
    // A peer that one of several links has lost is lost.
    std::map<int, bool> works;
    for (const auto& [key, line] : lines_) {
      if (!line.link->striped() || line.link->failed()) continue;
      const TcpLink::Reach reach = line.link->reach(speed.nic, now);
      if (reach == TcpLink::Reach::unknown) continue;
      const auto found = works.try_emplace(line.link->peer(), true).first;
      found->second &= reach == TcpLink::Reach::works;
    }
    for (const auto& [peer, good] : works) (good ? speed.working : speed.missing).push_back(peer);
  }
  std::erase_if(speeds, [](const NicSpeed& speed) {
    return speed.bytes_per_s == 0 && speed.working.empty() && speed.missing.empty();
  });
  return speeds;
}

bool PathTransport::settled() {
  if (several_paths_) keep_up(now_ns());
  return std::all_of(lines_.begin(), lines_.end(), [](auto& line) {
    return line.second.link->failed() || !line.second.link->pending();
  });
}

// How long to sleep at most without letting a link over several paths wait.
int64_t PathTransport::rest_us(int64_t timeout_us) const {
  timeout_us = maker_->rest_us(timeout_us);
  if (unfinished_ > 0) timeout_us = std::min(timeout_us, kSweepMs * 1000);
  if (!several_paths_) return timeout_us;
  for (const auto& [key, line] : lines_) {
    const int64_t rest_ns = line.link->rest_ns();
    if (rest_ns >= 0) timeout_us = std::min(timeout_us, rest_ns / 1000);
  }
  return std::min(timeout_us, kSweepMs * 1000);
}

void PathTransport::wait(int64_t timeout_us) {
  if (abort_.raised()) return;
  if (!news_ && maker_->arm()) {
    go_on();
    return;
  }
  if (!news_) poll(rest_us(timeout_us));
  // Events that an earlier progress() took may be what the caller has not looked at since.
  news_ = false;
}

void PathTransport::poll(int64_t timeout_us) {
  constexpr int kBatch = 64;
  epoll_event events[kBatch];
  const bool polled = maker_->polled();
  if (polled && maker_->poll()) {
    go_on();
    timeout_us = 0;  // no descriptor may tell what has been taken
  }
  while (!polled || timeout_us > 0 || unfinished_ > 0 || polls_++ % kPollsPerLook == 0) {
    const int count = timeout_us > 0 ? sleep_in_epoll(epoll_.get(), events, kBatch, timeout_us)
                                     : epoll_wait(epoll_.get(), events, kBatch, 0);
    for (int i = 0; i < count; i++) handle(events[i]);
    if (count > 0) news_ = true;
    if (count < kBatch) break;
    timeout_us = 0;
  }
  if (unfinished_ > 0) look_for_proof();
  if (unfinished_ == 0 && !accept_later_ && !several_paths_) return;
  const int64_t now = now_ns();
  if ((unfinished_ > 0 || accept_later_) && now >= next_sweep_ns_) sweep();
  if (several_paths_ && now >= next_upkeep_ns_) keep_up(now);
}

// Links may have got room, or bytes across, and callers something to look at.
void PathTransport::go_on() {
  news_ = true;
  if (!several_paths_) return;
  for (auto& [key, line] : lines_) line.link->go_on();
}

void PathTransport::handle(const epoll_event& event) {
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
    case Watched::Kind::maker:
      maker_->on_descriptor(entry.descriptor);
      return go_on();
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

Result<std::unique_ptr<Transport>> make_path_transport(const Context& context,
                                                       std::vector<TcpEndpoint> control,
                                                       std::unique_ptr<PathMaker> maker) {
  RAILCCL_TRY(TcpListener listener, tcp_listen(control));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error(errno, fmt::format("{}: epoll", maker->medium()));
  UniqueFd wake(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!wake) return system_error(errno, fmt::format("{}: eventfd", maker->medium()));
  auto transport =
      std::make_unique<PathTransport>(context, std::move(control), std::move(maker),
                                      std::move(listener), std::move(epoll), std::move(wake));
  RAILCCL_CHECK(transport->start());
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace railccl::transport
