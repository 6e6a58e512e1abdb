// CheckRun, second half: what steps read and write, what must hold in the end, and how it is told.
#include <algorithm>

#include "plan/check_run.h"

namespace railccl::plan {
namespace {

/// Far above any machine, and low enough that sums of addresses cannot overflow.
constexpr uint64_t kElementsMax = uint64_t{1} << 48;

const char* name_of(Buffer buffer) {
  switch (buffer) {
    case Buffer::input:
      return "input";
    case Buffer::output:
      return "output";
    case Buffer::scratch:
      return "scratch";
  }
  return "no buffer";
}

}  // namespace

Status CheckRun::lay_out(int rank) {
  const Program& program = programs_[static_cast<size_t>(rank)];
  if (request_.count > kElementsMax / static_cast<uint64_t>(ranks_) ||
      program.scratch_elements > kElementsMax)
    return Status(Code::internal, "rank {}: buffers of more than 2^48 elements", rank);
  Layout layout;
  layout.input = input_elements(request_, ranks_, rank);
  layout.output = output_elements(request_, ranks_, rank);
  const uint64_t mine = request_.count * static_cast<uint64_t>(rank);
  if (!request_.in_place || layout.input == 0 || layout.output == 0)
    layout.output_at = layout.input;
  else if (layout.input < layout.output)
    layout.input_at = mine;
  else if (layout.output < layout.input)
    layout.output_at = mine;
  layout.scratch_at = std::max(layout.input_at + layout.input, layout.output_at + layout.output);
  layout.scratch = program.scratch_elements;
  Memory& memory = memories_.emplace_back(
      layout.total(), Epoch{first_thread_[static_cast<size_t>(rank)], kStartClock},
      tracked_ ? &history_ : nullptr);
  if (layout.input > 0)
    memory.store(layout.input_at, {{layout.input, 0, {sets_.single(rank), false, false, true}}});
  layouts_.push_back(layout);
  return ok();
}

Status CheckRun::resolve(const Thread& thread, const Slice& slice, bool writes,
                         Range& range) const {
  range.rank = slice.owner == kHere ? thread.rank : slice.owner;
  range.buffer = slice.buffer;
  const char* name = name_of(slice.buffer);
  if (range.rank < 0 || range.rank >= ranks_)
    return wrong(thread, "there is no rank {} to own a buffer", slice.owner);
  uint64_t used = 0, moved = 0;
  const uint64_t turn = slice.modulo == 0 ? thread.iteration : thread.iteration % slice.modulo;
  if (__builtin_mul_overflow(thread.iteration, slice.clamp_stride, &used) ||
      __builtin_mul_overflow(turn, slice.stride, &moved) ||
      __builtin_add_overflow(moved, slice.offset, &range.start))
    return wrong(thread, "the position in {} overflows", name);
  range.count = slice.count_at(thread.iteration);
  if (range.count == 0) return ok();
  if (range.rank != thread.rank &&
      (!options_.load_store || !options_.load_store(thread.rank, range.rank, slice.buffer)))
    return wrong(thread, "rank {}'s {} cannot be reached by load and store", range.rank, name);
  if (range.rank != thread.rank && slice.buffer == Buffer::scratch &&
      layouts_[static_cast<size_t>(range.rank)].scratch !=
          layouts_[static_cast<size_t>(thread.rank)].scratch)
    return wrong(thread, "rank {}'s scratch is reached, but has not the size of rank {}'s",
                 range.rank, thread.rank);
  if (writes && slice.buffer == Buffer::input)
    return wrong(thread, "the input is written, but belongs to the caller");
  const Layout& layout = layouts_[static_cast<size_t>(range.rank)];
  uint64_t at = layout.scratch_at, size = layout.scratch;
  if (slice.buffer == Buffer::input) at = layout.input_at, size = layout.input;
  if (slice.buffer == Buffer::output) at = layout.output_at, size = layout.output;
  if (range.count > size || range.start > size - range.count)
    return wrong(thread, "elements [{}, {} + {}) are outside of {}{}, which has {}", range.start,
                 range.start, range.count,
                 range.rank == thread.rank ? "" : fmt::format("rank {}'s ", range.rank), name,
                 size);
  range.start += at;
  return ok();
}

/// Source and destination have one size, and are the same range or do not touch.
Status CheckRun::apart(const Thread& thread, const Range& dst, const Range& src) const {
  if (dst.count != src.count)
    return wrong(thread, "{} elements are read, but {} are written", src.count, dst.count);
  if (dst.count != 0 && dst.rank == src.rank && dst.start != src.start &&
      dst.start < src.start + src.count && src.start < dst.start + dst.count)
    return wrong(thread, "source and destination overlap without being the same, from {} on",
                 element_text(thread, dst, std::max(dst.start, src.start)));
  return ok();
}

/// A posted send of this rank, on any channel, still reads what the thread is about to write.
bool CheckRun::blocked_by_send(Thread& thread, const Range& dst) {
  for (const InFlight& send : in_flight_[static_cast<size_t>(thread.rank)]) {
    if (send.rank != dst.rank || send.end <= dst.start || dst.start + dst.count <= send.start)
      continue;
    thread.obstacle = Obstacle::source_in_flight;
    thread.obstacle_step = send.step;
    return true;
  }
  return false;
}

Status CheckRun::read(uint32_t t, const Range& range, bool pre, uint32_t receipt,
                      std::vector<Piece>& pieces) {
  const Thread& thread = threads_[t];
  Memory& memory = memories_[static_cast<size_t>(range.rank)];
  if (const auto conflict =
          memory.note_read(range.start, range.count, now(t), thread.clock, receipt))
    return race(thread, range, false, *conflict);
  pieces.clear();
  memory.load(range.start, range.count, pieces);
  uint64_t address = range.start;
  for (Piece& piece : pieces) {
    if (!piece.content.written)
      return wrong(thread, "{} is read but was never written",
                   element_text(thread, range, address));
    const Content raw = {sets_.single(range.rank), false, false, true};
    const uint64_t index = address - layouts_[static_cast<size_t>(range.rank)].input_at;
    if (range.buffer == Buffer::input && !(piece.content == raw && piece.base == index))
      return wrong(thread, "{} is read as input, but was overwritten in place with {}",
                   element_text(thread, range, address), content_text(piece));
    if (pre) {
      const int owner = range.buffer == Buffer::input ? range.rank : thread.rank;
      if (piece.content != Content{sets_.single(owner), false, false, true})
        return wrong(thread, "pre is for a raw contribution, but {} holds {}",
                     element_text(thread, range, address), content_text(piece));
      piece.content.pre = true;
    }
    address += piece.length;
  }
  return ok();
}

Status CheckRun::write(uint32_t t, const Range& range, bool post, std::vector<Piece>& pieces) {
  const Thread& thread = threads_[t];
  Memory& memory = memories_[static_cast<size_t>(range.rank)];
  uint64_t address = range.start;
  for (Piece& piece : pieces) {
    if (post) {
      if (piece.content != Content{sets_.everyone(), true, false, true})
        return wrong(thread, "post is for a finished result, but {} gets {}",
                     element_text(thread, range, address), content_text(piece));
      piece.content.post = true;
    }
    address += piece.length;
  }
  if (const auto conflict = memory.note_write(range.start, range.count, now(t), thread.clock))
    return race(thread, range, true, *conflict);
  memory.store(range.start, pieces);
  return ok();
}

/// result = a op b, piece by piece.
Status CheckRun::combine(const Thread& thread, const Range& dst, const std::vector<Piece>& a,
                         const std::vector<Piece>& b, std::vector<Piece>& result) {
  result.clear();
  uint64_t address = dst.start, a_used = 0, b_used = 0;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const uint64_t length = std::min(a[i].length - a_used, b[j].length - b_used);
    const Piece left = {length, a[i].base + a_used, a[i].content};
    const Piece right = {length, b[j].base + b_used, b[j].content};
    for (const Piece* side : {&left, &right})
      if (!side->content.pre || side->content.post)
        return wrong(thread, "{} {} to be combined for {}", content_text(*side),
                     side->content.post ? "is already finished with post, but is"
                                        : "has not had pre, but is",
                     element_text(thread, dst, address));
    if (left.base != right.base)
      return wrong(thread, "{} and {} would be combined for {}", content_text(left),
                   content_text(right), element_text(thread, dst, address));
    const uint32_t set = sets_.join(left.content.set, right.content.set);
    if (set == ContributionSets::kOverlap)
      return wrong(thread, "rank {}'s contribution would be counted twice in {}: {} with {}",
                   sets_.common(left.content.set, right.content.set),
                   element_text(thread, dst, address), content_text(left), content_text(right));
    append(result, {length, left.base, {set, true, false, true}});
    address += length;
    if ((a_used += length) == a[i].length) i++, a_used = 0;
    if ((b_used += length) == b[j].length) j++, b_used = 0;
  }
  return ok();
}

