// Cutting, keeping, placing and repeating segments.
#include "transport/multipath_send.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace railccl::transport {
namespace {

constexpr size_t kCopiesBytes = 256 << 10;
// Segments find their path late, when it has room; enough of them to be worth a slow path's while.
constexpr uint64_t kWaitingBytes = 2 << 20;
constexpr int64_t kHearEveryNs = 10'000;   // one system call per path
constexpr size_t kRecordsMax = 64;         // more: hear what has come across
constexpr double kUnknownBytesPerS = 1e9;  // as good as any: it serves to compare
constexpr int64_t kRestMinNs = 100'000, kRestMaxNs = 2'000'000;
// A segment is overtaken when an idle path would have had it across so many times since.
constexpr int kOvertakeFactor = 4;
constexpr int64_t kOvertakeNs = 10'000'000;

size_t total_of(std::span<const iovec> ranges) {
  size_t total = 0;
  for (const iovec& range : ranges) total += range.iov_len;
  return total;
}

// Drops the first `bytes` of the ranges.
void drop_front(std::span<iovec> ranges, size_t bytes) {
  for (iovec& range : ranges) {
    const size_t step = std::min(range.iov_len, bytes);
    range.iov_base = static_cast<std::byte*>(range.iov_base) + step;
    range.iov_len -= step;
    bytes -= step;
  }
}

}  // namespace

void MultipathSender::add(int path, Path* way, bool home, int64_t now_ns) {
  if (outs_.size() <= static_cast<size_t>(path)) outs_.resize(static_cast<size_t>(path) + 1);
  assert(out(path).way == nullptr);
  out(path) = Out();
  out(path).way = way;
  out(path).home = home;
  out(path).spoke_ns = now_ns;
}

void MultipathSender::remove(int path) {
  if (static_cast<size_t>(path) >= outs_.size() || out(path).way == nullptr) return;
  // What it acknowledged to the last is across: sent again, it could fill the buffers of a far end
  // that has all it wanted and reads no more.
  hear(std::max(heard_ns_, out(path).spoke_ns));
  send_again(path);
  out(path) = Out();
}

void MultipathSender::retire(int path) {
  send_again(path);
  out(path).writing = false;  // its frame stays torn: the far end reads no further
  out(path).retired = true;
}

bool MultipathSender::usable(int path) const {
  if (static_cast<size_t>(path) >= outs_.size()) return false;
  return outs_[static_cast<size_t>(path)].usable();
}

bool MultipathSender::has_usable() const {
  return std::any_of(outs_.begin(), outs_.end(), [](const Out& out) { return out.usable(); });
}

bool MultipathSender::has_home() const { return homes() > 0; }

size_t MultipathSender::homes() const {
  return static_cast<size_t>(std::count_if(
      outs_.begin(), outs_.end(), [](const Out& out) { return out.usable() && out.home; }));
}

void MultipathSender::add_record(const Record& record) {
  records_.push_back(record);
  waiting_.push_back({first_ + records_.size() - 1, record.bytes});
  waiting_bytes_ += record.bytes;
  accepted_ += record.bytes;
  if (!record.copied) in_place_++;
}

// The ranges' bytes in one piece that stays until acknowledged; null: no room.
std::byte* MultipathSender::copy(std::span<const iovec> ranges, size_t bytes) {
  if (kCopiesBytes - (copies_head_ - copies_tail_) < bytes) return nullptr;
  std::byte* const begin = copies_.data() + (copies_head_ & (copies_.size() - 1));
  std::byte* to = begin;
  for (const iovec& range : ranges) {
    if (range.iov_len > 0) std::memcpy(to, range.iov_base, range.iov_len);
    to += range.iov_len;
  }
  copies_head_ += bytes;
  return begin;
}

