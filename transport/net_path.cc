// Connecting, writing, reading, telling.
#include "transport/net_path.h"

#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"

namespace railccl::transport {
namespace {

constexpr std::byte kGivenUp{'x'};
constexpr int kTag = 0;  // one stream per pair of connections
// What a far end that has gone wrote may come later than the end of its process shows.
constexpr int64_t kLingerNs = 50'000'000;
// A plugin may notice that end before its connection does: so long it is in doubt what has failed.
constexpr int64_t kDoubtNs = kLingerNs;
constexpr uint64_t kMeasuredBytes = 512 << 10, kMeasuredBytesAmple = 64 << 20;
constexpr int64_t kMeasuredNs = 50'000'000;

Result<Mapping> make_memory(size_t bytes) {
  void* const made =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (made == MAP_FAILED) return system_error(errno, "no memory for messages");
  return Mapping(made, bytes);
}

}  // namespace

Result<std::unique_ptr<NetPath>> NetPath::make(std::shared_ptr<MessageNet> net,
                                               const NetDevice* device, NetKeeper* keeper) {
  std::unique_ptr<NetPath> path(new NetPath(std::move(net), device, keeper));
  path->message_bytes_ = static_cast<uint32_t>(std::min<size_t>(kMessageBytes, device->bytes_max));
  if (!secret_bytes(&path->secret_, sizeof(path->secret_)))
    return system_error(errno, "no secret for a path");
  RAILCCL_TRY(path->out_, make_memory((kData + kControls) * kMessageBytes));
  RAILCCL_TRY(path->in_, make_memory(kReceives * kMessageBytes));
  for (size_t place = 0; place < kReceives; place++) path->idle_.push_back(place);
  RAILCCL_TRY(path->listener_, path->net_->listen(device->number, &path->handle_));
  return path;
}

NetPath::~NetPath() {
  keeper_->remove(this);
  if (!broken_.is_ok()) give_up();
  if (let_go()) return;
  // The network may still write there.
  new Mapping(std::move(in_));
  new Mapping(std::move(out_));
}

// Closes everything; false when the network does not let go of our memory.
bool NetPath::let_go() {
  bool all = true;
  const auto look = [&](const Status& status) {
    if (status.is_ok()) return;
    log::info("{}", status.text());
    all = false;
  };
  if (sender_ != nullptr) look(net_->quit(sender_));
  if (receiver_ != nullptr) look(net_->quit(receiver_));
  if (out_enrolled_ && all) look(net_->dismiss(sender_, out_memory_));
  if (in_enrolled_ && all) look(net_->dismiss(receiver_, in_memory_));
  if (sender_ != nullptr) look(net_->close_send(sender_));
  if (receiver_ != nullptr) look(net_->close_receive(receiver_));
  if (listener_ != nullptr) look(net_->close_listen(listener_));
  return all;
}

NetCard NetPath::card(uint16_t far_device) const {
  const auto handle = std::span(handle_.bytes).first(net_->handle_bytes());
  return {far_device, secret_, message_bytes_, device_->nic, {handle.begin(), handle.end()}};
}

Status NetPath::meet(const NetCard& theirs) {
  if (theirs.handle.size() != net_->handle_bytes())
    return wrong("the far end's handle has another size");
  theirs_ = theirs;
  std::copy(theirs.handle.begin(), theirs.handle.end(), their_handle_.bytes.begin());
  met_ = true;
  return ok();
}

Status NetPath::connect_sender() {
  if (sender_ == nullptr) {
    RAILCCL_TRY(sender_, net_->connect(device_->number, &their_handle_));
    if (sender_ == nullptr) return ok();
  }
  if (!out_enrolled_) {
    RAILCCL_TRY(out_memory_, net_->enroll(sender_, out_.get(), out_.size()));
    out_enrolled_ = true;
  }
  const size_t place = free_place(kData, kData + kControls);
  if (knocked_ || place == kNone) return ok();
  RAILCCL_TRY(knocked_, post(place, {.kind = NetHeader::Kind::knock}));
  return ok();
}

Status NetPath::accept_receiver() {
  if (receiver_ == nullptr) {
    RAILCCL_TRY(receiver_, net_->accept(listener_));
    if (receiver_ == nullptr) return ok();
    void* const listener = std::exchange(listener_, nullptr);
    RAILCCL_CHECK(net_->close_listen(listener));
  }
  if (!in_enrolled_) {
    RAILCCL_TRY(in_memory_, net_->enroll(receiver_, in_.get(), in_.size()));
    in_enrolled_ = true;
  }
  RAILCCL_CHECK(post_receives());
  return look_at_receives();
}

Result<bool> NetPath::proven() {
  if (!met_) return false;
  if (broken_.is_ok()) fail(connect_sender());
  if (broken_.is_ok()) fail(accept_receiver());
  // What came before a failure counts: the link reads it, and then sees the failure.
  if (!broken_.is_ok() && !(proven_ && knocked_)) return broken_;
  return proven_ && knocked_;
}

void NetPath::keep(UniqueFd connection, bool one_of_several) {
  connection_ = std::move(connection);
  one_of_several_ = one_of_several;
  name_ = fmt::format("{} of {}, {}", theirs_.nic, net_->name(), device_->nic);
  keeper_->add(this);
}

Status NetPath::wrong(const std::string& what) const {
  return Status(Code::remote, Scope::link, "{}: {}", net_->title(), what);
}

// Breaks with the path, unless all is well.
void NetPath::fail(const Status& why) {
  if (why.is_ok()) return;
  broken_ = why;
  broken_ns_ = now_ns();
}

Status NetPath::post_receives() {
  while (!idle_.empty()) {
    const size_t place = idle_.front();
    const NetReceive wanted{in(place), message_bytes_, kTag, in_memory_};
    RAILCCL_TRY(void* const request, net_->receive(receiver_, {&wanted, 1}));
    if (request == nullptr) return ok();
    idle_.pop_front();
    receives_.emplace_back(place, request);
  }
  return ok();
}

Status NetPath::look_at_receives() {
  while (!receives_.empty()) {
    const auto [place, request] = receives_.front();
    std::array<int, MessageNet::kGroupMax> bytes;
    bytes.fill(-1);
    RAILCCL_TRY(const bool done, net_->test(request, bytes));
    if (!done) return ok();
    receives_.pop_front();
    RAILCCL_CHECK(on_message(place, bytes[0]));
  }
  return ok();
}

Status NetPath::on_message(size_t place, int bytes) {
  if (bytes < 0 || static_cast<uint32_t>(bytes) > message_bytes_)
    return wrong(
        fmt::format("it claims that {} bytes came in a place for {}", bytes, message_bytes_));
  const auto header = decode_net_header({in(place), static_cast<size_t>(bytes)});
  if (!header) return wrong("what came is not a message of ours");
  if ((header->kind == NetHeader::Kind::knock) == proven_)
    return wrong("a message came out of turn");
  if (header->kind == NetHeader::Kind::knock) {
    if (header->arrived != secret_) return wrong("a stranger has connected");
    proven_ = true;
    idle_.push_back(place);
    return post_receives();
  }
  if (header->arrived > written_ || header->freed > posted_)
    return wrong("the far end has got more than was sent");
  if (header->arrived > acknowledged_ || header->arrived == written_) asking_ = false;
  acknowledged_ = std::max(acknowledged_, header->arrived);
  credit_ = std::max(credit_, header->freed + kData);
  asked_ |= header->ask;
  if (header->kind == NetHeader::Kind::control) {
    idle_.push_back(place);
    return post_receives();
  }
  if (arrived_queue_.size() >= kData) return wrong("the far end sends more than was granted");
  arrived_ += header->bytes;
  arrived_queue_.push_back({place, kNetHeaderBytes, kNetHeaderBytes + header->bytes});
  return ok();
}

Status NetPath::look_at_sends() {
  while (!sent_.empty()) {
    std::array<int, MessageNet::kGroupMax> bytes{};
    RAILCCL_TRY(const bool done, net_->test(sent_.front().request, bytes));
    if (!done) return ok();
    taken_[sent_.front().place] = false;
    sent_bytes_ += sent_.front().bytes;
    sent_.pop_front();
  }
  if (busy_since_ns_ == 0) return ok();
  busy_ns_ += now_ns() - busy_since_ns_;
  busy_since_ns_ = 0;
  return ok();
}

size_t NetPath::free_place(size_t from, size_t to) const {
  for (size_t place = from; place < to; place++)
    if (!taken_[place]) return place;
  return kNone;
}

uint32_t NetPath::room() const {
  return std::min(message_bytes_, theirs_.message_bytes) - static_cast<uint32_t>(kNetHeaderBytes);
}

// Hands a message to the plugin; false when it takes none now.
Result<bool> NetPath::post(size_t place, NetHeader header) {
  const bool knock = header.kind == NetHeader::Kind::knock;
  header.ask = ask_;
  header.arrived = knock ? theirs_.secret : arrived_;
  header.freed = freed_;
  const NetHeaderBytes bytes = encode(header);
  std::memcpy(out(place), bytes.data(), bytes.size());
  RAILCCL_TRY(void* const request,
              net_->send(sender_, out(place), bytes.size() + header.bytes, kTag, out_memory_));
  if (request == nullptr) return false;
  taken_[place] = true;
  sent_.push_back({place, request, header.bytes});
  if (busy_since_ns_ == 0) busy_since_ns_ = now_ns();
  if (knock) return true;
  ask_ = asked_ = false;
  told_arrived_ = arrived_;
  told_freed_ = freed_;
  return true;
}

Status NetPath::post_open() {
  if (open_ == kNone || posted_ >= credit_) return ok();
  RAILCCL_TRY(const bool gone, post(open_, {.bytes = static_cast<uint32_t>(open_bytes_)}));
  if (!gone) return ok();
  posted_++;
  open_ = kNone;
  return ok();
}

bool NetPath::owes() const {
  return asked_ || ask_ || freed_ - told_freed_ >= kData / 2 ||
         (one_of_several_ && told_arrived_ != arrived_);
}

Status NetPath::post_control() {
  if (!owes()) return ok();
  // Who has read all that it wanted may not call again for long, and its keeper takes a while.
  if (free_place(kData, kData + kControls) == kNone) RAILCCL_CHECK(look_at_sends());
  const size_t place = free_place(kData, kData + kControls);
  if (place == kNone) return ok();
  return post(place, {.kind = NetHeader::Kind::control}).status();
}

Status NetPath::hear() {
  Status status = post_receives();
  if (status.is_ok()) status = look_at_receives();
  deaf_ |= !status.is_ok();
  return status;
}

Status NetPath::advance() {
  RAILCCL_CHECK(hear());
  RAILCCL_CHECK(look_at_sends());
  RAILCCL_CHECK(net_->state(sender_));
  RAILCCL_CHECK(post_open());
  return post_control();
}

bool NetPath::poll() {
  bool news = false;
  if (broken_.is_ok()) {
    const size_t sends = sent_.size();
    const uint64_t before = arrived_ + acknowledged_ + credit_;
    fail(advance());
    news =
        !broken_.is_ok() || sent_.size() != sends || arrived_ + acknowledged_ + credit_ != before;
  }
  // What has come before what is sent fails counts, too: a far end that has all it wanted may go.
  if (!broken_.is_ok() && !over_ && !deaf_) {
    const uint64_t before = arrived_;
    (void)hear();
    news |= arrived_ != before;
  }
  // Once more when its end is certain, and then never again: others may want to sleep.
  const int64_t end_ns = std::max(closed_ns_, broken_ns_);
  if (over_ || end_ns == 0 || now_ns() - end_ns <= std::max(kLingerNs, kDoubtNs)) return news;
  return over_ = true;
}

bool NetPath::unfinished() const {
  return broken_.is_ok() && closed_ns_ == 0 && (open_ != kNone || !sent_.empty() || owes());
}

uint64_t NetPath::acknowledged() {
  const auto held = keeper_->lock();
  return acknowledged_;
}

Result<size_t> NetPath::write(std::span<const iovec> ranges) {
  const auto held = keeper_->lock();
  if (!broken_.is_ok() || closed_ns_ != 0) {
    const Status over = verdict();
    return over.is_ok() ? Result<size_t>(size_t{0}) : Result<size_t>(over);
  }
  size_t taken = 0;
  for (const iovec& range : ranges) {
    const auto* from = static_cast<const std::byte*>(range.iov_base);
    size_t left = range.iov_len;
    while (left > 0) {
      if (open_ == kNone) {
        open_ = free_place(0, kData);
        open_bytes_ = 0;
        if (open_ == kNone) return taken;
      }
      const size_t bytes = std::min<size_t>(left, room() - open_bytes_);
      if (bytes == 0) return taken;
      std::memcpy(out(open_) + kNetHeaderBytes + open_bytes_, from, bytes);
      open_bytes_ += bytes;
      from += bytes;
      left -= bytes;
      taken += bytes;
      written_ += bytes;
      if (open_bytes_ < room()) continue;
      fail(post_open());
      if (!broken_.is_ok()) return taken;
    }
  }
  fail(post_open());
  return taken;
}

Result<size_t> NetPath::read(std::span<const iovec> ranges) {
  const auto held = keeper_->lock();
  if (arrived_queue_.empty()) {
    const Status over = verdict();
    return over.is_ok() ? Result<size_t>(size_t{0}) : Result<size_t>(over);
  }
  size_t done = 0;
  for (const iovec& range : ranges) {
    auto* to = static_cast<std::byte*>(range.iov_base);
    size_t left = range.iov_len;
    while (left > 0 && !arrived_queue_.empty()) {
      Arrived& first = arrived_queue_.front();
      const size_t bytes = std::min(left, first.end - first.at);
      std::memcpy(to, in(first.place) + first.at, bytes);
      first.at += bytes;
      to += bytes;
      left -= bytes;
      done += bytes;
      if (first.at < first.end) continue;
      idle_.push_back(first.place);
      arrived_queue_.pop_front();
      freed_++;
    }
  }
  read_ += done;
  // What fails now shows when all that came has been read.
  if (broken_.is_ok()) fail(post_receives());
  if (broken_.is_ok()) fail(post_control());
  return done;
}

// Why nothing more goes or comes; ok as long as that is not known.
Status NetPath::verdict() {
  if (!broken_.is_ok()) look_at_connection();
  const int64_t now = now_ns();
  const bool left = closed_ns_ != 0 && now - closed_ns_ > kLingerNs;
  if (closed_by_peer_ && (left || !broken_.is_ok()))
    return Status(Code::remote, Scope::link, "connection closed by peer");
  if (!broken_.is_ok() && (closed_ns_ != 0 || now - broken_ns_ > kDoubtNs)) {
    give_up();
    return broken_;
  }
  if (left) return Status(Code::remote, Scope::link, "the far end gave the path up");
  return ok();
}

void NetPath::on_events(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0) return;
  const auto held = keeper_->lock();
  look_at_connection();
}

