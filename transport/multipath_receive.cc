// Reading frames, delivering, putting aside, dropping.
#include "transport/multipath_receive.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "transport/multipath_send.h"
#include "transport/tcp_wire.h"

namespace railccl::transport {
namespace {

// What is put aside is bounded by the sender's window, many times over when several paths bring the
// same. The window does not count what the kernel here has acknowledged and holds unread, so frames
// may be further ahead: by all receive buffers, far below this.
constexpr uint64_t kEarlyBytesMax = 4 * (MultipathSender::kWindowBytes + kTcpSegmentMax);
constexpr uint64_t kAheadMax = uint64_t{1} << 30;
constexpr size_t kWasteBytes = 64 << 10;

}  // namespace

void MultipathReceiver::add(int path, Path* way) {
  if (ins_.size() <= static_cast<size_t>(path)) ins_.resize(static_cast<size_t>(path) + 1);
  assert(in(path).way == nullptr);
  in(path).way = way;
}

void MultipathReceiver::remove(int path) {
  if (static_cast<size_t>(path) >= ins_.size()) return;
  in(path).way = nullptr;
  in(path).left = 0;
  in(path).early.reset();
  in(path).head = in(path).tail = 0;
}

void MultipathReceiver::lose(int path, const Status& why) {
  remove(path);
  lost_.emplace_back(path, why);
}

std::optional<std::pair<int, Status>> MultipathReceiver::take_lost() {
  if (lost_.empty()) return std::nullopt;
  auto lost = std::move(lost_.front());
  lost_.pop_front();
  return lost;
}

// Bytes left of the path's segment; between segments it takes in the next frame, 0 when there is
// none yet. A frame that makes no sense is a failure of the link, a path that breaks is lost.
Result<size_t> MultipathReceiver::next_frame(int path) {
  In& from = in(path);
  if (from.left > 0) return from.left;
  if (from.tail - from.head < kTcpFrameBytes) {
    std::memmove(from.ahead.data(), from.ahead.data() + from.head, from.tail - from.head);
    from.tail -= from.head;
    from.head = 0;
    const iovec range{from.ahead.data() + from.tail, from.ahead.size() - from.tail};
    Result<size_t> got = from.way->read({&range, 1});
    if (!got.is_ok()) {
      lose(path, got.status());
      return size_t{0};
    }
    from.tail += *got;
    if (from.tail < kTcpFrameBytes) return size_t{0};
  }
  const auto frame = decode_tcp_frame({from.ahead.data() + from.head, kTcpFrameBytes});
  if (!frame || frame->offset + frame->bytes > front_ + kAheadMax)
    return Status(Code::remote, Scope::communicator, "malformed frame");
  from.head += kTcpFrameBytes;
  from.offset = frame->offset;
  from.left = frame->bytes;
  from.large = frame->bytes > MultipathSender::kCopyBytes;
  return from.left;
}

// Up to `bytes` of the path's segment to dst. The next frame comes with its end.
Result<size_t> MultipathReceiver::take(int path, std::byte* dst, size_t bytes) {
  In& from = in(path);
  bytes = std::min(bytes, from.left);
  size_t done = std::min(bytes, from.tail - from.head);
  if (done > 0) {
    std::memcpy(dst, from.ahead.data() + from.head, done);
    from.head += done;
  }
  if (done < bytes) {
    from.head = from.tail = 0;
    const bool end = bytes == from.left;
    const iovec ranges[2] = {{dst + done, bytes - done},
                             {from.ahead.data(), end ? from.ahead.size() : 0}};
    Result<size_t> got = from.way->read(ranges);
    if (!got.is_ok()) {
      // What was read ahead counts; the next call finds the path gone.
      from.offset += done;
      lose(path, got.status());
      return done;
    }
    const size_t direct = std::min(*got, bytes - done);
    from.tail = *got - direct;
    done += direct;
  }
  from.offset += done;
  from.left -= done;
  // The sender may not use the source of a large segment before it knows. While more comes in, its
  // acknowledgement will be that of this one, too.
  if (from.left == 0 && from.large && from.head == from.tail) from.way->acknowledge();
  return done;
}

// Bytes of the stream's front that came early. Segments that are behind the front are forgotten,
// but for one that a path still fills: that path goes on by itself.
size_t MultipathReceiver::deliver_early(std::byte* dst, size_t want) {
  while (!earlies_.empty()) {
    const auto first = earlies_.begin();
    if (first->first > front_) return 0;
    const size_t skip = front_ - first->first;
    if (skip < first->second.filled) {
      const size_t bytes = std::min(want, first->second.filled - skip);
      std::memcpy(dst, first->second.bytes.data() + skip, bytes);
      front_ += bytes;
      return bytes;
    }
    for (In& in : ins_)
      if (in.early == first) in.early.reset();
    early_bytes_ -= first->second.bytes.size();
    earlies_.erase(first);
  }
  return 0;
}

// Reads of the path's segment what is there, beside the stream.
Status MultipathReceiver::put_aside(int path, bool* anything) {
  In& from = in(path);
  if (!from.early) {
    if (early_bytes_ + from.left > kEarlyBytesMax)
      return Status(Code::remote, Scope::communicator, "more segments than it may send");
    early_bytes_ += from.left;
    from.early = earlies_.emplace(from.offset, Early());
    (*from.early)->second.bytes.resize(from.left);
  }
  const Earlies::iterator early = *from.early;
  Early& aside = early->second;
  RAILCCL_TRY(const size_t got, take(path, aside.bytes.data() + aside.filled, from.left));
  aside.filled += got;
  *anything |= got > 0;
  if (from.left == 0) from.early.reset();
  return ok();
}

Result<size_t> MultipathReceiver::fetch(std::byte* dst, size_t want) {
  while (true) {
    if (const size_t early = deliver_early(dst, want); early > 0) return early;
    for (size_t i = 0; i < ins_.size(); i++) {
      const int path = static_cast<int>(i);
      while (ins_[i].way != nullptr) {
        RAILCCL_TRY(const size_t left, next_frame(path));
        if (left == 0 || ins_[i].offset > front_) break;
        const bool duplicate = ins_[i].offset < front_;
        if (duplicate && waste_.empty()) waste_.resize(kWasteBytes);
        // A part of a segment may be a duplicate, in front.
        const size_t bytes =
            duplicate ? std::min<uint64_t>(kWasteBytes, front_ - ins_[i].offset) : want;
        RAILCCL_TRY(const size_t got, take(path, duplicate ? waste_.data() : dst, bytes));
        if (got == 0) break;
        if (duplicate) continue;
        front_ += got;
        return got;
      }
    }
    bool anything = false;
    for (size_t i = 0; i < ins_.size(); i++) {
      if (ins_[i].way == nullptr || ins_[i].left == 0) continue;
      RAILCCL_CHECK(put_aside(static_cast<int>(i), &anything));
    }
    if (!anything) return size_t{0};
  }
}

}  // namespace railccl::transport
