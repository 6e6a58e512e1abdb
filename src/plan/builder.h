// Builder: the verbs an algorithm writes a Program with, so that it reads as sentences.
//
//   Builder b(request, topology_size, rank, "ring");
//   b.channel(0).loop(chunks, [&] {
//     b.send(next, input.chunk(k), Pre::yes);
//     b.recv_reduce(previous, input.chunk(k - 1), output.chunk(k - 1));
//   });
//   return std::move(b).take();
//
// Not thread-safe; one Builder makes one Program. Out-of-range slices are caught by the checker.
#pragma once

#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "plan/plan.h"

namespace railccl::plan {

/// A contiguous range of one buffer: where an algorithm works. Cheap value.
struct Region {
  Buffer buffer = Buffer::input;
  int owner = kHere;
  uint64_t offset = 0;
  uint64_t count = 0;

  /// [from, from + n) of this region.
  Region part(uint64_t from, uint64_t n) const { return {buffer, owner, offset + from, n}; }
  /// Block i of n nearly equal ones (the first count % n blocks are one element longer).
  Region block(uint64_t i, uint64_t n) const {
    const uint64_t base = count / n, longer = count % n;
    return part(i * base + (i < longer ? i : longer), base + (i < longer ? 1 : 0));
  }
  Slice slice() const { return {buffer, owner, offset, count, 0, 0, 0, ~uint64_t{0}}; }
  /// Iteration i covers elements [i*chunk, (i+1)*chunk) of the region, the last one what is left.
  Slice chunks(uint64_t chunk) const {
    return {buffer, owner, offset, chunk, chunk, 0, chunk, count};
  }
  /// Like chunks() of a region with `total` elements, but in a ring of `slots` slots of `chunk`.
  Slice slots(uint64_t chunk, uint32_t slot_count, uint64_t total) const {
    return {buffer, owner, offset, chunk, chunk, slot_count, chunk, total};
  }
};

/// Iterations that chunks(chunk) of `count` elements needs (0 for an empty region).
inline uint64_t chunk_count(uint64_t count, uint64_t chunk) { return (count + chunk - 1) / chunk; }

enum class Pre : bool { no, yes };
enum class Post : bool { no, yes };

class Builder {
 public:
  Builder(const Request& request, int ranks, int rank, std::string algorithm);

  int rank() const { return program_.rank; }
  int ranks() const { return program_.ranks; }
  const Request& request() const { return program_.request; }

  /// Regions of this rank's buffers, with the request's sizes.
  Region input() const;
  Region output() const;
  /// Takes `count` more elements of scratch. The same order of calls gives the same offsets.
  Region scratch(uint64_t count);

  /// Later verbs go to channel c (made when new; channels below it too).
  Builder& channel(int c);
  int channels() const { return static_cast<int>(program_.channels.size()); }
  /// The steps that `body` writes, `iterations` times (for 0 the body is not called). The body may
  /// write to several channels; each of them loops. Loops do not nest. Verbs outside of loop()
  /// happen once.
  void loop(uint64_t iterations, const std::function<void()>& body);

  /// The verbs of plan.h. `pre` scales what is read from src (in reduce: from src, not from
  /// `sources` but for peers' inputs), `post` what is written. Several destinations get the same.
  void copy(const Slice& src, const Slice& dst, Pre pre = Pre::no, Post post = Post::no);
  void copy(const Slice& src, std::span<const Slice> dsts, Pre pre = Pre::no, Post post = Post::no);
  void reduce(const Slice& src, std::span<const Slice> sources, const Slice& dst, Pre pre = Pre::no,
              Post post = Post::no);
  void reduce(const Slice& src, std::span<const Slice> sources, std::span<const Slice> dsts,
              Pre pre = Pre::no, Post post = Post::no);
  void send(int to, const Slice& src, Pre pre = Pre::no);
  void recv(int from, const Slice& dst, Post post = Post::no);
  void recv_reduce(int from, const Slice& src, const Slice& dst, Pre pre = Pre::no,
                   Post post = Post::no);
  void signal(int to);
  void wait(int from);
  /// Between two channels of this rank: signal_channel(c) here matches wait_channel(this) there.
  void signal_channel(int channel);
  void wait_channel(int channel);

  Program take() &&;

 private:
  static constexpr uint64_t kClosed = ~uint64_t{0};
  static constexpr uint64_t kOnce = 0;

  Step& add(Verb verb, Pre pre, Post post);
  void set_destinations(Step& step, std::span<const Slice> dsts);
  Program program_;
  int channel_ = 0;
  uint64_t loops_made_ = 0;
  uint64_t loop_ = kOnce;       // the loop() being written, numbered from 1, or kOnce outside
  uint64_t iterations_ = 1;     // of that loop
  std::vector<uint64_t> open_;  // per channel: the loop that its last Loop belongs to
};

}  // namespace railccl::plan