Status CheckRun::stuck() const {
  constexpr int kNamed = 3;
  std::string reasons;
  int blocked = 0;
  for (const Thread& thread : threads_) {
    if (thread.done || ++blocked > kNamed) continue;
    const Step* step = current(thread);
    std::string reason;
    switch (thread.obstacle) {
      case Obstacle::none:
      case Obstacle::nothing_arrived:
        reason = "waits for a message that never comes";
        break;
      case Obstacle::window_full:
        reason = fmt::format("waits for ever because {} messages to rank {} are in flight",
                             options_.send_window, step->peer);
        break;
      case Obstacle::source_in_flight:
        reason = fmt::format("waits for ever to overwrite what the send of step {} still reads",
                             thread.obstacle_step);
        break;
    }
    reasons += fmt::format("{}{} {}", blocked == 1 ? "" : "; ", place(thread), reason);
  }
  if (blocked == 0) return ok();
  if (blocked > kNamed) reasons += fmt::format("; and {} more channels", blocked - kNamed);
  return Status(Code::internal, "deadlock: {}", reasons);
}

Status CheckRun::nothing_left() const {
  for (const Queue& queue : queues_) {
    if (queue.messages.empty()) continue;
    const Thread& sender = threads_[queue.from];
    const Message& message = messages_[queue.messages.front()];
    const std::string to = queue.to_channel == kHere ? fmt::format("rank {}", queue.to_rank)
                                                     : fmt::format("channel {}", queue.to_channel);
    return Status(Code::internal, "rank {} channel {} step {}: {} to {} is never received",
                  sender.rank, sender.channel, message.step,
                  message.signal ? std::string("a signal")
                                 : fmt::format("a message of {} elements", message.count),
                  to);
  }
  return ok();
}