void NetPath::look_at_connection() {
  while (closed_ns_ == 0) {
    std::array<std::byte, 16> words;
    const ssize_t got = ::recv(connection_.get(), words.data(), words.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    closed_ns_ = now_ns();
    // A reset tells no more than that both ends gave up at once: the processes' ends are in order.
    closed_by_peer_ = got == 0;
  }
}

// Tells the far end, whose plugin may see nothing. Not before it is certain that the far end has
// not gone: what it has not read would make a reset of its end.
void NetPath::give_up() {
  if (!connection_ || std::exchange(gave_up_, true)) return;
  close_writing();
}

// Not for a death: who merely breaks with the path says so.
void NetPath::close_writing() {
  (void)!::send(connection_.get(), &kGivenUp, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)::shutdown(connection_.get(), SHUT_WR);
}

NicPath::Usage NetPath::usage() const {
  const auto held = keeper_->lock();
  const int64_t now_busy_ns = busy_since_ns_ == 0 ? 0 : now_ns() - busy_since_ns_;
  return {sent_bytes_, busy_since_ns_ != 0, (measured_ns_ + busy_ns_ + now_busy_ns) / 1000, 0};
}

bool NetPath::measure() {
  const auto held = keeper_->lock();
  const int64_t now = now_ns();
  const int64_t busy = busy_ns_ + (busy_since_ns_ == 0 ? 0 : now - busy_since_ns_);
  const uint64_t bytes = sent_bytes_ - measured_to_;
  if (bytes < kMeasuredBytes || busy <= 0 || (busy < kMeasuredNs && bytes < kMeasuredBytesAmple))
    return false;
  measured_to_ = sent_bytes_;
  measured_ns_ += busy;
  busy_ns_ = 0;
  if (busy_since_ns_ != 0) busy_since_ns_ = now;
  bytes_per_s_ = 1e9 * static_cast<double>(bytes) / static_cast<double>(busy);
  return true;
}

bool NetPath::flushed() const {
  const auto held = keeper_->lock();
  return (open_ == kNone && sent_.empty()) || !broken_.is_ok() || closed_ns_ != 0;
}

bool NetPath::settled() {
  const auto held = keeper_->lock();
  if (acknowledged_ == written_ || !broken_.is_ok() || closed_ns_ != 0) return true;
  if (!asking_) {
    asking_ = ask_ = true;
    fail(post_control());
  }
  return false;
}

}  // namespace railccl::transport
