// Connecting, writing, reading, granting.
#include "transport/verbs_path.h"

#include <endian.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/random.h"

namespace railccl::transport {
namespace {

// Pieces small enough that the far end reads one while the next is under way.
constexpr uint32_t kPieceBytes = 64 << 10;
// Room that comes in crumbs is left to become more.
constexpr uint32_t kCrumbBytes = 4 << 10;
// Pieces of registered memory from this size on are read in place: copying less costs less than
// waiting for the far end's device.
constexpr size_t kInPlaceBytes = 16 << 10;
constexpr uint32_t kSignalEvery = 16;
constexpr uint64_t kSignalsPerRing = 4;
constexpr uint32_t kChain = 8;           // requests handed over at once
constexpr uint32_t kGrantRequests = 16;  // of kSends, kept for grants
constexpr uint32_t kReceivesAtOnce = 16;
constexpr uint64_t kMeasuredBytes = 512 << 10, kMeasuredBytesAmple = 64 << 20;
constexpr int64_t kMeasuredNs = 50'000'000;
constexpr int kRoundTripWeight = 8;
constexpr uint32_t kPsnMask = (1 << 24) - 1;
constexpr uint8_t kHopLimit = 64;
constexpr std::byte kGivenUp{'x'};

size_t total_of(std::span<const iovec> ranges) {
  size_t total = 0;
  for (const iovec& range : ranges) total += range.iov_len;
  return total;
}

}  // namespace

Result<std::unique_ptr<VerbsPath>> VerbsPath::make(VerbsPort* port, const VerbsHabits& habits,
                                                   const Gid& far_gid) {
  // Connecting a queue pair by a port that is down has the kernel look for the far end's address
  // for a second, with this thread; the event may not have been heard yet.
  port->refresh();
  if (!port->down().empty()) return Status(Code::system, Scope::link, "{}", port->down());
  std::unique_ptr<VerbsPath> path(new VerbsPath(port, habits));
  RAILCCL_TRY(path->ring_, Mirrored::create(kRingBytes));
  RAILCCL_TRY(path->out_, Mirrored::create(kRingBytes));
  RAILCCL_TRY(path->ring_memory_, port->enroll(path->ring_.data(), kRingBytes, true));
  RAILCCL_TRY(path->out_memory_, port->enroll(path->out_.data(), kRingBytes, false));
  RAILCCL_TRY(path->queue_pair_, port->make_queue_pair(path.get(), kSends, kMessages + kGrants));
  VerbsCard& card = path->card_;
  card.gid = port->gid().gid;
  card.far_gid = far_gid;
  card.qp = path->queue_pair_.queue_pair->qp_num;
  (void)secret_bytes(&card.psn, sizeof(card.psn));
  card.psn &= kPsnMask;
  card.lid = port->attributes().lid;
  card.mtu = static_cast<uint8_t>(port->attributes().active_mtu);
  card.infiniband = port->infiniband();
  card.ring_key = path->ring_memory_->rkey;
  card.ring = reinterpret_cast<uint64_t>(path->ring_.data());
  card.ring_bytes = kRingBytes;
  card.messages = kMessages;

  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = port->number();
  attributes.qp_access_flags = IBV_ACCESS_REMOTE_WRITE;
  const int error =
      (*verbs_library())
          .modify_qp(path->queue_pair_.queue_pair.get(), &attributes,
                     IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
  if (error != 0)
    return system_error(error, fmt::format("{}: the queue pair cannot begin", port->name()));
  if (!path->post_receives(kMessages + kGrants))
    return Status(Code::system, Scope::link, "{}: no receives can be posted", port->name());
  return path;
}

VerbsPath::~VerbsPath() {
  // Not for a death: who merely breaks with the path says so.
  if (!broken_.is_ok() && connection_)
    (void)!send(connection_.get(), &kGivenUp, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (broken_.is_ok() || !queue_pair_.queue_pair) {
    port_->forget(&queue_pair_);
    return;
  }
  VerbsRemains remains;
  remains.ring = std::move(ring_);
  remains.out = std::move(out_);
  remains.ring_memory = std::move(ring_memory_);
  remains.out_memory = std::move(out_memory_);
  port_->bury(&queue_pair_, std::move(remains));
}

Status VerbsPath::connect(const VerbsCard& theirs, bool knocks) {
  if (theirs.infiniband != card_.infiniband || theirs.far_gid != card_.gid)
    return Status(Code::remote, Scope::link, "the far end means another port than {}",
                  port_->name());
  theirs_ = theirs;
  limit_ = theirs.ring_bytes;
  messages_left_ = theirs.messages;
  const Status status = to_ready(theirs);
  if (!status.is_ok()) return status.context("{}", port_->name());
  if (!knocks) return ok();
  // As long as a packet can be, so that a network that takes only shorter ones is found out now.
  knocking_ = true;
  const uint32_t bytes = 128u << std::min(card_.mtu, theirs.mtu);
  messages_left_--;
  Request knock = request_of(0, bytes, encode(VerbsImmediate{}), true);
  return post({&knock, 1}) ? ok() : broken_;
}

Status VerbsPath::to_ready(const VerbsCard& theirs) {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  attributes.path_mtu = static_cast<ibv_mtu>(std::min(card_.mtu, theirs.mtu));
  attributes.dest_qp_num = theirs.qp;
  attributes.rq_psn = theirs.psn;
  attributes.min_rnr_timer = 1;
  attributes.ah_attr.port_num = port_->number();
  attributes.ah_attr.sl = static_cast<uint8_t>(habits_.service_level);
  attributes.ah_attr.dlid = theirs.lid;
  // InfiniBand needs the GID only between subnets, Ethernet has nothing else.
  const bool same_subnet =
      std::equal(theirs.gid.begin(), theirs.gid.begin() + 8, card_.gid.begin());
  if (!card_.infiniband || !same_subnet) {
    attributes.ah_attr.is_global = 1;
    std::memcpy(attributes.ah_attr.grh.dgid.raw, theirs.gid.data(), theirs.gid.size());
    attributes.ah_attr.grh.sgid_index = static_cast<uint8_t>(port_->gid().index);
    attributes.ah_attr.grh.hop_limit = kHopLimit;
    attributes.ah_attr.grh.traffic_class = static_cast<uint8_t>(habits_.traffic_class);
  }
  ibv_qp* const queue_pair = queue_pair_.queue_pair.get();
  int error = (*verbs_library())
                  .modify_qp(queue_pair, &attributes,
                             IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                                 IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
  if (error != 0) return system_error(error, "the far end's address is refused");
  attributes = {};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.sq_psn = card_.psn;
  attributes.timeout = static_cast<uint8_t>(habits_.timeout);
  attributes.retry_cnt = static_cast<uint8_t>(habits_.retries);
  attributes.rnr_retry = 7;  // for ever
  error = (*verbs_library())
              .modify_qp(queue_pair, &attributes,
                         IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                             IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
  if (error != 0) return system_error(error, "the queue pair cannot send");
  return ok();
}

Result<bool> VerbsPath::proven() {
  if (!broken_.is_ok()) return broken_;
  return proven_;
}

void VerbsPath::keep(UniqueFd connection, bool one_of_several) {
  connection_ = std::move(connection);
  one_of_several_ = one_of_several;
  const InterfaceAddress far = address_of(theirs_.gid);
  name_ = fmt::format("{} queue pair {}, {}", text_of(far.address), theirs_.qp, port_->name());
}

void VerbsPath::fail(const std::string& why) {
  if (broken_.is_ok()) broken_ = Status(Code::system, Scope::link, "{}", why);
}

void VerbsPath::complete(const ibv_wc& completion) {
  if (!broken_.is_ok()) return;
  if (completion.status != IBV_WC_SUCCESS) {
    return fail(completion_text(completion.status,
                                (*verbs_library()).wc_status_str(completion.status),
                                completion.vendor_err));
  }
  if ((completion.wr_id & 1) != 0) {
    on_message(decode_verbs_immediate(be32toh(completion.imm_data)));
    return;
  }
  const Signal signal = signals_.front();
  signals_.pop_front();
  requests_ -= signal.requests;
  if (knocking_) {
    knocking_ = false;
    proven_ = true;
    return;
  }
  acknowledged_ = signal.end;
  grant();
  const int64_t now = now_ns();
  if (signal.alone) {
    const int64_t took_ns = now - signal.posted_ns;
    round_trip_ns_ = round_trip_ns_ == 0
                         ? took_ns
                         : round_trip_ns_ + (took_ns - round_trip_ns_) / kRoundTripWeight;
  }
  if (acknowledged_ == written_ && busy_since_ns_ != 0) {
    busy_ns_ += now - busy_since_ns_;
    busy_since_ns_ = 0;
  }
}

void VerbsPath::on_message(const VerbsImmediate& immediate) {
  receives_used_++;
  if (immediate.grant) {
    limit_ += immediate.bytes;
    messages_left_ += immediate.messages;
    if (limit_ - written_ > theirs_.ring_bytes || messages_left_ > theirs_.messages)
      return fail("the far end grants more than there is");
  } else if (!proven_ && immediate.bytes == 0) {
    proven_ = true;  // the knock: its bytes are nobody's
    messages_used_++;
  } else {
    arrived_ += immediate.bytes;
    messages_used_++;
    if (arrived_ - read_ > kRingBytes) return fail("the far end sends more than was granted");
  }
  if (receives_used_ < kReceivesAtOnce) return;
  if (!post_receives(receives_used_)) return fail("no receives can be posted");
  receives_used_ = 0;
  messages_to_grant_ += messages_used_;
  messages_used_ = 0;
  grant();
}

bool VerbsPath::post_receives(uint32_t count) {
  std::array<ibv_recv_wr, kReceivesAtOnce> requests{};
  while (count > 0) {
    const uint32_t some = std::min<uint32_t>(count, kReceivesAtOnce);
    for (uint32_t i = 0; i < some; i++) {
      requests[i] = {};
      requests[i].wr_id = queue_pair_.tag + 1;
      requests[i].next = i + 1 < some ? &requests[i + 1] : nullptr;
    }
    ibv_recv_wr* bad = nullptr;
    if (ibv_post_recv(queue_pair_.queue_pair.get(), requests.data(), &bad) != 0) return false;
    count -= some;
  }
  return true;
}

// An RDMA write of bytes that lie at that place of the stream in out_, and what its completion will
// stand for.
VerbsPath::Request VerbsPath::request_of(uint64_t from, uint32_t bytes, uint32_t immediate,
                                         bool signalled) {
  Request made;
  made.pieces[0] = {reinterpret_cast<uint64_t>(out_.data()) + (from & (kRingBytes - 1)), bytes,
                    out_memory_->lkey};
  made.request.wr_id = queue_pair_.tag;
  made.request.num_sge = bytes > 0 ? 1 : 0;
  made.request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
  made.request.imm_data = htobe32(immediate);
  made.request.wr.rdma.remote_addr = theirs_.ring + (from & (theirs_.ring_bytes - 1));
  made.request.wr.rdma.rkey = theirs_.ring_key;
  if (bytes <= queue_pair_.inline_bytes) made.request.send_flags |= IBV_SEND_INLINE;
  requests_++;
  unsignalled_++;
  if (!signalled && unsignalled_ < kSignalEvery &&
      written_ - signalled_to_ < kRingBytes / kSignalsPerRing)
    return made;
  made.request.send_flags |= IBV_SEND_SIGNALED;
  const bool alone = signals_.empty() && acknowledged_ + bytes == written_ && bytes <= kCrumbBytes;
  signals_.push_back({unsignalled_, written_, now_ns(), alone});
  unsignalled_ = 0;
  signalled_to_ = written_;
  return made;
}

// Has the request read those of its bytes in place that are to be; it begins at `from`.
void VerbsPath::read_in_place(Request* request, uint64_t from, std::span<const InPlace> in_place) {
  const ibv_sge copied = request->pieces[0];
  const uint64_t end = from + copied.length;
  uint64_t at = from;
  int count = 0;
  const auto add = [&](uint64_t address, uint64_t to, uint32_t key) {
    request->pieces[static_cast<size_t>(count++)] = {address, static_cast<uint32_t>(to - at), key};
    at = to;
  };
  for (const InPlace& part : in_place) {
    if (part.to <= at || part.from >= end) continue;
    if (part.from > at) add(copied.addr + (at - from), part.from, copied.lkey);
    add(reinterpret_cast<uint64_t>(part.data) + (at - part.from), std::min(part.to, end), part.key);
    request->request.send_flags &= ~static_cast<unsigned>(IBV_SEND_INLINE);
  }
  if (at < end) add(copied.addr + (at - from), end, copied.lkey);
  request->request.num_sge = count;
}

// Hands requests to the device; breaks the path when it refuses.
bool VerbsPath::post(std::span<Request> requests) {
  for (size_t i = 0; i < requests.size(); i++) {
    requests[i].request.sg_list = requests[i].pieces.data();
    requests[i].request.next = i + 1 < requests.size() ? &requests[i + 1].request : nullptr;
  }
  ibv_send_wr* bad = nullptr;
  const int error = ibv_post_send(queue_pair_.queue_pair.get(), &requests.front().request, &bad);
  if (error == 0) return true;
  fail(system_error(error, "the device takes no request").text());
  return false;
}

Result<size_t> VerbsPath::write(std::span<const iovec> ranges) {
  if (!broken_.is_ok()) return broken_;
  if (closed_) return end();
  const size_t total = total_of(ranges);
  const uint64_t room = std::min(limit_ - written_, kRingBytes - (written_ - acknowledged_));
  const uint32_t requests_max = kSends - kGrantRequests;
  if (total == 0 || room < std::min<size_t>(total, kCrumbBytes) || requests_ >= requests_max)
    return size_t{0};
  const uint32_t slots = std::min({messages_left_, requests_max - requests_, kChain});
  std::array<Request, kChain> chain;
  uint32_t count = 0;
  size_t taken = 0;
  // Cut where the far ring or ours ends; the two may differ in size.
  const uint64_t smaller = std::min<uint64_t>(kRingBytes, theirs_.ring_bytes);
  const uint64_t most = std::min<uint64_t>(total, room);
  std::array<size_t, kChain> sizes;
  while (count < slots && taken < most) {
    const uint64_t at = written_ + taken;
    const size_t piece = std::min({most - taken, uint64_t{kPieceBytes}, smaller - at % smaller});
    sizes[count++] = piece;
    taken += piece;
  }
  if (count == 0) return size_t{0};
  InPlaces in_place;
  const size_t in_places = take_in(ranges, taken, &in_place);
  if (busy_since_ns_ == 0) busy_since_ns_ = now_ns();
  for (uint32_t i = 0; i < count; i++) {
    const uint64_t from = written_;
    const auto bytes = static_cast<uint32_t>(sizes[i]);
    written_ += bytes;
    const bool last = i + 1 == count;
    chain[i] = request_of(from, bytes, encode(VerbsImmediate{.bytes = bytes}),
                          last && (one_of_several_ || in_places > 0));
    read_in_place(&chain[i], from, {in_place.data(), in_places});
  }
  messages_left_ -= count;
  if (!post({chain.data(), count})) return broken_;
  return taken;
}

// The first `bytes` of the ranges, which belong behind what was written: copied to out_, but for
// those that the device can read where they are. How many these are.
size_t VerbsPath::take_in(std::span<const iovec> ranges, size_t bytes, InPlaces* in_place) {
  const bool may = !one_of_several_ && queue_pair_.pieces >= ranges.size();
  std::byte* to = out_.data() + (written_ & (kRingBytes - 1));
  uint64_t at = written_;
  size_t count = 0;
  for (const iovec& range : ranges) {
    const size_t part = std::min<uint64_t>(range.iov_len, written_ + bytes - at);
    const auto key =
        may && part >= kInPlaceBytes ? port_->lasting_key(range.iov_base, part) : std::nullopt;
    if (key) {
      (*in_place)[count++] = {at, at + part, static_cast<const std::byte*>(range.iov_base), *key};
      if (in_place_end_ <= acknowledged_) in_place_begin_ = at;
      in_place_end_ = at + part;
    } else if (part > 0) {
      std::memcpy(to, range.iov_base, part);
    }
    to += part;
    at += part;
  }
  return count;
}

Result<size_t> VerbsPath::read(std::span<const iovec> ranges) {
  const uint64_t there = arrived_ - read_;
  if (there == 0) {
    if (!broken_.is_ok()) return broken_;
    return closed_ ? Result<size_t>(end()) : Result<size_t>(size_t{0});
  }
  const std::byte* from = ring_.data() + (read_ & (kRingBytes - 1));
  size_t left = there;
  for (const iovec& range : ranges) {
    const size_t bytes = std::min(range.iov_len, left);
    if (bytes > 0) std::memcpy(range.iov_base, from, bytes);
    from += bytes;
    left -= bytes;
  }
  read_ += there - left;
  grant();
  return static_cast<size_t>(there - left);
}

Status VerbsPath::end() const {
  return Status(Code::remote, Scope::link, "{}",
                closed_by_peer_ ? "connection closed by peer" : "the far end gave the path up");
}

// Lets the far end send more, when that is a quarter of something. What is not granted for want of
// a request now is granted with a later completion.
void VerbsPath::grant() {
  const auto bytes = static_cast<uint32_t>(read_ - granted_);
  const uint32_t messages = std::min(messages_to_grant_, kVerbsGrantMessagesMax);
  if (bytes < kRingBytes / 4 && messages < kMessages / 4) return;
  if (requests_ >= kSends || !broken_.is_ok() || closed_) return;
  granted_ += bytes;
  messages_to_grant_ -= messages;
  Request request = request_of(
      written_, 0, encode(VerbsImmediate{.grant = true, .bytes = bytes, .messages = messages}),
      false);
  (void)post({&request, 1});
}

void VerbsPath::on_events(uint32_t events) {
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) == 0) return;
  // What arrived before the end counts.
  port_->fetch();
  while (!closed_) {
    std::array<std::byte, 16> words;
    const ssize_t got = recv(connection_.get(), words.data(), words.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    closed_ = true;
    closed_by_peer_ = got == 0 || (got < 0 && errno == ECONNRESET);
  }
}

void VerbsPath::close_writing() {
  (void)!send(connection_.get(), &kGivenUp, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)shutdown(connection_.get(), SHUT_WR);
}

NicPath::Usage VerbsPath::usage() const {
  const int64_t now_busy_ns = busy_since_ns_ == 0 ? 0 : now_ns() - busy_since_ns_;
  return {acknowledged_, busy_since_ns_ != 0, (measured_ns_ + busy_ns_ + now_busy_ns) / 1000, 0};
}

bool VerbsPath::measure() {
  const int64_t now = now_ns();
  const int64_t busy = busy_ns_ + (busy_since_ns_ == 0 ? 0 : now - busy_since_ns_);
  const uint64_t bytes = acknowledged_ - measured_to_;
  if (bytes < kMeasuredBytes || busy <= 0 || (busy < kMeasuredNs && bytes < kMeasuredBytesAmple))
    return false;
  measured_to_ = acknowledged_;
  measured_ns_ += busy;
  busy_ns_ = 0;
  if (busy_since_ns_ != 0) busy_since_ns_ = now;
  bytes_per_s_ = 1e9 * static_cast<double>(bytes) / static_cast<double>(busy);
  return true;
}

bool VerbsPath::settled() {
  if (acknowledged_ == written_ || !broken_.is_ok() || closed_) return true;
  if (signals_.empty() && requests_ < kSends) {
    // A request whose completion stands for those before it, and that the far end does not see.
    Request request = request_of(written_, 0, 0, true);
    request.request.opcode = IBV_WR_RDMA_WRITE;
    (void)post({&request, 1});
  }
  return false;
}

}  // namespace railccl::transport
