// A link's sockets, and moving its bytes through them.
#include "transport/tcp_link.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "base/clock.h"

namespace railccl::transport {
namespace {

constexpr size_t kStageBytes = 256 << 10;
// What a small read fetches beyond what was asked for: a header's system call then brings a short
// message with it.
constexpr size_t kReadAhead = 4 << 10;
constexpr size_t kReplacedMax = 16;

}  // namespace

TcpLink::TcpLink(const AbortFlag* abort, const char* medium, int peer, int channel,
                 std::string detail)
    : abort_(abort), medium_(medium), peer_(peer), channel_(channel), detail_(std::move(detail)) {}

std::string TcpLink::name() const {
  return fmt::format("{} to rank {} ({}) channel {}", medium_, peer_, detail_, channel_);
}

bool TcpLink::lane_taken(int lane) const {
  return static_cast<size_t>(lane) < by_lane_.size() && by_lane_[static_cast<size_t>(lane)].taken;
}

bool TcpLink::lane_works(int lane) const {
  for (size_t i = 0; i < paths_.size(); i++) {
    const Place& place = paths_[i];
    if (!place.socket || place.lane != lane || place.replaced) continue;
    return !striped() || sender_.usable(static_cast<int>(i));
  }
  return false;
}

Result<int> TcpLink::add_socket(int lane, bool home, std::unique_ptr<NicPath> socket) {
  if (!stage_) {
    RAILCCL_TRY(stage_, Mirrored::create(kStageBytes));
  }
  const int64_t now = now_ns();
  size_t replaced = 0;
  for (size_t i = 0; i < paths_.size(); i++) {
    Place& place = paths_[i];
    if (!place.socket) continue;
    if (place.lane == lane && !place.replaced) {
      sender_.retire(static_cast<int>(i));
      place.socket->close_writing();
      place.replaced = true;
      working_--;
    }
    // Of a rail that flaps for hours not every old socket is worth a descriptor.
    if (place.replaced && ++replaced > kReplacedMax) drop_path(static_cast<int>(i));
  }
  size_t path = 0;
  while (path < paths_.size() && paths_[path].socket) path++;
  if (path == paths_.size()) paths_.emplace_back();
  if (home || detail_.empty() || working_ == 0) detail_ = socket->name();
  paths_[path] = {std::move(socket), lane, home, false, {}, 0};
  if (striped()) {
    sender_.add(static_cast<int>(path), paths_[path].socket.get(), home, now);
    receiver_.add(static_cast<int>(path), paths_[path].socket.get());
  }
  by_lane_[static_cast<size_t>(lane)] = {
      .nic = paths_[path].socket->nic(), .home = home, .taken = true, .fresh = true};
  working_++;
  if (first_ns_ == 0) first_ns_ = now;
  alone_ns_ = 0;
  return static_cast<int>(path);
}

void TcpLink::on_events(int path, uint32_t events) {
  if (!has_path(path)) return;
  paths_[static_cast<size_t>(path)].socket->on_events(events);
  go_on();
}

void TcpLink::go_on() {
  if (!striped()) return;
  (void)sender_.flush(now_ns());
  gather_losses();
}

bool TcpLink::pending() {
  if (striped()) return sender_.pending();
  return connected() && !paths_[0].socket->settled();
}

void TcpLink::fail(const std::string& why, Code code) {
  const Status status(code, Scope::link, "{}: {}", name(), why);
  if (send_failure_.is_ok()) send_failure_ = status;
  if (receive_failure_.is_ok()) receive_failure_ = status;
}

void TcpLink::drop_path(int path) {
  Place& place = paths_[static_cast<size_t>(path)];
  if (!place.replaced) working_--;
  sender_.remove(path);
  receiver_.remove(path);
  place = Place();
}

// A path that can no longer be read from. When the last one was closed or reset, the peer's process
// is gone: no network does that to all of them.
void TcpLink::lose_path(int path, const Status& why) {
  Place& place = paths_[static_cast<size_t>(path)];
  if (!place.replaced) {
    PathNews news{.what = PathNews::What::broken, .path = path, .why = why};
    news_.push_back({std::move(news), place.socket->nic(), place.socket->name()});
  }
  const bool peer_closed = place.socket->closed_by_peer();
  drop_path(path);
  if (working_ > 0) return;
  if (peer_closed) return fail(why.text());
  if (alone_ns_ == 0) alone_ns_ = now_ns();
}

void TcpLink::gather_losses() {
  while (auto lost = receiver_.take_lost()) {
    if (has_path(lost->first)) lose_path(lost->first, lost->second);
  }
  while (auto news = sender_.take_news()) {
    if (!has_path(news->path)) continue;
    const Place& place = paths_[static_cast<size_t>(news->path)];
    news_.push_back({std::move(*news), place.socket->nic(), place.socket->name()});
  }
}

std::optional<TcpLink::News> TcpLink::take_news() {
  if (news_.empty()) return std::nullopt;
  News news = std::move(news_.front());
  news_.pop_front();
  return news;
}

void TcpLink::watch(int64_t now) {
  if (!striped() || failed()) return;
  sender_.watch(now);
  gather_losses();
  for (Place& place : paths_)
    if (place.socket && !place.replaced) (void)place.socket->measure();
  if (now - compared_ns_ >= kLostNs) {
    compared_ns_ = now;
    compare_arrivals();
  }
  if (alone_ns_ != 0 && now - alone_ns_ > kReunionNs)
    fail("no path to it came back in time", Code::timeout);
}

void TcpLink::compare_arrivals() {
  bool by_spare = false;
  for (const Place& place : paths_)
    by_spare |= place.socket && !place.home && place.socket->received() > place.received;
  for (Place& place : paths_) {
    if (!place.socket || place.replaced) continue;
    bool& doubted = by_lane_[static_cast<size_t>(place.lane)].doubted;
    const bool came = place.socket->received() > place.received;
    doubted = place.home && !came && (doubted || by_spare);
    place.received = place.socket->received();
  }
}

int64_t TcpLink::rest_ns() const { return striped() ? sender_.rest_ns() : -1; }

void TcpLink::add_loads(std::vector<NicLoad>* loads, bool with_usage, int64_t now_ns) {
  const auto load_of = [&](const std::string& nic) -> NicLoad& {
    for (NicLoad& load : *loads)
      if (load.nic == nic) return load;
    loads->push_back({.nic = nic, .usage = {}});
    return loads->back();
  };
  for (int lane = 0; lane < lanes_; lane++) {
    Lane& known = by_lane_[static_cast<size_t>(lane)];
    // The far end answers on another lane: it is there.
    const bool never_came = known.expected && first_ns_ != 0 && now_ns - first_ns_ >= kNeverCameNs;
    if (!known.taken && !never_came) continue;
    if (lane_works(lane)) {
      known.missing_since_ns = 0;
      continue;
    }
    if (known.missing_since_ns == 0) known.missing_since_ns = now_ns;
    load_of(known.nic).missing = true;
  }
  for (Place& place : paths_) {
    if (!with_usage || !place.socket || place.replaced) continue;
    const NicPath::Usage now = place.socket->usage();
    NicPath::Usage& sum = load_of(place.socket->nic()).usage;
    sum.bytes += now.bytes_since(place.seen);
    sum.busy |= now.busy;
    sum.waited_us += now.waited_us - place.seen.waited_us;
    place.seen = now;
  }
}

TcpLink::Reach TcpLink::reach(const std::string& nic, int64_t now_ns) const {
  Reach reach = Reach::unknown;
  for (const Lane& lane : by_lane_) {
    if (lane.nic != nic) continue;
    if (lane.missing_since_ns != 0 && now_ns - lane.missing_since_ns >= kLostNs)
      return Reach::missing;
    if (lane.fresh) reach = Reach::works;
  }
  for (size_t i = 0; i < paths_.size(); i++) {
    const Place& place = paths_[i];
    if (place.socket && !place.replaced && place.socket->nic() == nic &&
        sender_.proven(static_cast<int>(i)))
      reach = Reach::works;
  }
  return reach;
}

void TcpLink::look_anew() {
  sender_.look_anew();
  for (Lane& lane : by_lane_) lane.fresh = false;
}

void TcpLink::add_states(std::vector<PathState>* states) const {
  for (int lane = 0; striped() && lane < lanes_; lane++) {
    const Lane& known = by_lane_[static_cast<size_t>(lane)];
    if (!known.taken) continue;
    PathState state{.peer = peer_, .channel = channel_, .nic = known.nic, .far = {}};
    state.home = known.home;
    state.what = PathState::What::lost;
    for (size_t i = 0; i < paths_.size(); i++) {
      const Place& place = paths_[i];
      if (!place.socket || place.replaced || place.lane != lane) continue;
      state.far = place.socket->name().substr(0, place.socket->name().find(','));
      state.what =
          sender_.usable(static_cast<int>(i)) ? PathState::What::works : PathState::What::silent;
      state.bytes_per_s = place.socket->bytes_per_s();
      state.bytes_sent = place.socket->written();
    }
    states->push_back(std::move(state));
  }
}

// Is there a path to send by? A home path is waited for a moment before others take its work.
bool TcpLink::may_begin(int64_t now) {
  if (sender_.has_home()) return true;
  return sender_.has_usable() && now - first_ns_ >= kHomeFirstNs;
}

Result<size_t> TcpLink::send(std::span<const iovec> ranges) {
  assert(ranges.size() <= 4);
  if (abort_->raised()) return abort_->why();
  if (!send_failure_.is_ok()) return send_failure_;
  if (!connected()) return size_t{0};
  if (!striped()) {
    Result<size_t> sent = paths_[0].socket->write(ranges);
    if (sent.is_ok()) {
      accepted_ += *sent;
    } else {
      send_failure_ = sent.status().context("{}", name());
    }
    return sent.is_ok() ? sent : send_failure_;
  }
  const int64_t now = now_ns();
  if (!may_begin(now)) return size_t{0};
  Result<size_t> sent = sender_.send(ranges, now);
  gather_losses();
  return sent;
}

uint64_t TcpLink::released() const {
  if (striped()) return sender_.released();
  return connected() ? paths_[0].socket->released() : accepted_;
}

Result<bool> TcpLink::flush() {
  if (abort_->raised()) return abort_->why();
  if (!send_failure_.is_ok()) return send_failure_;
  if (!striped()) return !connected() || paths_[0].socket->flushed();
  bool empty = sender_.flush(now_ns());
  gather_losses();
  for (const Place& place : paths_)
    if (place.socket && !place.replaced) empty &= place.socket->flushed();
  return empty;
}

Result<std::span<const std::byte>> TcpLink::peek(size_t want) {
  if (abort_->raised()) return abort_->why();
  if (connected() && staged() < want && stage_room() > 0) {
    const size_t fetched = std::min(std::max(want - staged(), kReadAhead), stage_room());
    // A failure is kept and shown below, once what came before it has been taken.
    if (Result<size_t> got = fetch(stage_end(), fetched, false); got.is_ok()) stage_tail_ += *got;
  }
  if (!receive_failure_.is_ok() && staged() < want) {
    if (staged() == 0 || staged() == last_view_) return receive_failure_;
    last_view_ = staged();
  }
  if (!stage_) return std::span<const std::byte>();
  return std::span<const std::byte>(stage_.data() + (stage_head_ & (stage_.size() - 1)), staged());
}

void TcpLink::consume(size_t bytes) {
  assert(bytes <= staged());
  stage_head_ += bytes;
  last_view_ = kNoView;
}

size_t TcpLink::take_staged(std::byte* dst, size_t bytes) {
  const size_t taken = std::min(bytes, staged());
  if (taken == 0) return 0;
  std::memcpy(dst, stage_.data() + (stage_head_ & (stage_.size() - 1)), taken);
  stage_head_ += taken;
  last_view_ = kNoView;
  return taken;
}

Result<size_t> TcpLink::receive(void* dst, size_t bytes) {
  if (abort_->raised()) return abort_->why();
  auto* to = static_cast<std::byte*>(dst);
  size_t done = take_staged(to, bytes);
  while (done < bytes && connected() && receive_failure_.is_ok()) {
    Result<size_t> got = fetch(to + done, bytes - done, true);
    if (!got.is_ok() || *got == 0) break;
    done += *got;
  }
  if (done == 0 && bytes > 0 && !receive_failure_.is_ok()) return receive_failure_;
  return done;
}

Result<size_t> TcpLink::fetch(std::byte* dst, size_t want, bool ahead) {
  if (!receive_failure_.is_ok()) return receive_failure_;
  Result<size_t> got = striped() ? receiver_.fetch(dst, want) : fetch_plain(dst, want, ahead);
  if (!got.is_ok()) {
    receive_failure_ = got.status().context("{}", name());
    // Nobody closes one direction only: what cannot be read from takes no bytes either.
    if (send_failure_.is_ok()) send_failure_ = receive_failure_;
    return receive_failure_;
  }
  if (striped()) gather_losses();
  return got;
}

Result<size_t> TcpLink::fetch_plain(std::byte* dst, size_t want, bool ahead) {
  const iovec ranges[2] = {{dst, want}, {stage_end(), ahead ? kReadAhead : 0}};
  RAILCCL_TRY(const size_t got, paths_[0].socket->read({ranges, ahead ? 2u : 1u}));
  if (got <= want) return got;
  stage_tail_ += got - want;
  return want;
}

}  // namespace railccl::transport
