// The plan language: what one rank does for one collective, as data.
//
// Request -> (an algorithm) -> Program, one per rank, immutable, without pointers and without time.
// A Program has channels; a channel is a list of loops; a loop repeats its steps. Steps of one
// channel happen in order, channels run concurrently.
//
//   verb         meaning
//   copy         dst = src; targets[0] = src ...
//   reduce       dst = src op sources[0] op sources[1] ... (accumulated in fp32 for narrow floats);
//                targets[0] = dst ...
//   send         a message with the elements of src, to `peer`
//   recv         dst = the next message from `peer`
//   recv_reduce  dst = src op the next message from `peer` (the lower rank's operand first, so that
//                two ranks that exchange get the same bits)
//   signal       an empty message to `peer` (or to another channel of this rank)
//   wait         receives it
//
// Messages between two ranks on one channel arrive in order, exactly once; the receiver's slice has
// the sender's count. A slice whose effective count is 0 makes the step do nothing, on both sides.
// A send is posted: the program goes on while it is in flight. A later step that writes any of its
// source waits for it, and so does the end of the program. At most kSendWindow messages per
// (peer, channel) are in flight; one more waits. Besides these only recv, recv_reduce and wait
// block. Reading or writing a peer's memory never blocks: order it with signal and wait.
// Targets are further places for the same result, mostly peers' outputs: the operands are read once
// and the result is not read back from the first place, which no sequence of steps could say.
//
// `pre` marks the reading of raw input as one rank's contribution, where PreMulSum scales and avg
// on floats divides; each contribution has it exactly once, on its own rank (factors may differ
// between ranks) and before it is combined with others. `post` marks the write of a finished
// result, where avg on integers divides. Algorithms set both; the executor ignores what the
// operator does not need. For collectives that do not reduce both are absent. A peer's input that
// is loaded directly is raw too: `pre` of a step holds for its src and for all of its sources that
// are peers' inputs, each with its owner's factor.
//
// In place: input and output overlap as NCCL defines (all_reduce, reduce, broadcast: same address;
// reduce_scatter: output = input + rank*count; all_gather: input = output + rank*count; gather and
// scatter likewise at the root; all_to_all: not allowed). A program made for a request with
// in_place reads no input element after its place was overwritten with something else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "railccl/types.h"

namespace railccl::plan {

/// One call of a collective: everything a plan depends on, and nothing else (no pointers), hence
/// the cache key and what ranks compare. `count` is NCCL's: elements per rank's block for gather
/// and scatter kinds, total elements for all_reduce, reduce and broadcast.
struct Request {
  Collective collective = Collective::all_reduce;
  Datatype datatype = Datatype::float32;
  Reduction op = Reduction::none;
  bool in_place = false;
  int root = 0;
  uint64_t count = 0;

  friend bool operator==(const Request&, const Request&) = default;
};

/// Elements of `rank`'s input and output buffer, 0 where a rooted collective gives it none.
uint64_t input_elements(const Request& request, int ranks, int rank);
uint64_t output_elements(const Request& request, int ranks, int rank);
inline uint64_t bytes_of(const Request& request) {
  return request.count * size_of(request.datatype);
}
uint64_t hash_of(const Request& request);
/// "all_reduce(count=1024, float, sum)": for people, logs and mismatch errors.
std::string text_of(const Request& request);

enum class Buffer : uint8_t { input, output, scratch };
inline constexpr int kHere = -1;
inline constexpr int kSendWindow = 8;

/// Elements [start, start + n) of a buffer in iteration i of the enclosing loop, where
///   start = offset + (modulo == 0 ? i : i % modulo) * stride
///   n     = clamp(limit - i * clamp_stride, 0, count)
/// The clamp counts un-wrapped positions, so a scratch slot (which wraps) is as short in the last
/// iteration as the output slice it belongs to.
struct Slice {
  Buffer buffer = Buffer::input;
  int32_t owner = kHere;  // kHere, or the rank whose buffer it is (load/store peer; scratch only
                          // unless the topology says same process)
  uint64_t offset = 0;
  uint64_t count = 0;
  uint64_t stride = 0;        // elements the start moves per iteration
  uint32_t modulo = 0;        // 0: never wraps
  uint64_t clamp_stride = 0;  // elements used up per iteration
  uint64_t limit = ~uint64_t{0};

