// MultipathSender: sends one link's byte stream over several paths, and again what a failed path
// may have lost.
//
// The stream is cut into segments, each behind a frame that says where in the stream it belongs. A
// segment goes to the path that will have it across first, by what each has under way and what it
// was measured to carry. It is kept until the path's far end has it; what a broken or silent path
// may have swallowed goes out again over the others. What so arrives twice, the receiver drops
// (multipath_receive.h).
//
//   home paths   those of the rank's own rail: used alone while one of them works
//   spare paths  the host's other rails: used, all alike, when no home path works
//   silent       a path with bytes under way of which none was acknowledged for a while. What it
//                has goes over others as well; it is used again once it speaks.
//
// Small segments are copied, large ones stay where they are until released() has passed them. A
// frame once begun on a path is written to its end, whatever happens: when its source may be
// released before (because the segment came across by another path), the rest is copied.
//
// One thread at a time, that of the link. Times are those of base/clock.h, given by the caller.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "transport/mirrored.h"
#include "transport/path.h"
#include "transport/tcp_wire.h"

namespace railccl::transport {

/// What the sender noticed about a path; the link tells the world.
struct PathNews {
  enum class What : uint8_t { silent, speaks, broken };
  What what = What::silent;
  int path = 0;
  int64_t silent_ns = 0;  // silent, speaks: for how long it said nothing
  uint64_t bytes = 0;     // silent, broken: what goes over other paths as well now
  Status why{};           // broken
};

class MultipathSender {
 public:
  /// Paths are known by a small number, free to be given again after remove().
  void add(int path, Path* way, bool home, int64_t now_ns);
  /// What it may have lost goes over others. Nothing if it is not there.
  void remove(int path);
  /// The same, but what it acknowledges by and by still counts: until remove().
  void retire(int path);
  /// Is the path there, and not silent?
  bool usable(int path) const;
  bool has_usable() const;
  bool has_home() const;

  /// Takes a prefix of the ranges (at most 4); 0: no room.
  Result<size_t> send(std::span<const iovec> ranges, int64_t now_ns);
  /// As Link::released.
  uint64_t released() const;
  /// Goes on with what is begun or waits, and hears what has come across. True when all that is
  /// still needed in place is released and paths have taken all that was copied.
  bool flush(int64_t now_ns);
  /// Looks for silent paths: to be called every few milliseconds while pending().
  void watch(int64_t now_ns);
  /// Is anything not acknowledged?
  bool pending() const { return !records_.empty(); }
  /// How soon flush() may have heard what it waits for; -1: it waits for nothing.
  int64_t rest_ns() const;
  /// Has the path anything acknowledged that went out since look_anew()?
  bool proven(int path) const {
    return outs_[static_cast<size_t>(path)].acknowledged > outs_[static_cast<size_t>(path)].old;
  }
  void look_anew() {
    for (Out& out : outs_) out.old = out.written;
  }
  /// Has the path anything under way?
  bool busy(int path) const { return outs_[static_cast<size_t>(path)].busy(); }
  /// The oldest news, once. A path told to be broken was removed.
  std::optional<PathNews> take_news();

  /// Frames and changes of path cost little at this size, and few megabytes keep paths busy.
  static constexpr size_t kSegmentBytes = 64 << 10;
  /// Not acknowledged, at most: bounds what the receiver may have to put aside.
  static constexpr uint64_t kWindowBytes = 8 << 20;
  /// Copying costs less than waiting for an acknowledgement.
  static constexpr size_t kCopyBytes = 16 << 10;

 private:
  using Ranges = std::array<iovec, 4>;
  struct Record {  // a segment that may have to be sent again
    uint64_t offset = 0;
    size_t bytes = 0;
    bool copied = false;
    bool acknowledged = false;
    bool moved = false;  // once overtaken by others, it is not moved a second time
    int path = -1;       // that had it last
    int64_t sent_ns = 0;
    Ranges ranges{};
  };
  struct Sent {
    uint64_t record = 0;
    uint64_t end = 0;  // of the bytes written to the path, behind this segment
  };
  struct Out {  // a path
    Path* way = nullptr;
    bool home = false;
    bool silent = false;
    bool told = false;          // and told the world
    uint64_t silent_bytes = 0;  // that went over others for that
    bool retired = false;
    uint64_t written = 0;
    uint64_t acknowledged = 0;
    uint64_t old = 0;      // of the bytes written: before look_anew()
    int64_t spoke_ns = 0;  // when it last acknowledged anything, or had nothing to
    std::deque<Sent> sent;
    bool full = false;     // took nothing a moment ago
    bool writing = false;  // the segment `current` has been begun
    uint64_t current = 0;
    TcpFrameBytes header{};
    size_t header_left = 0;
    Ranges ranges{};
    size_t left = 0;
    std::vector<std::byte> rest;

    bool busy() const { return writing || !sent.empty(); }
    bool has_room() const { return !writing && !full; }
    /// Bytes that it has to get across before another one's turn comes.
    uint64_t ahead() const { return written + left - acknowledged; }
    bool usable() const { return way != nullptr && !silent && !retired; }
  };

  Out& out(int path) { return outs_[static_cast<size_t>(path)]; }
  size_t homes() const;  // that work
  bool kept(uint64_t id) const { return id >= first_ && id - first_ < records_.size(); }
  Record& record(uint64_t id) { return records_[id - first_]; }
  void add_record(const Record& record);
  std::byte* copy(std::span<const iovec> ranges, size_t bytes);
  void pump(int64_t now_ns);
  int best_path(size_t bytes);
  bool begin(int path, uint64_t id, int64_t now_ns);
  bool advance(int path);
  void keep_rest(Out& out);
  uint64_t send_again(int path);
  void hear(int64_t now_ns);
  void acknowledge(uint64_t id, int path);
  void overtake(int64_t now_ns);
  void lose(int path, const Status& why);

  std::deque<Out> outs_;        // they stay in place: ranges may point to `rest`
  std::deque<Record> records_;  // in stream order, without gaps
  uint64_t first_ = 0;          // number of records_.front()
  struct Waiting {
    uint64_t record = 0;
    size_t bytes = 0;
  };
  std::deque<Waiting> waiting_;  // for a path, in stream order as far as possible
  uint64_t waiting_bytes_ = 0;
  struct Candidate {
    int path = -1;
    double bytes_per_s = 0;
    double finish_s = 0;
  };
  std::vector<Candidate> order_;  // of best_path(): kept to save allocations
  uint64_t accepted_ = 0;
  int in_place_ = 0;  // records neither copied nor acknowledged
  int64_t heard_ns_ = 0;
  Mirrored copies_;
  uint64_t copies_head_ = 0, copies_tail_ = 0;
  std::deque<PathNews> news_;
};

}  // namespace railccl::transport