Result<size_t> MultipathSender::send(std::span<const iovec> ranges, int64_t now_ns) {
  if (!copies_) {
    RAILCCL_TRY(copies_, Mirrored::create(kCopiesBytes));
  }
  const size_t total = total_of(ranges);
  if (total == 0) return size_t{0};
  if (records_.size() > kRecordsMax && now_ns - heard_ns_ >= kHearEveryNs) hear(now_ns);
  if (total <= kCopyBytes) {
    std::byte* place = copy(ranges, total);
    if (place == nullptr) {
      hear(now_ns);
      place = copy(ranges, total);
    }
    if (place == nullptr) return size_t{0};
    Record record{.offset = accepted_, .bytes = total, .copied = true};
    record.ranges[0] = {place, total};
    add_record(record);
    pump(now_ns);
    return total;
  }
  Ranges rest{};
  std::copy(ranges.begin(), ranges.end(), rest.begin());
  size_t left = total;
  // All home paths shall have something to do.
  const size_t most = std::clamp(total / std::max<size_t>(1, homes()), kCopyBytes, kSegmentBytes);
  while (left > 0) {
    if (waiting_bytes_ >= kWaitingBytes) pump(now_ns);
    if (waiting_bytes_ >= kWaitingBytes) break;
    const uint64_t kept = records_.empty() ? 0 : accepted_ - records_.front().offset;
    if (kept >= kWindowBytes) break;
    // No crumbs: a little more than a segment is one.
    const size_t bytes = left <= most + most / 4 ? left : most;
    Record record{.offset = accepted_, .bytes = bytes};
    size_t open = bytes;
    for (size_t i = 0; i < rest.size(); i++) {
      record.ranges[i] = {rest[i].iov_base, std::min(rest[i].iov_len, open)};
      open -= record.ranges[i].iov_len;
    }
    drop_front(rest, bytes);
    left -= bytes;
    add_record(record);
  }
  pump(now_ns);
  return total - left;
}

// Gives waiting segments to paths as long as one has room that is worth it.
void MultipathSender::pump(int64_t now_ns) {
  for (size_t i = 0; i < outs_.size(); i++) {
    outs_[i].full = false;
    if (outs_[i].writing) advance(static_cast<int>(i));
  }
  while (!waiting_.empty()) {
    const uint64_t id = waiting_.front().record;
    if (kept(id) && !record(id).acknowledged) {
      const size_t bytes = record(id).bytes;
      const int path = best_path(bytes);
      if (path < 0) return;
      if (!begin(path, id, now_ns)) {
        out(path).full = true;  // or broken: in both cases another one may take it
        continue;
      }
    }
    waiting_bytes_ -= waiting_.front().bytes;
    waiting_.pop_front();
  }
}

// The path that will have so many bytes across first. When that one has no room, the next best
// takes them if that is sooner than the better ones would be through with all that waits. -1: none.
int MultipathSender::best_path(size_t bytes) {
  const bool home = has_home();
  double fastest = 0;
  order_.clear();
  for (size_t i = 0; i < outs_.size(); i++) {
    const Out& out = outs_[i];
    if (!out.usable() || (home && !out.home)) continue;
    order_.push_back({static_cast<int>(i), out.way->bytes_per_s(), 0});
    fastest = std::max(fastest, order_.back().bytes_per_s);
  }
  if (order_.size() == 1) return out(order_[0].path).has_room() ? order_[0].path : -1;
  for (Candidate& candidate : order_) {
    const Out& out = outs_[static_cast<size_t>(candidate.path)];
    if (candidate.bytes_per_s == 0)
      candidate.bytes_per_s = fastest > 0 ? fastest : kUnknownBytesPerS;
    candidate.finish_s = static_cast<double>(out.ahead() + bytes) / candidate.bytes_per_s;
  }
  std::sort(order_.begin(), order_.end(),
            [](const Candidate& a, const Candidate& b) { return a.finish_s < b.finish_s; });
  double ahead = static_cast<double>(waiting_bytes_), bytes_per_s = 0;  // of the better ones
  for (const Candidate& candidate : order_) {
    const Out& out = outs_[static_cast<size_t>(candidate.path)];
    if (bytes_per_s > 0 && candidate.finish_s > ahead / bytes_per_s) return -1;
    if (out.has_room()) return candidate.path;
    ahead += static_cast<double>(out.ahead());
    bytes_per_s += candidate.bytes_per_s;
  }
  return -1;
}

