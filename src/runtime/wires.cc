// Wires: posting and taking in messages over links, and the choice of a medium per peer.
#include "runtime/wires.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

#include "base/clock.h"
#include "base/fence.h"

namespace railccl::runtime {

using transport::Transport;

void Wire::write_lane(const std::byte* header, const std::byte* data, uint64_t bytes,
                      const OutgoingScale* scale) {
  std::byte* place = lane_->place(bytes);
  if (scale != nullptr) {
    kernels::scale(place, data, bytes / size_of(scale->datatype), scale->datatype, scale->scale);
  } else if (bytes > 0) {
    std::memcpy(place, data, bytes);
  }
  publish(header);
}

void Wire::post(const Header& header, const std::byte* data, const OutgoingScale* scale) {
  assert(!window_full());
  const bool lane = by_lane(header.bytes);
  if (lane && lane_queued_ == 0 && lane_->has_room()) {
    const HeaderBytes bytes = encode(header);
    return write_lane(bytes.data(), data, header.bytes, scale);
  }
  if (lane) lane_queued_++;
  Outgoing& message = slot(first_ + static_cast<unsigned>(in_flight_));
  message.header = encode(header);
  message.data = data;
  message.bytes = header.bytes;
  message.by_lane = lane;
  message.scaled = scale != nullptr && header.bytes > 0;
  if (message.scaled) {
    message.scale = *scale;
    if (!lane && bounce_.empty()) bounce_.resize(kBounceBytes);
  }
  in_flight_++;
  unpushed_++;
}

Result<bool> Wire::push_head(Outgoing& message) {
  if (message.by_lane) {
    if (!lane_->has_room()) {
      RAILCCL_CHECK(link_->state());
      return false;
    }
    write_lane(message.header.data(), message.data, message.bytes,
               message.scaled ? &message.scale : nullptr);
    lane_queued_--;
    pushed_ = kHeaderBytes + message.bytes;
    return true;
  }
  iovec ranges[2];
  size_t used = 0;
  uint64_t payload = 0;  // payload bytes already accepted
  if (pushed_ < kHeaderBytes) {
    ranges[used++] = {message.header.data() + pushed_, kHeaderBytes - pushed_};
  } else {
    payload = pushed_ - kHeaderBytes;
  }
  if (!message.scaled) {
    if (payload < message.bytes)
      ranges[used++] = {const_cast<std::byte*>(message.data) + payload, message.bytes - payload};
  } else {
    // The bounce buffer is filled anew once all of it was accepted and, where the link reads the
    // source later, let go of.
    const bool free = !zero_copy_ || link_->released() >= bounce_end_;
    if (payload == bounce_to_ && payload < message.bytes && free) {
      const size_t element = size_of(message.scale.datatype);
      const uint64_t bytes = std::min<uint64_t>(kBounceBytes, message.bytes - payload);
      kernels::scale(bounce_.data(), message.data + payload, bytes / element,
                     message.scale.datatype, message.scale.scale);
      bounce_from_ = payload;
      bounce_to_ = payload + bytes;
    }
    if (payload < bounce_to_)
      ranges[used++] = {bounce_.data() + (payload - bounce_from_), bounce_to_ - payload};
  }
  if (used == 0) return false;
  auto sent = link_->send(std::span<const iovec>(ranges, used));
  if (!sent.is_ok()) return sent.status();
  if (*sent == 0) return false;
  pushed_ += *sent;
  accepted_ += *sent;
  if (message.scaled) bounce_end_ = accepted_;
  flushed_ = false;
  return true;
}

void Wire::retire() {
  const int accepted = in_flight_ - unpushed_;
  if (accepted == 0) return;
  const uint64_t released = link_->released();
  for (int i = 0; i < accepted && slot(first_).end <= released; i++) {
    first_++;
    in_flight_--;
  }
}

Result<bool> Wire::push() {
  if (idle()) return false;
  bool moved = false;
  while (unpushed_ > 0) {
    Outgoing& message = slot(first_ + static_cast<unsigned>(in_flight_ - unpushed_));
    RAILCCL_TRY(const bool any, push_head(message));
    if (!any) break;
    moved = true;
    if (pushed_ == kHeaderBytes + message.bytes) {
      message.end = accepted_;
      pushed_ = 0;
      bounce_from_ = bounce_to_ = 0;
      unpushed_--;
    }
  }
  if (!flushed_) {
    RAILCCL_TRY(flushed_, link_->flush());
    moved = moved || flushed_;
  }
  const int before = in_flight_;
  retire();
  return moved || in_flight_ != before;
}

bool Wire::reads(const std::byte* begin, size_t bytes) const {
  for (int i = 0; i < in_flight_; i++) {
    const Outgoing& message = slot(first_ + static_cast<unsigned>(i));
    if (message.bytes > 0 && message.data < begin + bytes && begin < message.data + message.bytes)
      return true;
  }
  return false;
}

Result<bool> Wire::header_arrived(uint64_t bytes) {
  if (lane_open_) return true;
  if (!by_lane(bytes)) {
    RAILCCL_TRY(const bool arrived, link_header_arrived());
    if (arrived) header_ = link_header_;
    return arrived;
  }
  if (!lane_->arrived()) {
    // What a lost peer wrote was there before its loss showed: look again behind that.
    const Status state = link_->state();
    if (state.is_ok()) return false;
    if (!lane_->arrived()) return state;
  }
  if (!decode(lane_->header(), &header_) || header_.bytes > transport::kLaneBytesMax)
    return Status(Code::remote, Scope::communicator, "{}: what arrived is not a message of ours",
                  link_->name());
  lane_payload_ = {lane_->payload(header_.bytes), header_.bytes};
  lane_open_ = true;
  return true;
}

Result<bool> Wire::link_header_arrived() {
  if (header_fill_ == kHeaderBytes) return true;
  RAILCCL_TRY(const size_t got,
              link_->receive(header_bytes_.data() + header_fill_, kHeaderBytes - header_fill_));
  header_fill_ += got;
  if (header_fill_ < kHeaderBytes) return false;
  if (!decode(header_bytes_.data(), &link_header_)) {
    header_fill_ = 0;
    return Status(Code::remote, Scope::communicator, "{}: what arrived is not a message of ours",
                  link_->name());
  }
  return true;
}

Result<std::optional<Header>> Wire::other_header(uint64_t bytes) {
  std::optional<Header> other;
  if (lane_ == nullptr) return other;
  if (by_lane(bytes)) {
    RAILCCL_TRY(const bool arrived, link_header_arrived());
    if (arrived) other = link_header_;
  } else if (Header header; lane_->arrived() && decode(lane_->header(), &header)) {
    other = header;
  }
  return other;
}

Result<size_t> Wire::receive(std::byte* dst, size_t bytes) {
  if (!lane_open_) return link_->receive(dst, bytes);
  const size_t got = std::min(bytes, lane_payload_.size());
  if (got > 0) std::memcpy(dst, lane_payload_.data(), got);
  lane_payload_ = lane_payload_.subspan(got);
  return got;
}

void Wire::finish_message() {
  if (!lane_open_) {
    header_fill_ = 0;
    return;
  }
  lane_open_ = false;
  const bool listed = lane_->unrung();
  lane_->consume();
  if (!listed && lane_->unrung()) news_->push_back(lane_);
}

Result<std::span<const std::byte>> Wire::peek_elements(size_t bytes, size_t element) {
  if (lane_open_) return lane_payload_.first(std::min(lane_payload_.size(), bytes));
  if (carry_fill_ == 0) {
    RAILCCL_TRY(const std::span<const std::byte> view, link_->peek(bytes));
    const size_t whole = std::min(view.size(), bytes) / element * element;
    if (whole > 0) return view.first(whole);
    if (view.empty()) return view;
  }
  if (carry_fill_ < element) {
    RAILCCL_TRY(const size_t got,
                link_->receive(carry_.data() + carry_fill_, element - carry_fill_));
    carry_fill_ += got;
    if (carry_fill_ < element) return std::span<const std::byte>();
  }
  return std::span<const std::byte>(carry_.data(), element);
}

void Wire::consume_elements(size_t bytes) {
  if (bytes == 0) return;
  if (lane_open_) {
    lane_payload_ = lane_payload_.subspan(bytes);
    return;
  }
  if (carry_fill_ > 0) {
    assert(bytes == carry_fill_);
    carry_fill_ = 0;
    return;
  }
  link_->consume(bytes);
}

Result<bool> Wire::has_unread() {
  if (lane_open_ || (lane_ != nullptr && lane_->arrived())) return header_arrived(0);
  RAILCCL_TRY(const bool header, link_header_arrived());
  if (header) header_ = link_header_;
  return header || header_fill_ > 0;
}

Wires::Wires(int rank, int ranks, std::vector<std::unique_ptr<Transport>> media)
    : rank_(rank),
      ranks_(ranks),
      media_(std::move(media)),
      route_(static_cast<size_t>(ranks), nullptr),
      used_(media_.size(), false),
      same_process_(static_cast<size_t>(ranks), false) {}

Status Wires::set_peers(const std::vector<std::vector<transport::Address>>& addresses,
                        const std::vector<uint64_t>& host_ids,
                        const std::vector<uint64_t>& processes,
                        const std::vector<std::string>& nics,
                        const std::function<int(int, const std::string&)>& rail_of) {
  for (size_t m = 0; m < media_.size(); m++) {
    RAILCCL_CHECK(media_[m]
                      ->set_peers({addresses[m], host_ids, processes, nics, rail_of})
                      .context("{} transport", media_[m]->name()));
    for (int peer = 0; peer < ranks_; peer++) {
      auto& route = route_[static_cast<size_t>(peer)];
      if (route == nullptr && media_[m]->reaches(peer)) route = media_[m].get();
    }
    if (sharing_ == nullptr && media_[m]->capabilities().load_store &&
        std::string(media_[m]->name()) != "self")
      sharing_ = media_[m].get();
  }
  for (size_t r = 0; r < processes.size() && r < same_process_.size(); r++)
    same_process_[r] = processes[r] == processes[static_cast<size_t>(rank_)];
  for (int peer = 0; peer < ranks_; peer++)
    if (route_[static_cast<size_t>(peer)] == nullptr)
      return Status(Code::unsupported, Scope::communicator,
                    "no transport leads from rank {} to rank {}", rank_, peer);
  return ok();
}

Result<Wire*> Wires::wire(int peer, int channel) {
  auto& wire = wires_[{peer, channel}];
  if (wire == nullptr) {
    Transport* transport = medium_of(peer);
    auto link = transport->link(peer, channel);
    if (!link.is_ok()) {
      wires_.erase({peer, channel});
      return link.status();
    }
    size_t medium = 0;
    while (media_[medium].get() != transport) medium++;
    used_[medium] = true;
    wire = std::make_unique<Wire>(*link, peer, channel, medium, transport->capabilities(), &news_);
    news_.reserve(wires_.size());
  }
  return wire.get();
}

Result<std::byte*> Wires::scratch(size_t bytes) {
  if (bytes <= scratch_bytes_) return scratch_;
  if (sharing_ != nullptr) {
    RAILCCL_TRY(scratch_, sharing_->shared_memory(bytes));
    scratch_bytes_ = bytes;
  } else {
    private_scratch_.resize(bytes);
    scratch_ = private_scratch_.data();
    scratch_bytes_ = bytes;
  }
  scratch_registered_ = transport::RegisteredMemory::add(scratch_, scratch_bytes_);
  return scratch_;
}

void Wires::release_scratch() {
  if (sharing_ != nullptr) return;
  scratch_registered_.reset();
  private_scratch_ = {};
  scratch_ = nullptr;
  scratch_bytes_ = 0;
}

Result<std::byte*> Wires::peer_scratch(int peer, size_t bytes) {
  if (!load_store(peer))
    return Status(Code::internal, "the plan reads rank {}'s memory, which {} cannot", peer, rank_);
  return sharing_->peer_memory(peer, bytes);
}

bool Wires::load_store(int peer) const {
  return sharing_ != nullptr && medium_of(peer) == sharing_;
}

Status Wires::progress(bool all) {
  for (size_t m = 0; m < media_.size(); m++)
    if (all || used_[m]) RAILCCL_CHECK(media_[m]->progress());
  return ok();
}

void Wires::wait(int64_t timeout_us, uint32_t awaited) {
  // One medium in use: sleep in it. One of several awaited: likewise, but the others have work to
  // do now and then (acknowledgements, lost paths). Several: none can watch the others' events, so
  // sleep in each in turn and briefly.
  constexpr int64_t kSliceUs = 200, kOthersUs = 2000;
  uint32_t in_use = 0;
  for (size_t m = 0; m < media_.size(); m++)
    if (used_[m] && route_[static_cast<size_t>(rank_)] != media_[m].get()) in_use |= 1u << m;
  if (in_use == 0) return;
  const uint32_t wanted = (in_use & awaited) != 0 ? in_use & awaited : in_use;
  if (std::has_single_bit(wanted)) {
    const int64_t limit_us = wanted == in_use ? timeout_us : std::min(timeout_us, kOthersUs);
    return media_[static_cast<size_t>(std::countr_zero(wanted))]->wait(limit_us);
  }
  do {
    next_wait_ = (next_wait_ + 1) % static_cast<unsigned>(media_.size());
  } while ((wanted >> next_wait_ & 1) == 0);
  media_[next_wait_]->wait(std::min(timeout_us, kSliceUs));
}

void Wires::ring_all() {
  full_fence();
  for (transport::Lane* lane : news_) lane->ring();
  news_.clear();
}

void Wires::wake() {
  for (auto& medium : media_) medium->wake();
}

void Wires::abort(const Status& why) {
  for (auto& medium : media_) medium->abort(why);
}

void Wires::settle(int64_t timeout_ns) {
  constexpr int64_t kSliceUs = 1000;
  const int64_t end = now_ns() + timeout_ns;
  for (auto& medium : media_) {
    while (!medium->settled() && medium->progress().is_ok() && now_ns() < end)
      medium->wait(kSliceUs);
  }
}

transport::PathReport Wires::report() const {
  transport::PathReport all;
  for (const auto& medium : media_) {
    transport::PathReport one = medium->report();
    std::move(one.paths.begin(), one.paths.end(), std::back_inserter(all.paths));
    std::move(one.events.begin(), one.events.end(), std::back_inserter(all.events));
  }
  return all;
}

std::vector<transport::NicSpeed> Wires::speeds() const {
  std::vector<transport::NicSpeed> all;
  for (const auto& medium : media_)
    for (transport::NicSpeed& speed : medium->speeds()) all.push_back(std::move(speed));
  return all;
}

void Wires::look_anew() {
  for (const auto& medium : media_) medium->look_anew();
}

bool Wires::crosses_hosts(size_t medium) const {
  const std::string_view name = media_[medium]->name();
  return name != "self" && name != "shm";
}

std::string Wires::media_text(unsigned mask) const {
  std::string text;
  for (size_t m = 0; m < media_.size(); m++) {
    if ((mask >> m & 1) == 0 || std::string_view(media_[m]->name()) == "self") continue;
    if (!text.empty()) text += '+';
    text += media_[m]->name();
  }
  return text.empty() ? "self" : text;
}

Result<Wire*> Wires::unread() {
  for (auto& [key, wire] : wires_) {
    RAILCCL_TRY(const bool any, wire->has_unread());
    if (any) return wire.get();
  }
  return static_cast<Wire*>(nullptr);
}

}  // namespace railccl::runtime