/// No rank returns, and has its scratch reused, while another may still access its memory.
Status CheckRun::nobody_looks_in() const {
  if (!tracked_) return ok();
  for (int rank = 0; rank < ranks_; rank++) {
    const size_t r = static_cast<size_t>(rank);
    VectorClock clock(threads_.size(), 0);
    for (uint32_t t = first_thread_[r]; t < first_thread_[r + 1]; t++)
      for (size_t i = 0; i < clock.size(); i++) clock[i] = std::max(clock[i], threads_[t].clock[i]);
    const auto conflict = memories_[r].unfinished(rank, clock);
    if (!conflict) continue;
    const Thread& other = threads_[conflict->other.thread];
    const Layout& layout = layouts_[r];
    const Buffer buffer = conflict->address >= layout.scratch_at  ? Buffer::scratch
                          : conflict->address >= layout.output_at ? Buffer::output
                                                                  : Buffer::input;
    const uint64_t at = buffer == Buffer::scratch  ? layout.scratch_at
                        : buffer == Buffer::output ? layout.output_at
                                                   : layout.input_at;
    return Status(Code::internal,
                  "rank {} returns while rank {} channel {} may still {} element {} of its {}",
                  rank, other.rank, other.channel, conflict->other_writes ? "write" : "read",
                  conflict->address - at, name_of(buffer));
  }
  return ok();
}

Status CheckRun::outputs_right() const {
  const uint64_t n = request_.count;
  constexpr int kEveryone = -1;
  for (int rank = 0; rank < ranks_; rank++) {
    const uint64_t mine = n * static_cast<uint64_t>(rank);
    if (output_elements(request_, ranks_, rank) == 0) continue;
    switch (request_.collective) {
      case Collective::all_reduce:
      case Collective::reduce:
        RAILCCL_CHECK(output_right(rank, 0, n, kEveryone, 0));
        break;
      case Collective::reduce_scatter:
        RAILCCL_CHECK(output_right(rank, 0, n, kEveryone, mine));
        break;
      case Collective::broadcast:
        RAILCCL_CHECK(output_right(rank, 0, n, request_.root, 0));
        break;
      case Collective::scatter:
        RAILCCL_CHECK(output_right(rank, 0, n, request_.root, mine));
        break;
      case Collective::all_gather:
      case Collective::gather:
      case Collective::all_to_all:
        for (int from = 0; from < ranks_; from++)
          RAILCCL_CHECK(
              output_right(rank, n * static_cast<uint64_t>(from), n, from,
                           request_.collective == Collective::all_to_all ? mine : uint64_t{0}));
        break;
    }
  }
  return ok();
}