// False when the path takes not even the first byte.
bool MultipathSender::begin(int path, uint64_t id, int64_t now_ns) {
  Out& to = out(path);
  Record& what = record(id);
  if (!to.busy()) to.spoke_ns = now_ns;
  to.writing = true;
  to.current = id;
  to.header = encode(TcpFrame{what.offset, static_cast<uint32_t>(what.bytes)});
  to.header_left = kTcpFrameBytes;
  to.ranges = what.ranges;
  to.left = what.bytes;
  const uint64_t before = to.written;
  if (!advance(path)) return false;
  if (to.written == before) {
    to.writing = false;
    to.left = 0;
    return false;
  }
  what.path = path;
  what.sent_ns = now_ns;
  return true;
}

// Writes what it can of the path's current segment; false when the path broke.
bool MultipathSender::advance(int path) {
  Out& to = out(path);
  while (to.header_left + to.left > 0) {
    std::array<iovec, 5> ranges{};
    size_t count = 0;
    if (to.header_left > 0)
      ranges[count++] = {to.header.data() + kTcpFrameBytes - to.header_left, to.header_left};
    for (const iovec& range : to.ranges)
      if (range.iov_len > 0) ranges[count++] = range;
    Result<size_t> wrote = to.way->write({ranges.data(), count});
    if (!wrote.is_ok()) {
      lose(path, wrote.status());
      return false;
    }
    if (*wrote == 0) return true;
    to.written += *wrote;
    const size_t of_header = std::min(*wrote, to.header_left);
    to.header_left -= of_header;
    to.left -= *wrote - of_header;
    drop_front(to.ranges, *wrote - of_header);
  }
  to.writing = false;
  to.rest.clear();
  to.sent.push_back({to.current, to.written});
  return true;
}

// From now on the current segment's source may go away.
void MultipathSender::keep_rest(Out& to) {
  if (!to.rest.empty() || to.left == 0) return;
  to.rest.reserve(to.left);
  for (const iovec& range : to.ranges) {
    const auto* from = static_cast<const std::byte*>(range.iov_base);
    if (range.iov_len > 0) to.rest.insert(to.rest.end(), from, from + range.iov_len);
  }
  to.ranges = {};
  to.ranges[0] = {to.rest.data(), to.rest.size()};
}

// What the path has and nobody acknowledged waits for another path; returns how many bytes.
uint64_t MultipathSender::send_again(int path) {
  Out& from = out(path);
  uint64_t bytes = 0;
  std::vector<Waiting> again;
  const auto move = [&](uint64_t id) {
    if (!kept(id) || record(id).acknowledged || record(id).path != path) return;
    record(id).path = -1;
    bytes += record(id).bytes;
    again.push_back({id, record(id).bytes});
  };
  for (const Sent& sent : from.sent) move(sent.record);
  if (from.writing) {
    move(from.current);
    keep_rest(from);
  }
  waiting_.insert(waiting_.begin(), again.begin(), again.end());
  waiting_bytes_ += bytes;
  return bytes;
}

void MultipathSender::lose(int path, const Status& why) {
  hear(std::max(heard_ns_, out(path).spoke_ns));  // as in remove()
  PathNews news{.what = PathNews::What::broken, .path = path, .why = why};
  news.bytes = send_again(path);
  out(path) = Out();
  news_.push_back(std::move(news));
}

void MultipathSender::acknowledge(uint64_t id, int path) {
  if (!kept(id) || record(id).acknowledged) return;
  Record& what = record(id);
  what.acknowledged = true;
  if (!what.copied) in_place_--;
  // It came across by one path while another one is in the middle of it.
  if (what.path >= 0 && what.path != path && out(what.path).writing && out(what.path).current == id)
    keep_rest(out(what.path));
}

// Asks the paths how far their bytes have come.
void MultipathSender::hear(int64_t now_ns) {
  heard_ns_ = now_ns;
  for (size_t i = 0; i < outs_.size(); i++) {
    Out& from = outs_[i];
    if (from.way == nullptr || !from.busy()) continue;
    const uint64_t acknowledged = from.way->acknowledged();
    if (acknowledged == from.acknowledged) continue;
    from.acknowledged = acknowledged;
    if (from.silent && !from.retired) {
      from.silent = false;
      // What has come across now shows that it works, though it went out before look_anew().
      from.old = std::min(from.old, acknowledged - 1);
      if (from.told)
        news_.push_back({.what = PathNews::What::speaks,
                         .path = static_cast<int>(i),
                         .silent_ns = now_ns - from.spoke_ns});
    }
    from.spoke_ns = now_ns;
    while (!from.sent.empty() && from.sent.front().end <= acknowledged) {
      acknowledge(from.sent.front().record, static_cast<int>(i));
      from.sent.pop_front();
    }
  }
  while (!records_.empty() && records_.front().acknowledged) {
    if (records_.front().copied) copies_tail_ += records_.front().bytes;
    records_.pop_front();
    first_++;
  }
}

