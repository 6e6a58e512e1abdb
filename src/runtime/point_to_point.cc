// PointToPoint: lanes of transfers, one per peer and direction.
#include "runtime/point_to_point.h"

#include <algorithm>

namespace railccl::runtime {

Status PointToPoint::add(int peer, std::byte* data, uint64_t count, Datatype datatype, bool sends) {
  RAILCCL_TRY(Wire * wire, wires_->wire(peer, kPointToPointChannel));
  auto lane = std::find_if(lanes_.begin(), lanes_.end(), [&](const Lane& candidate) {
    return candidate.wire == wire && candidate.sends == sends;
  });
  if (lane == lanes_.end()) {
    lanes_.emplace_back();
    lane = std::prev(lanes_.end());
    lane->wire = wire;
    lane->sends = sends;
  }
  Header header;
  header.kind = MessageKind::point_to_point;
  header.bytes = count * size_of(datatype);
  header.request.op = Reduction::none;
  header.request.datatype = datatype;
  header.request.count = count;
  lane->transfers.push_back({data, header});
  return ok();
}

Status PointToPoint::add_send(int peer, const void* data, uint64_t count, Datatype datatype) {
  // The bytes are only read; one Transfer type serves both directions.
  return add(peer, static_cast<std::byte*>(const_cast<void*>(data)), count, datatype, true);
}

Status PointToPoint::add_recv(int peer, void* data, uint64_t count, Datatype datatype) {
  return add(peer, static_cast<std::byte*>(data), count, datatype, false);
}

Outcome PointToPoint::step() {
  Outcome outcome;
  outcome.done = true;
  for (Lane& lane : lanes_) {
    auto moved = lane.sends ? step_send(lane) : step_recv(lane);
    if (!moved.is_ok()) {
      outcome.status =
          moved.status().context("rank {} {} rank {}", wires_->rank(),
                                 lane.sends ? "sending to" : "receiving from", lane.wire->peer());
      outcome.done = false;
      return outcome;
    }
    outcome.progressed |= *moved;
    outcome.done &= lane.next == lane.transfers.size() && (!lane.sends || lane.wire->idle());
  }
  return outcome;
}

Result<bool> PointToPoint::step_send(Lane& lane) {
  Wire& wire = *lane.wire;
  bool moved = false;
  while (lane.next < lane.transfers.size() && !wire.window_full()) {
    Transfer& transfer = lane.transfers[lane.next++];
    transfer.header.sequence = wire.transfers_sent++;
    wire.post(transfer.header, transfer.data, nullptr);
    moved = true;
  }
  RAILCCL_TRY(const bool pushed, wire.push());
  return moved || pushed;
}

Result<bool> PointToPoint::step_recv(Lane& lane) {
  Wire& wire = *lane.wire;
  size_t budget = kBytesPerVisit;
  bool moved = false;
  while (lane.next < lane.transfers.size() && budget > 0) {
    Transfer& transfer = lane.transfers[lane.next];
    RAILCCL_TRY(const bool arrived, wire.header_arrived(transfer.header.bytes));
    if (!arrived) break;
    transfer.header.sequence = wire.transfers_received;
    if (!(wire.header() == transfer.header)) return differs(wire, transfer.header, wire.header());
    const uint64_t left = transfer.header.bytes - lane.received;
    size_t got = 0;
    if (left > 0) {
      RAILCCL_TRY(got, wire.receive(transfer.data + lane.received,
                                    static_cast<size_t>(std::min<uint64_t>(left, budget))));
    }
    lane.received += got;
    budget -= got;
    moved |= got > 0;
    if (lane.received < transfer.header.bytes) {
      if (got == 0) break;
      continue;
    }
    wire.finish_message();
    wire.transfers_received++;
    lane.next++;
    lane.received = 0;
    moved = true;
    budget -= std::min<size_t>(budget, 64);
  }
  return moved;
}

/// A message of another size may come the other way (lane or link) than the one that is waited for.
Status PointToPoint::look_aside() {
  for (Lane& lane : lanes_) {
    if (lane.sends || lane.next == lane.transfers.size()) continue;
    Header mine = lane.transfers[lane.next].header;
    mine.sequence = lane.wire->transfers_received;
    const auto other = lane.wire->other_header(mine.bytes);
    // A later transfer's message may be early.
    if (other.is_ok() && (!*other || (*other)->sequence != mine.sequence)) continue;
    // What was asked for may have come just before; what a lost peer wrote was there before its
    // loss showed.
    RAILCCL_TRY(const bool arrived, lane.wire->header_arrived(mine.bytes));
    if (arrived) continue;
    return other.is_ok() ? differs(*lane.wire, mine, **other) : other.status();
  }
  return ok();
}

Status PointToPoint::differs(const Wire& wire, const Header& mine, const Header& theirs) {
  mismatch_ = Mismatch{wire.peer(), text_of(mine, false), text_of(theirs, true)};
  return Status(Code::mismatch, Scope::communicator, "rank {} called {}, but rank {} called {}",
                wires_->rank(), mismatch_->mine, wire.peer(), mismatch_->theirs);
}

std::string PointToPoint::waiting_for() const {
  std::string text;
  for (const Lane& lane : lanes_) {
    if (lane.next == lane.transfers.size() && (!lane.sends || lane.wire->idle())) continue;
    const Transfer& transfer = lane.transfers[std::min(lane.next, lane.transfers.size() - 1)];
    if (!text.empty()) text += "; ";
    text += fmt::format("{}(count={}, {}) {} rank {} ({})", lane.sends ? "send" : "recv",
                        transfer.header.request.count, name_of(transfer.header.request.datatype),
                        lane.sends ? "to" : "from", lane.wire->peer(), lane.wire->name());
  }
  return text.empty() ? "nothing" : text;
}

}  // namespace railccl::runtime