/// Elements [element, element + length) of rank's output are elements `base` and on of the
/// contributor's input, or the finished results of everyone's for a negative contributor.
Status CheckRun::output_right(int rank, uint64_t element, uint64_t length, int contributor,
                              uint64_t base) const {
  const bool everyone = contributor < 0;
  const Piece expected = {length, base,
                          everyone ? Content{sets_.everyone(), true, true, true}
                                   : Content{sets_.single(contributor), false, false, true}};
  const size_t r = static_cast<size_t>(rank);
  std::vector<Piece> pieces;
  memories_[r].load(layouts_[r].output_at + element, length, pieces);
  uint64_t done = 0;
  for (const Piece& piece : pieces) {
    if (!piece.content.written)
      return Status(Code::internal, "rank {}: element {} of output was never written", rank,
                    element + done);
    const Piece right = {piece.length, base + done, expected.content};
    if (piece.content != right.content || piece.base != right.base)
      return Status(Code::internal, "rank {}: element {} of output is {} instead of {}", rank,
                    element + done, content_text(piece), content_text(right));
    done += piece.length;
  }
  return ok();
}

void CheckRun::count() {
  for (const Queue& queue : queues_) {
    if (queue.to_channel != kHere || queue.posted == 0) continue;
    const int from = threads_[queue.from].rank, to = queue.to_rank;
    const uint64_t bytes = queue.elements * size_of(request_.datatype);
    if (bytes > 0) report_.bytes[{from, to}] += bytes;
    report_.messages[{from, to}] += queue.posted;
    const auto differ = [from, to](const std::vector<int>& of) {
      return !of.empty() && of[static_cast<size_t>(from)] != of[static_cast<size_t>(to)];
    };
    if (!differ(options_.host_of)) continue;
    report_.inter_host_bytes += bytes;
    if (differ(options_.rail_of)) report_.cross_rail_bytes += bytes;
  }
}

const Step* CheckRun::current(const Thread& thread) const {
  const Channel& channel =
      programs_[static_cast<size_t>(thread.rank)].channels[static_cast<size_t>(thread.channel)];
  return &channel.steps[step_index(thread)];
}

size_t CheckRun::step_index(const Thread& thread) const {
  const Channel& channel =
      programs_[static_cast<size_t>(thread.rank)].channels[static_cast<size_t>(thread.channel)];
  return channel.loops[thread.loop].first_step + thread.step;
}

/// "rank 3 channel 0 step 7 iteration 2 (recv_reduce from 2)".
std::string CheckRun::place(const Thread& thread) const {
  const Channel& channel =
      programs_[static_cast<size_t>(thread.rank)].channels[static_cast<size_t>(thread.channel)];
  std::string text = fmt::format("rank {} channel {}", thread.rank, thread.channel);
  if (thread.loop >= channel.loops.size()) return text + " at its end";
  const Step& step = *current(thread);
  text += fmt::format(" step {}", step_index(thread));
  if (channel.loops[thread.loop].iterations > 1)
    text += fmt::format(" iteration {}", thread.iteration);
  text += fmt::format(" ({}", plan::name_of(step.verb));
  const bool sends = step.verb == Verb::send || step.verb == Verb::signal;
  if (step.peer != kHere)
    text += fmt::format(" {} {}", sends ? "to" : "from", step.peer);
  else if (step.verb == Verb::signal || step.verb == Verb::wait)
    text += fmt::format(" {} channel {}", sends ? "to" : "from", step.channel);
  return text + ")";
}

std::string CheckRun::element_text(const Thread& thread, const Range& range,
                                   uint64_t address) const {
  const Layout& layout = layouts_[static_cast<size_t>(range.rank)];
  const uint64_t at = range.buffer == Buffer::input    ? layout.input_at
                      : range.buffer == Buffer::output ? layout.output_at
                                                       : layout.scratch_at;
  return fmt::format("element {} of {}{}", address - at,
                     range.rank == thread.rank ? "" : fmt::format("rank {}'s ", range.rank),
                     name_of(range.buffer));
}

/// "input element 7 of ranks 0, 1 with pre".
std::string CheckRun::content_text(const Piece& piece) const {
  std::string text =
      fmt::format("input element {} of {}", piece.base, sets_.text(piece.content.set));
  if (!reduces_) return text;
  if (piece.content.pre && piece.content.post) return text + " with pre and post";
  if (piece.content.pre) return text + " with pre";
  return text + (piece.content.post ? " with post" : " without pre");
}

Status CheckRun::race(const Thread& thread, const Range& range, bool writes,
                      const Conflict& conflict) const {
  const Thread& other = threads_[conflict.other.thread];
  const std::string what = element_text(thread, range, std::max(range.start, conflict.address));
  if (conflict.other.clock == kStartClock)
    return wrong(thread, "{} is {} before rank {} is known to have entered the call", what,
                 writes ? "written" : "read", range.rank);
  return wrong(thread, "{} is {} while rank {} channel {} may {} it: nothing orders the two", what,
               writes ? "written" : "read", other.rank, other.channel,
               conflict.other_writes ? "write" : "read");
}

}  // namespace railccl::plan
