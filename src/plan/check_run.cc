// CheckRun, first half: threads, queues and what each verb does.
#include "plan/check_run.h"

#include <algorithm>

#include "base/random.h"

namespace railccl::plan {
namespace {

std::vector<int> ranks_of_threads(const std::vector<Program>& programs) {
  std::vector<int> ranks;
  for (const Program& program : programs)
    ranks.insert(ranks.end(), program.channels.size(), program.rank);
  return ranks;
}

/// Does any thread reach memory that another one reaches too, as far as a glance can tell?
bool shares_memory(const std::vector<Program>& programs) {
  const auto reaches_out = [](const Program& program, const Slice& slice) {
    return slice.owner != kHere && slice.owner != program.rank;
  };
  for (const Program& program : programs) {
    if (program.channels.size() > 1) return true;
    for (const Channel& channel : program.channels)
      for (const Step& step : channel.steps)
        if (reaches_out(program, step.src) || reaches_out(program, step.dst)) return true;
    for (const std::vector<Slice>* table : {&program.sources, &program.targets})
      for (const Slice& slice : *table)
        if (reaches_out(program, slice)) return true;
  }
  return false;
}

void join(VectorClock& clock, const VectorClock& other) {
  for (size_t i = 0; i < clock.size(); i++) clock[i] = std::max(clock[i], other[i]);
}

}  // namespace

CheckRun::CheckRun(const Request& request, const std::vector<Program>& programs,
                   const CheckOptions& options)
    : request_(request),
      programs_(programs),
      options_(options),
      ranks_(static_cast<int>(programs.size())),
      reduces_(reduces(request.collective)),
      sets_(ranks_),
      history_(ranks_of_threads(programs)),
      in_flight_(programs.size()),
      tracked_(shares_memory(programs)) {}

Result<CheckReport> CheckRun::run() {
  start_threads();
  for (int rank = 0; rank < ranks_; rank++) RAILCCL_CHECK(lay_out(rank));
  report_.local_bytes.assign(static_cast<size_t>(ranks_), 0);
  RAILCCL_CHECK(run_threads());
  RAILCCL_CHECK(stuck());
  RAILCCL_CHECK(nothing_left());
  RAILCCL_CHECK(nobody_looks_in());
  RAILCCL_CHECK(outputs_right());
  count();
  return std::move(report_);
}

void CheckRun::start_threads() {
  for (const Program& program : programs_) {
    first_thread_.push_back(static_cast<uint32_t>(threads_.size()));
    for (size_t c = 0; c < program.channels.size(); c++) {
      Thread& thread = threads_.emplace_back();
      thread.rank = program.rank;
      thread.channel = static_cast<int>(c);
    }
  }
  first_thread_.push_back(static_cast<uint32_t>(threads_.size()));
  for (uint32_t t = 0; t < threads_.size(); t++) {
    ready_.push_back(t);
    threads_[t].queued = true;
    if (!tracked_) continue;
    // All channels of a rank start after the rank has entered the call.
    VectorClock& clock = threads_[t].clock;
    clock.assign(threads_.size(), options_.all_entered ? kStartClock : 0);
    const size_t rank = static_cast<size_t>(threads_[t].rank);
    for (uint32_t sibling = first_thread_[rank]; sibling < first_thread_[rank + 1]; sibling++)
      clock[sibling] = kStartClock;
    clock[t] = kStartClock + 1;
  }
}

Status CheckRun::run_threads() {
  Random random(options_.order_seed);
  while (!ready_.empty()) {
    if (options_.order_seed != 0) std::swap(ready_.front(), ready_[random.below(ready_.size())]);
    const uint32_t t = ready_.front();
    ready_.pop_front();
    threads_[t].queued = false;
    while (!threads_[t].done) {
      RAILCCL_CHECK(advance(t));
      if (threads_[t].obstacle != Obstacle::none) break;
      if (++steps_run_ > options_.steps_max)
        return wrong(threads_[t], "gave up after {} steps of all ranks", options_.steps_max);
      if (options_.order_seed != 0 && random.chance(0.5)) {
        if (!threads_[t].queued) ready_.push_back(t);
        threads_[t].queued = true;
        break;
      }
    }
  }
  return ok();
}

/// Performs the current step and goes on to the next, or notes the obstacle.
Status CheckRun::advance(uint32_t t) {
  Thread& thread = threads_[t];
  const Channel& channel =
      programs_[static_cast<size_t>(thread.rank)].channels[static_cast<size_t>(thread.channel)];
  while (thread.loop < channel.loops.size() &&
         (channel.loops[thread.loop].step_count == 0 || channel.loops[thread.loop].iterations == 0))
    thread.loop++;
  if (thread.loop == channel.loops.size()) {
    thread.done = true;
    return ok();
  }
  const Loop& loop = channel.loops[thread.loop];
  thread.obstacle = Obstacle::none;
  RAILCCL_CHECK(perform(t, channel.steps[loop.first_step + thread.step]));
  if (thread.obstacle != Obstacle::none || ++thread.step < loop.step_count) return ok();
  thread.step = 0;
  if (++thread.iteration < loop.iterations) return ok();
  thread.iteration = 0;
  thread.loop++;
  return ok();
}

Status CheckRun::perform(uint32_t t, const Step& step) {
  switch (step.verb) {
    case Verb::copy:
    case Verb::reduce:
      return perform_local(t, step);
    case Verb::send:
      return perform_send(t, step);
    case Verb::recv:
    case Verb::recv_reduce:
      return perform_recv(t, step);
    case Verb::signal:
      return perform_signal(t, step);
    case Verb::wait:
      return perform_wait(t, step);
  }
  return wrong(threads_[t], "verb {} does not exist", static_cast<int>(step.verb));
}

Status CheckRun::perform_local(uint32_t t, const Step& step) {
  Thread& thread = threads_[t];
  const Program& program = programs_[static_cast<size_t>(thread.rank)];
  Range src;
  RAILCCL_CHECK(resolve(thread, step.src, false, src));
  RAILCCL_CHECK(resolve_destinations(thread, step));
  for (const Range& to : destinations_) RAILCCL_CHECK(apart(thread, to, src));
  for (uint32_t s = 0; s < step.source_count; s++) {
    Range source;
    RAILCCL_CHECK(resolve(thread, program.sources[step.first_source + s], false, source));
    for (const Range& to : destinations_) RAILCCL_CHECK(apart(thread, to, source));
  }
  const Range& dst = destinations_.front();
  if (dst.count == 0) return ok();
  for (const Range& to : destinations_)
    if (blocked_by_send(thread, to)) return ok();
  RAILCCL_CHECK(read(t, src, step.pre, History::kNone, operand_));
  for (uint32_t s = 0; s < step.source_count; s++) {
    Range source;
    RAILCCL_CHECK(resolve(thread, program.sources[step.first_source + s], false, source));
    const bool raw = source.buffer == Buffer::input && source.rank != thread.rank;
    RAILCCL_CHECK(read(t, source, step.pre && raw, History::kNone, others_));
    RAILCCL_CHECK(combine(thread, dst, operand_, others_, result_));
    std::swap(operand_, result_);
  }
  report_.local_bytes[static_cast<size_t>(thread.rank)] +=
      (1 + uint64_t{step.source_count}) * dst.count * size_of(request_.datatype);
  for (size_t d = 0; d < destinations_.size(); d++)
    RAILCCL_CHECK(write(t, destinations_[d], step.post && d == 0, operand_));
  return ok();
}

Status CheckRun::resolve_destinations(const Thread& thread, const Step& step) {
  const Program& program = programs_[static_cast<size_t>(thread.rank)];
  destinations_.clear();
  for (uint32_t d = 0; d <= step.target_count; d++) {
    Range range;
    RAILCCL_CHECK(resolve(thread, d == 0 ? step.dst : program.targets[step.first_target + d - 1],
                          true, range));
    for (const Range& other : destinations_) {
      if (range.count != other.count)
        return wrong(thread, "{} elements are written, but {} elsewhere", other.count, range.count);
      if (range.count != 0 && range.rank == other.rank && range.start < other.start + other.count &&
          other.start < range.start + range.count)
        return wrong(thread, "two destinations overlap, from {} on",
                     element_text(thread, range, std::max(range.start, other.start)));
    }
    destinations_.push_back(range);
  }
  return ok();
}

Status CheckRun::perform_send(uint32_t t, const Step& step) {
  Thread& thread = threads_[t];
  Range src;
  RAILCCL_CHECK(resolve(thread, step.src, false, src));
  if (src.count == 0) return ok();
  const uint32_t queue = queue_to(t, step.peer, kHere);
  if (queues_[queue].messages.size() >= static_cast<size_t>(options_.send_window)) {
    thread.obstacle = Obstacle::window_full;
    return ok();
  }
  const uint32_t id = new_message(t);
  Message& message = messages_[id];
  message.count = src.count;
  if (tracked_) message.receipt = history_.post();
  RAILCCL_CHECK(read(t, src, step.pre, message.receipt, message.pieces));
  in_flight_[static_cast<size_t>(thread.rank)].push_back(
      {src.rank, src.start, src.start + src.count, id, message.step});
  post(t, queue, id);
  return ok();
}

Status CheckRun::perform_recv(uint32_t t, const Step& step) {
  Thread& thread = threads_[t];
  const bool combines = step.verb == Verb::recv_reduce;
  Range src, dst;
  RAILCCL_CHECK(resolve(thread, step.dst, true, dst));
  if (combines) {
    RAILCCL_CHECK(resolve(thread, step.src, false, src));
    RAILCCL_CHECK(apart(thread, dst, src));
  }
  if (dst.count == 0) return ok();
  const uint32_t queue = queue_from(step.peer, thread.channel, thread.rank, kHere);
  if (queue == kNone || queues_[queue].messages.empty()) {
    thread.obstacle = Obstacle::nothing_arrived;
    return ok();
  }
  Message& message = messages_[queues_[queue].messages.front()];
  if (message.signal)
    return wrong(thread, "a signal (step {} of rank {}) comes where data is expected", message.step,
                 step.peer);
  if (message.count != dst.count)
    return wrong(thread,
                 "a message of {} elements (step {} of rank {}) comes where {} are expected",
                 message.count, message.step, step.peer, dst.count);
  if (blocked_by_send(thread, dst)) return ok();
  take(t, message);
  if (combines) {
    RAILCCL_CHECK(read(t, src, step.pre, History::kNone, operand_));
    RAILCCL_CHECK(combine(thread, dst, operand_, message.pieces, result_));
    report_.local_bytes[static_cast<size_t>(thread.rank)] += dst.count * size_of(request_.datatype);
  } else {
    std::swap(result_, message.pieces);
  }
  RAILCCL_CHECK(write(t, dst, step.post, result_));
  finish_message(queue);
  return ok();
}

Status CheckRun::perform_signal(uint32_t t, const Step& step) {
  Thread& thread = threads_[t];
  const bool local = step.peer == kHere;
  const uint32_t queue =
      queue_to(t, local ? thread.rank : step.peer, local ? int{step.channel} : kHere);
  // Signals between channels are a count in the executor and need no room anywhere.
  if (!local && queues_[queue].messages.size() >= static_cast<size_t>(options_.send_window)) {
    thread.obstacle = Obstacle::window_full;
    return ok();
  }
  const uint32_t id = new_message(t);
  messages_[id].signal = true;
  post(t, queue, id);
  return ok();
}

Status CheckRun::perform_wait(uint32_t t, const Step& step) {
  Thread& thread = threads_[t];
  const bool local = step.peer == kHere;
  const uint32_t queue = local ? queue_from(thread.rank, step.channel, thread.rank, thread.channel)
                               : queue_from(step.peer, thread.channel, thread.rank, kHere);
  if (queue == kNone || queues_[queue].messages.empty()) {
    thread.obstacle = Obstacle::nothing_arrived;
    return ok();
  }
  const Message& message = messages_[queues_[queue].messages.front()];
  if (!message.signal)
    return wrong(thread,
                 "a message of {} elements (step {} of rank {}) comes where a signal is expected",
                 message.count, message.step, step.peer);
  take(t, message);
  finish_message(queue);
  return ok();
}

uint32_t CheckRun::queue_to(uint32_t t, int peer, int channel) {
  Thread& thread = threads_[t];
  if (thread.outgoing.empty()) {
    const size_t rank = static_cast<size_t>(thread.rank);
    thread.outgoing.assign(
        static_cast<size_t>(ranks_) + (first_thread_[rank + 1] - first_thread_[rank]), kNone);
  }
  uint32_t& queue =
      thread
          .outgoing[channel == kHere ? static_cast<size_t>(peer)
                                     : static_cast<size_t>(ranks_) + static_cast<size_t>(channel)];
  if (queue == kNone) {
    queue = static_cast<uint32_t>(queues_.size());
    queues_.push_back({t, peer, channel, {}, 0, 0});
  }
  return queue;
}

uint32_t CheckRun::queue_from(int rank, int channel, int to, int to_channel) {
  const uint32_t from = first_thread_[static_cast<size_t>(rank)] + static_cast<uint32_t>(channel);
  if (from >= first_thread_[static_cast<size_t>(rank) + 1]) return kNone;
  return queue_to(from, to, to_channel);
}

uint32_t CheckRun::new_message(uint32_t t) {
  if (free_messages_.empty()) {
    free_messages_.push_back(static_cast<uint32_t>(messages_.size()));
    messages_.emplace_back();
  }
  const uint32_t id = free_messages_.back();
  free_messages_.pop_back();
  Message& message = messages_[id];
  message.signal = false;
  message.count = 0;
  message.pieces.clear();
  message.receipt = History::kNone;
  message.step = step_index(threads_[t]);
  return id;
}

void CheckRun::post(uint32_t t, uint32_t q, uint32_t id) {
  Thread& thread = threads_[t];
  Queue& queue = queues_[q];
  Message& message = messages_[id];
  const bool local = queue.to_channel != kHere;
  message.depth = thread.depth + (local ? 0 : 1);
  if (tracked_) {
    message.clock = thread.clock;
    thread.clock[t]++;
  }
  queue.messages.push_back(id);
  queue.posted++;
  queue.elements += message.count;
  wake(queue.to_rank);
}

/// The thread has learnt what the sender of the message knew.
void CheckRun::take(uint32_t t, const Message& message) {
  Thread& thread = threads_[t];
  thread.depth = std::max(thread.depth, message.depth);
  report_.rounds = std::max(report_.rounds, thread.depth);
  if (!tracked_) return;
  join(thread.clock, message.clock);
  if (message.receipt != History::kNone) history_.received(message.receipt, now(t));
}

void CheckRun::finish_message(uint32_t q) {
  Queue& queue = queues_[q];
  const uint32_t id = queue.messages.front();
  queue.messages.pop_front();
  free_messages_.push_back(id);
  const int sender = threads_[queue.from].rank;
  if (!messages_[id].signal)
    std::erase_if(in_flight_[static_cast<size_t>(sender)],
                  [id](const InFlight& send) { return send.message == id; });
  wake(sender);
}

void CheckRun::wake(int rank) {
  for (uint32_t t = first_thread_[static_cast<size_t>(rank)];
       t < first_thread_[static_cast<size_t>(rank) + 1]; t++) {
    if (threads_[t].queued || threads_[t].done) continue;
    threads_[t].queued = true;
    ready_.push_back(t);
  }
}

}  // namespace railccl::plan