uint64_t MultipathSender::released() const {
  if (in_place_ == 0) return accepted_;
  for (const Record& record : records_)
    if (!record.copied && !record.acknowledged) return record.offset;
  return accepted_;
}

bool MultipathSender::flush(int64_t now_ns) {
  if (in_place_ > 0 && now_ns - heard_ns_ >= kHearEveryNs) hear(now_ns);
  pump(now_ns);
  // What a silent path is in the middle of has been copied, and went to another.
  return in_place_ == 0 && waiting_.empty() &&
         std::none_of(outs_.begin(), outs_.end(),
                      [](const Out& out) { return out.writing && out.rest.empty(); });
}

int64_t MultipathSender::rest_ns() const {
  if (!pending()) return -1;
  double longest_s = 0;
  for (const Out& out : outs_) {
    if (!out.usable() || !out.busy() || in_place_ == 0) continue;
    const double known = out.way->bytes_per_s();
    const auto ahead = static_cast<double>(out.ahead());
    longest_s = std::max(longest_s, ahead / (known > 0 ? known : kUnknownBytesPerS));
  }
  if (in_place_ == 0) return kRestMaxNs;
  return std::clamp(static_cast<int64_t>(longest_s * 1e9), kRestMinNs, kRestMaxNs);
}

void MultipathSender::watch(int64_t now_ns) {
  hear(now_ns);
  for (size_t i = 0; i < outs_.size(); i++) {
    Out& to = outs_[i];
    const int64_t silent_ns = now_ns - to.spoke_ns;
    if (to.silent && !to.told && !to.retired && silent_ns >= Path::kSilentNs) {
      to.told = true;
      news_.push_back(
          {.path = static_cast<int>(i), .silent_ns = silent_ns, .bytes = to.silent_bytes});
    }
    if (!to.usable() || !to.busy() || silent_ns < Path::kSilentLeastNs) continue;
    if (!to.way->under_way() || silent_ns < to.way->patience_ns()) continue;
    to.silent = true;
    if (!has_usable()) {  // nobody else: patience is all that is left
      to.silent = false;
      continue;
    }
    // A queue that overflowed keeps a path quiet for a moment, too: that is not worth a word.
    to.told = false;
    to.silent_bytes = send_again(static_cast<int>(i));
  }
  overtake(now_ns);
  pump(now_ns);
}

// At the end of a message one slow path may have everyone wait for its last segments: a path with
// nothing to do sends them, too.
void MultipathSender::overtake(int64_t now_ns) {
  if (!waiting_.empty()) return;
  const auto idle = std::find_if(outs_.begin(), outs_.end(), [&](const Out& out) {
    return out.usable() && out.home && !out.busy();
  });
  if (idle == outs_.end() || idle->way->bytes_per_s() == 0) return;
  for (size_t i = 0; i < outs_.size(); i++) {
    Out& slow = outs_[i];
    if (slow.way == nullptr || !slow.home || slow.sent.empty()) continue;
    const uint64_t id = slow.sent.front().record;
    if (!kept(id) || record(id).acknowledged || record(id).moved) continue;
    const double expected_ns =
        1e9 * static_cast<double>(record(id).bytes) / idle->way->bytes_per_s();
    const auto limit_ns = kOvertakeNs + static_cast<int64_t>(kOvertakeFactor * expected_ns) +
                          idle->way->round_trip_ns();
    if (now_ns - record(id).sent_ns < limit_ns || !slow.way->under_way()) continue;
    for (const Sent& sent : slow.sent)
      if (kept(sent.record)) record(sent.record).moved = true;
    send_again(static_cast<int>(i));
    return;
  }
}

std::optional<PathNews> MultipathSender::take_news() {
  if (news_.empty()) return std::nullopt;
  PathNews news = std::move(news_.front());
  news_.pop_front();
  return news;
}

}  // namespace railccl::transport
