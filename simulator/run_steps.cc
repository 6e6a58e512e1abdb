// Run, second half: what each verb does, and what it waits for.
#include <algorithm>

#include "simulator/run.h"

namespace railccl::simulator {

using plan::Verb;

const Compiled::Op& Run::op_of(uint32_t t) const {
  const Compiled::Thread& program = programs_.threads()[t];
  const plan::Loop& loop = programs_.loop(program.first_loop + threads_[t].loop);
  return programs_.op(program.first_op + loop.first_step + threads_[t].step);
}

void Run::next_step(uint32_t t) {
  Thread& thread = threads_[t];
  const Compiled::Thread& program = programs_.threads()[t];
  const plan::Loop& loop = programs_.loop(program.first_loop + thread.loop);
  thread.paid = false;
  step_count_++;
  if (++thread.step < loop.step_count) return;
  thread.step = 0;
  if (++thread.iteration < loop.iterations) return;
  thread.iteration = 0;
  if (++thread.loop < program.loop_count) return;
  thread.state = State::done;
  threads_done_++;
}

Status Run::run_thread(uint32_t t) {
  Thread& thread = threads_[t];
  while (thread.state == State::ready) {
    if (step_count_ >= options_.steps_max)
      return Status(Code::invalid_argument, "gave up after {} steps of all ranks",
                    options_.steps_max);
    RAILCCL_TRY(const bool done, perform(t, op_of(t)));
    if (!done) break;
    next_step(t);
  }
  return ok();
}

/// True when the step is done; else the thread's state says what it waits for.
Result<bool> Run::perform(uint32_t t, const Compiled::Op& op) {
  switch (op.verb) {
    case Verb::copy:
    case Verb::reduce:
      return perform_local(t, op);
    case Verb::send:
      return perform_send(t, op);
    case Verb::recv:
    case Verb::recv_reduce:
      return perform_recv(t, op);
    case Verb::signal:
      return perform_signal(t, op);
    case Verb::wait:
      return perform_wait(t, op);
  }
  return Status(Code::internal, "verb {} does not exist", static_cast<int>(op.verb));
}

bool Run::wait_for(uint32_t t, State state) {
  threads_[t].state = state;
  return false;
}

/// What the step costs besides bytes: true when it has been paid, or is nothing.
bool Run::pay(uint32_t t) {
  Thread& thread = threads_[t];
  const size_t rank = static_cast<size_t>(programs_.threads()[t].rank);
  const double seconds = options_.step_s * slowness_[rank];
  if (thread.paid || seconds == 0) return true;
  schedule(now_ + jittered(seconds), Kind::thread, t);
  return wait_for(t, State::overhead);
}

Run::Range Run::range_of(uint32_t t, uint32_t slice_id) const {
  const plan::Slice& slice = programs_.slice(slice_id);
  const uint64_t i = threads_[t].iteration;
  Range range;
  range.owner = slice.owner == plan::kHere ? programs_.threads()[t].rank : slice.owner;
  range.count = slice.count_at(i);
  const Layout& layout = layouts_[static_cast<size_t>(range.owner)];
  range.start = slice.start_at(i) + (slice.buffer == plan::Buffer::input    ? layout.input
                                     : slice.buffer == plan::Buffer::output ? layout.output
                                                                            : layout.scratch);
  return range;
}

/// A send of `rank` that has yet to read some of what is to be written.
Run::InFlight* Run::reading(int rank, const Range& written) {
  std::vector<InFlight>& sends = in_flight_[static_cast<size_t>(rank)];
  const auto found = std::find_if(sends.begin(), sends.end(), [&](const InFlight& send) {
    return send.owner == written.owner && send.start < written.start + written.count &&
           written.start < send.start + send.count;
  });
  return found == sends.end() ? nullptr : &*found;
}

bool Run::perform_local(uint32_t t, const Compiled::Op& op) {
  const int rank = programs_.threads()[t].rank;
  const Range src = range_of(t, op.src), dst = range_of(t, op.dst);
  if (dst.count == 0) return true;
  std::span<const uint32_t> more;
  uint32_t sources = 0;
  if (op.extra != kNone) {
    const Compiled::Extra& extra = programs_.extra(op.extra);
    more = programs_.extra_slices(extra);
    sources = extra.sources;
  } else if (op.verb == Verb::copy && src.owner == dst.owner && src.start == dst.start) {
    return true;  // in place: it is there already
  }
  if (reading(rank, dst) != nullptr) return wait_for(t, State::source);
  for (const uint32_t target : more.subspan(sources))
    if (reading(rank, range_of(t, target)) != nullptr) return wait_for(t, State::source);
  if (!pay(t)) return false;
  uses_.clear();
  fabric_.add_read(rank, src.owner, uses_);
  fabric_.add_write(rank, dst.owner, uses_);
  for (uint32_t i = 0; i < more.size(); i++) {
    const int owner = range_of(t, more[i]).owner;
    if (i < sources)
      fabric_.add_read(rank, owner, uses_);
    else
      fabric_.add_write(rank, owner, uses_);
  }
  start_flow(static_cast<double>(dst.count) * element_, false, t);
  return wait_for(t, State::working);
}

bool Run::perform_send(uint32_t t, const Compiled::Op& op) {
  const Range src = range_of(t, op.src);
  if (src.count == 0) return true;
  if (queues_[op.queue].held >= plan::kSendWindow) return wait_for(t, State::window);
  if (!pay(t)) return false;
  std::vector<InFlight>& sends = in_flight_[static_cast<size_t>(programs_.threads()[t].rank)];
  const auto known = std::find_if(sends.begin(), sends.end(), [&](const InFlight& send) {
    return send.owner == src.owner && send.start == src.start && send.count == src.count;
  });
  if (known == sends.end())
    sends.push_back({src.owner, src.start, src.count, 1});
  else
    known->sends++;
  post(op.queue, {kNone, false, src.count, src.owner, src.start});
  return true;
}

Result<bool> Run::perform_recv(uint32_t t, const Compiled::Op& op) {
  const int rank = programs_.threads()[t].rank;
  const Range dst = range_of(t, op.dst);
  if (dst.count == 0) return true;
  Queue& queue = queues_[op.queue];
  if (queue.arrived == 0) return wait_for(t, State::message);
  const Message& message = messages_[queue.first];
  if (message.signal || message.count != dst.count)
    return Status(
        Code::invalid_argument,
        "the plan is wrong: {}, which sends {} where {} elements are expected", text_of(t),
        message.signal ? "a signal" : fmt::format("{} elements", message.count), dst.count);
  if (reading(rank, dst) != nullptr) return wait_for(t, State::source);
  if (!pay(t)) return false;
  if (op.verb == Verb::recv) {
    taken(op.queue);
    return true;
  }
  uses_.clear();
  fabric_.add_read(rank, rank, uses_);  // the message, where it has arrived
  fabric_.add_read(rank, range_of(t, op.src).owner, uses_);
  fabric_.add_write(rank, dst.owner, uses_);
  start_flow(static_cast<double>(dst.count) * element_, false, t);
  return wait_for(t, State::working);
}

bool Run::perform_signal(uint32_t t, const Compiled::Op& op) {
  Queue& queue = queues_[op.queue];
  const Compiled::Queue& ends = programs_.queues()[op.queue];
  if (ends.local) {
    queue.arrived++;
    if (ends.to != kNone) wake(ends.to, State::message);
    return true;
  }
  if (queue.held >= plan::kSendWindow) return wait_for(t, State::window);
  if (!pay(t)) return false;
  post(op.queue, {kNone, true, 0, 0, 0});
  return true;
}

Result<bool> Run::perform_wait(uint32_t t, const Compiled::Op& op) {
  Queue& queue = queues_[op.queue];
  if (queue.arrived == 0) return wait_for(t, State::message);
  if (programs_.queues()[op.queue].local) {
    queue.arrived--;
    return true;
  }
  if (!messages_[queue.first].signal)
    return Status(Code::invalid_argument,
                  "the plan is wrong: {}, which sends {} elements where a signal is expected",
                  text_of(t), messages_[queue.first].count);
  if (!pay(t)) return false;
  taken(op.queue);
  return true;
}

void Run::post(uint32_t q, const Message& message) {
  if (free_messages_.empty()) {
    free_messages_.push_back(static_cast<uint32_t>(messages_.size()));
    messages_.emplace_back();
  }
  const uint32_t id = free_messages_.back();
  free_messages_.pop_back();
  messages_[id] = message;
  Queue& queue = queues_[q];
  (queue.first == kNone ? queue.first : messages_[queue.last].next) = id;
  queue.last = id;
  queue.held++;
  queue.messages++;
  queue.bytes += message.count * size_of(request_.datatype);
  if (queue.leaving == kNone) queue.leaving = id;
  if (!queue.flowing) send_next(q);
}

/// What leaves next: signals at once, bytes as a flow.
void Run::send_next(uint32_t q) {
  Queue& queue = queues_[q];
  const Compiled::Queue& ends = programs_.queues()[q];
  while (queue.leaving != kNone && !queue.flowing) {
    const Message& message = messages_[queue.leaving];
    if (message.signal) {
      left(q);
      continue;
    }
    queue.flowing = true;
    uses_.clear();
    fabric_.add_message(ends.from_rank, ends.to_rank, uses_);
    start_flow(static_cast<double>(message.count) * element_, true, q);
  }
}

/// The leaving message's last byte has left.
void Run::left(uint32_t q) {
  Queue& queue = queues_[q];
  const Compiled::Queue& ends = programs_.queues()[q];
  const Message& message = messages_[queue.leaving];
  // One never overtakes another, whatever the jitter.
  queue.last_arrival = std::max(queue.last_arrival,
                                now_ + jittered(fabric_.latency_s(ends.from_rank, ends.to_rank)));
  schedule(queue.last_arrival, Kind::arrival, q);
  queue.leaving = message.next;
  if (message.signal) return;
  const size_t rank = static_cast<size_t>(ends.from_rank);
  std::vector<InFlight>& sends = in_flight_[rank];
  const auto source = std::find_if(sends.begin(), sends.end(), [&](const InFlight& send) {
    return send.owner == message.owner && send.start == message.start &&
           send.count == message.count;
  });
  if (--source->sends == 0) {
    *source = sends.back();
    sends.pop_back();
    for (uint32_t t = programs_.first_thread(ends.from_rank);
         t < programs_.first_thread(ends.from_rank + 1); t++)
      wake(t, State::source);
  }
  queue.flowing = false;
  send_next(q);
}

/// The receiver is through with the oldest message.
void Run::taken(uint32_t q) {
  Queue& queue = queues_[q];
  const uint32_t id = queue.first;
  queue.first = messages_[id].next;
  if (queue.first == kNone) queue.last = kNone;
  free_messages_.push_back(id);
  queue.held--;
  queue.arrived--;
  if (const uint32_t from = programs_.queues()[q].from; from != kNone) wake(from, State::window);
}

}  // namespace railccl::simulator
