// Bundle: several slices travel as one message, packed on one side and unpacked on the other.
//
// For small blocks a message costs more than a copy. Slices that lie next to each other need
// neither; both sides decide that for themselves, since a message has no structure.
#pragma once

#include <algorithm>
#include <vector>

#include "plan/builder.h"

namespace railccl::algorithms {

inline uint64_t total_count(const std::vector<plan::Slice>& pieces) {
  uint64_t count = 0;
  for (const plan::Slice& piece : pieces) count += piece.count;
  return count;
}

/// The pieces with neighbours merged and empty ones left out. Only slices that do not move with a
/// loop merge.
inline std::vector<plan::Slice> merged(const std::vector<plan::Slice>& pieces) {
  std::vector<plan::Slice> runs;
  for (const plan::Slice& piece : pieces) {
    if (piece.count == 0) continue;
    if (!runs.empty()) {
      plan::Slice& last = runs.back();
      const bool fixed = last.stride == 0 && last.clamp_stride == 0 && piece.stride == 0 &&
                         piece.clamp_stride == 0;
      if (fixed && last.buffer == piece.buffer && last.owner == piece.owner &&
          last.offset + last.count == piece.offset) {
        last.count += piece.count;
        continue;
      }
    }
    runs.push_back(piece);
  }
  return runs;
}

/// Copies the pieces one after the other into `room`, which must be at least as long.
inline plan::Region pack(plan::Builder& b, const std::vector<plan::Slice>& pieces,
                         const plan::Region& room, plan::Pre pre = plan::Pre::no) {
  uint64_t at = 0;
  for (const plan::Slice& run : merged(pieces)) {
    b.copy(run, room.part(at, run.count).slice(), pre);
    at += run.count;
  }
  return room.part(0, at);
}

/// The inverse of pack.
inline void unpack(plan::Builder& b, const plan::Region& room,
                   const std::vector<plan::Slice>& pieces) {
  uint64_t at = 0;
  for (const plan::Slice& run : merged(pieces)) {
    b.copy(room.part(at, run.count).slice(), run);
    at += run.count;
  }
}

/// Sends the pieces as one message; through `room` unless they are one run already.
inline void send_bundle(plan::Builder& b, int to, const std::vector<plan::Slice>& pieces,
                        const plan::Region& room) {
  const std::vector<plan::Slice> runs = merged(pieces);
  if (runs.empty()) return;
  b.send(to, runs.size() == 1 ? runs[0] : pack(b, runs, room).slice());
}

/// Receives one message into the pieces; through `room` unless they are one run already.
inline void recv_bundle(plan::Builder& b, int from, const std::vector<plan::Slice>& pieces,
                        const plan::Region& room) {
  const std::vector<plan::Slice> runs = merged(pieces);
  if (runs.empty()) return;
  if (runs.size() == 1) {
    b.recv(from, runs[0]);
    return;
  }
  b.recv(from, room.part(0, total_count(runs)).slice());
  unpack(b, room, runs);
}

/// Chunks of regions of one length, all of the same size, so that several of them fill a message
/// without gaps: the last, shorter chunk is written as steps of its own.
class Chunk {
 public:
  Chunk(uint64_t from, uint64_t n, uint64_t stride) : from_(from), count_(n), stride_(stride) {}
  uint64_t count() const { return count_; }
  plan::Slice of(const plan::Region& region) const {
    plan::Slice slice = region.part(from_, count_).slice();
    slice.stride = stride_;
    return slice;
  }

 private:
  uint64_t from_, count_, stride_;
};

/// Writes `body(const Chunk&)` for `count` elements in chunks of at most `chunk`.
template <typename Body>
void each_chunk(plan::Builder& b, uint64_t count, uint64_t chunk, const Body& body) {
  const uint64_t full = count / chunk, rest = count % chunk;
  if (full > 0) b.loop(full, [&] { body(Chunk(0, chunk, full > 1 ? chunk : 0)); });
  if (rest > 0) b.loop(1, [&] { body(Chunk(full * chunk, rest, 0)); });
}

}  // namespace railccl::algorithms