  uint64_t start_at(uint64_t i) const { return offset + (modulo == 0 ? i : i % modulo) * stride; }
  uint64_t count_at(uint64_t i) const {
    const uint64_t used = i * clamp_stride;
    const uint64_t left = used >= limit ? 0 : limit - used;
    return left < count ? left : count;
  }
  friend bool operator==(const Slice&, const Slice&) = default;
};

enum class Verb : uint8_t { copy, reduce, send, recv, recv_reduce, signal, wait };
const char* name_of(Verb verb);

struct Step {
  Verb verb = Verb::copy;
  bool pre = false;           // apply the operator's pre-scaling to src
  bool post = false;          // apply the operator's post-scaling to the result
  int32_t peer = kHere;       // send, recv, recv_reduce, signal, wait; kHere: signal/wait between
                              // two channels of this rank
  uint16_t channel = 0;       // signal/wait with peer == kHere: the other channel
  uint32_t first_source = 0;  // reduce: Program::sources[first_source, first_source + source_count)
  uint32_t source_count = 0;
  uint32_t first_target = 0;  // copy, reduce: Program::targets[first_target, ... + target_count)
  uint32_t target_count = 0;
  Slice dst;
  Slice src;
  friend bool operator==(const Step&, const Step&) = default;
};

struct Loop {
  uint32_t first_step = 0;
  uint32_t step_count = 0;
  uint64_t iterations = 1;
  friend bool operator==(const Loop&, const Loop&) = default;
};

struct Channel {
  std::vector<Loop> loops;
  std::vector<Step> steps;
  friend bool operator==(const Channel&, const Channel&) = default;
};

struct Program {
  int rank = 0;
  int ranks = 1;
  std::string algorithm;  // the name it was made by
  Request request;
  uint64_t scratch_elements = 0;
  std::vector<Channel> channels;
  std::vector<Slice> sources;  // side table of reduce
  std::vector<Slice> targets;  // side table of copy and reduce
  friend bool operator==(const Program&, const Program&) = default;
};

/// What the chooser fixes besides the algorithm; equal on all ranks.
struct Tuning {
  int channels = 1;
  uint64_t chunk_elements = 1 << 16;  // unit of pipelining
  friend bool operator==(const Tuning&, const Tuning&) = default;
};

/// What a plan costs the slowest rank, in the terms of the alpha-beta-gamma model; closed form
/// from each algorithm's file. The runtime multiplies with the topology's constants.
struct Cost {
  double inner_rounds = 0;   // sequential messages or signals inside hosts
  double outer_rounds = 0;   // sequential messages between hosts
  int outer_senders = 0;     // ranks of a host that send in one of these; 0: all
  double inner_extra = 0;    // messages and signals of the busiest rank beyond one for each round,
  double outer_extra = 0;    // inside hosts and between them
  double inner_bytes = 0;    // bytes through the slowest rank's in-host port, one direction
  double shared_bytes = 0;   // bytes that the slowest rank writes where peers will load them
  double peer_bytes = 0;     // bytes that the slowest rank loads straight from peers' memory
  double fetched_bytes = 0;  // bytes that the system copies out of peers' memory for that rank
  double cross_bytes =
      0;  // of sent and loaded ones, bytes that cross between domains (NUMA nodes, caches)
  double outer_bytes = 0;  // bytes through the slowest NIC, one direction; where NICs are unequal,
                           // as many as take it as long as the busiest one takes for its own
  double spine_bytes = 0;  // of these, bytes that leave their rail
  double local_bytes = 0;  // bytes read by copies and reductions on the slowest rank
  bool staged = false;     // the program has channels for its stages (staged.h)
};

/// A text form for people, golden files and tools; parse(print(p)) == p for what a Builder made and
/// validate() (checker.h) accepts. parse() is safe on any bytes, refuses with
/// Code::invalid_argument and the line, and what it returns is valid; whether it is right is for
/// check() to say.
std::string print(const Program& program);
Result<Program> parse(std::string_view text);

}  // namespace railccl::plan
