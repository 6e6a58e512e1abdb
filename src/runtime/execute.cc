// Execution: the interpreter of the plan language on the host.
#include "runtime/execute.h"

#include <algorithm>
#include <cassert>

#include "base/caches.h"

namespace railccl::runtime {

using plan::Buffer;
using plan::kHere;
using plan::Slice;
using plan::Step;
using plan::Verb;

namespace {

bool is_local(Verb verb) { return verb == Verb::copy || verb == Verb::reduce; }
bool sends(Verb verb) { return verb == Verb::send || verb == Verb::signal; }

}  // namespace

Result<std::unique_ptr<Execution>> Execution::make(plan::Program program, Wires& wires) {
  std::unique_ptr<Execution> execution(new Execution(std::move(program), wires));
  RAILCCL_CHECK(execution->bind().context("plan {} of {}", execution->program_.algorithm,
                                          plan::text_of(execution->program_.request)));
  return execution;
}

Status Execution::bind() {
  element_ = size_of(program_.request.datatype);
  const size_t channels = program_.channels.size();
  if (channels > static_cast<size_t>(kPlanChannelsMax))
    return Status(Code::internal, "{} channels, at most {} are possible", channels,
                  kPlanChannelsMax);
  step_wires_.resize(channels);
  channel_wires_.resize(channels);
  cursors_.resize(channels);
  local_signals_.assign(channels * channels, 0);
  size_t inputs = 1, outputs = 1;
  for (size_t c = 0; c < channels; c++) {
    const plan::Channel& channel = program_.channels[c];
    step_wires_[c].resize(channel.steps.size(), nullptr);
    for (size_t s = 0; s < channel.steps.size(); s++) {
      const Step& step = channel.steps[s];
      inputs = std::max<size_t>(inputs, step.source_count + 1);
      outputs = std::max<size_t>(outputs, step.target_count + 1);
      if (is_local(step.verb) || step.peer == kHere) continue;
      RAILCCL_TRY(Wire * wire, wires_.wire(step.peer, static_cast<int>(c)));
      // Peers look at scratch between signals only.
      shares_scratch_ |= step.verb == Verb::signal || step.verb == Verb::wait;
      step_wires_[c][s] = wire;
      media_ |= 1u << wire->medium();
      auto& list = channel_wires_[c];
      if (sends(step.verb) && std::find(list.begin(), list.end(), wire) == list.end())
        list.push_back(wire);
    }
    for (const plan::Loop& loop : channel.loops)
      for (uint32_t s = loop.first_step; s < loop.first_step + loop.step_count; s++) {
        const Step& step = channel.steps[s];
        each_slice(step, [&](const Slice& slice) { note_peer_memory(slice, loop.iterations); });
      }
  }
  turn_bytes_ = (program_.scratch_elements * element_ + 63) / 64 * 64;
  // All ranks that look into each other's scratch have the same (the checker proves it), and make
  // the same calls.
  if (shares_scratch_ && turn_bytes_ > 0)
    turns_ = std::max<size_t>(1, kForgottenBytes / turn_bytes_);
  inputs_.resize(inputs);
  outputs_.resize(outputs);
  store_ = store_of_results();
  if (reaches_buffers_) {
    scaled_.resize(inputs * kScaledPiece);
    pieces_.resize(inputs);
  }
  if (channels == 1 && !reaches_buffers_ && outputs == 1) {
    plain_strip_ = Strip::make(program_, step_wires_[0], false);
    if (plain_strip_) scaled_strip_ = Strip::make(program_, step_wires_[0], true);
  }
  return ok();
}

/// Streaming, if the ranks of this host together touch more than its caches hold and the plan does
/// not read again what it wrote.
kernels::Store Execution::store_of_results() const {
  const auto read_again = [this](const Slice& slice) {
    return slice.count > 0 && slice.buffer == Buffer::output && !elsewhere(slice);
  };
  if (std::any_of(program_.sources.begin(), program_.sources.end(), read_again))
    return kernels::Store::cached;
  for (const plan::Channel& channel : program_.channels)
    for (const Step& step : channel.steps)
      if (read_again(step.src)) return kernels::Store::cached;
  int here = 1;
  for (int rank = 0; rank < wires_.ranks(); rank++)
    if (rank != program_.rank && wires_.load_store(rank)) here++;
  const uint64_t elements = input_elements(program_.request, program_.ranks, program_.rank) +
                            output_elements(program_.request, program_.ranks, program_.rank);
  return kernels::store_for(elements * element_, here);
}

template <typename Visit>
void Execution::each_slice(const Step& step, const Visit& visit) const {
  visit(step.dst);
  visit(step.src);
  for (uint32_t i = 0; i < step.source_count; i++) visit(program_.sources[step.first_source + i]);
  for (uint32_t i = 0; i < step.target_count; i++) visit(program_.targets[step.first_target + i]);
}

void Execution::note_peer_memory(const Slice& slice, uint64_t iterations) {
  if (!elsewhere(slice) || iterations == 0) return;
  if (slice.buffer != Buffer::scratch) {
    reaches_buffers_ = true;
    return;
  }
  const uint64_t positions =
      slice.modulo == 0 ? iterations : std::min<uint64_t>(iterations, slice.modulo);
  const size_t end = (slice.offset + (positions - 1) * slice.stride + slice.count) * element_;
  auto found = std::find_if(peers_.begin(), peers_.end(),
                            [&](const PeerMemory& peer) { return peer.rank == slice.owner; });
  if (found == peers_.end()) found = peers_.insert(found, PeerMemory{slice.owner, 0, nullptr});
  found->bytes = std::max(found->bytes, end);
}

Status Execution::begin(const Operation& operation) {
  sequence_ = operation.sequence;
  input_ = static_cast<const std::byte*>(operation.input);
  output_ = static_cast<std::byte*>(operation.output);
  scaling_ = operation.scaling;
  open_peers_ = operation.peers;
  assert(!reaches_buffers_ || open_peers_ != nullptr);
  turn_offset_ = sequence_ % turns_ * turn_bytes_;
  RAILCCL_TRY(scratch_, wires_.scratch(turns_ * turn_bytes_));
  scratch_ += turn_offset_;
  std::optional<Strip>& strip =
      scaling_.pre.kind == kernels::Scale::Kind::none ? plain_strip_ : scaled_strip_;
  strip_ = strip ? &*strip : nullptr;
  if (strip_ != nullptr) {
    strip_->begin(sequence_, {input_, output_, scratch_}, scaling_);
    return ok();
  }
  for (size_t c = 0; c < cursors_.size(); c++) {
    cursors_[c] = Cursor();
    const plan::Channel& channel = program_.channels[c];
    // Stand on the first step there is.
    Cursor& cursor = cursors_[c];
    while (cursor.loop < channel.loops.size() && (channel.loops[cursor.loop].iterations == 0 ||
                                                  channel.loops[cursor.loop].step_count == 0))
      cursor.loop++;
    cursor.done = cursor.loop == channel.loops.size();
  }
  return ok();
}

Outcome Execution::step() {
  if (strip_ != nullptr) return strip_outcome(strip_->step());
  Outcome outcome;
  outcome.done = true;
  for (size_t c = 0; c < cursors_.size(); c++) {
    if (!cursors_[c].done) {
      auto moved = advance(static_cast<int>(c));
      if (!moved.is_ok()) {
        outcome.status = moved.status();
        outcome.done = false;
        return outcome;
      }
      outcome.progressed |= *moved;
    }
    for (Wire* wire : channel_wires_[c]) {
      if (wire->idle()) continue;
      auto moved = wire->push();
      if (!moved.is_ok()) {
        outcome.status =
            moved.status().context("rank {} sending to rank {}", program_.rank, wire->peer());
        outcome.done = false;
        return outcome;
      }
      outcome.progressed |= *moved;
      outcome.done &= wire->idle();
    }
    outcome.done &= cursors_[c].done;
  }
  return outcome;
}

Outcome Execution::strip_outcome(Strip::State state) {
  Outcome outcome;
  outcome.done = state == Strip::State::done;
  if (state != Strip::State::differs) return outcome;
  Wire& wire = *strip_->wire_here();
  const Header mine = strip_->header_here();
  auto arrived = wire.header_arrived(mine.bytes);
  outcome.status = arrived.is_ok() ? differs(wire, mine, wire.header()) : arrived.status();
  outcome.status =
      outcome.status.context("rank {} receiving from rank {}", program_.rank, wire.peer());
  return outcome;
}

/// Performs steps of a channel until one blocks or the visit's budget is used up.
Result<bool> Execution::advance(int channel) {
  Cursor& cursor = cursors_[static_cast<size_t>(channel)];
  const plan::Channel& steps = program_.channels[static_cast<size_t>(channel)];
  cursor.budget = kBytesPerVisit;
  bool moved = false;
  while (!cursor.done) {
    const Step& step = steps.steps[step_here(static_cast<size_t>(channel))];
    const size_t before = cursor.budget;
    auto progress = perform(channel, step);
    if (!progress.is_ok())
      return progress.status().context(
          "rank {} channel {} {} {}", program_.rank, channel, plan::name_of(step.verb),
          step.peer == kHere ? "here" : fmt::format("rank {}", step.peer));
    if (*progress == Progress::finished) next_step(channel);
    moved |= *progress == Progress::finished || cursor.budget != before;
    if (*progress != Progress::finished || cursor.budget == 0) break;
  }
  return moved;
}

void Execution::next_step(int channel) {
  Cursor& cursor = cursors_[static_cast<size_t>(channel)];
  const std::vector<plan::Loop>& loops = program_.channels[static_cast<size_t>(channel)].loops;
  cursor.elements = 0;
  cursor.checked = false;
  // A step of no bytes costs something too: count it, so that a visit stays bounded.
  cursor.budget -= std::min<size_t>(cursor.budget, 64);
  if (++cursor.step < loops[cursor.loop].step_count) return;
  cursor.step = 0;
  if (++cursor.iteration < loops[cursor.loop].iterations) return;
  cursor.iteration = 0;
  do {
    cursor.loop++;
  } while (cursor.loop < loops.size() &&
           (loops[cursor.loop].iterations == 0 || loops[cursor.loop].step_count == 0));
  cursor.done = cursor.loop == loops.size();
}

Result<Execution::Progress> Execution::perform(int channel, const Step& step) {
  Cursor& cursor = cursors_[static_cast<size_t>(channel)];
  Wire* wire = wire_of(
      channel,
      static_cast<uint32_t>(&step - program_.channels[static_cast<size_t>(channel)].steps.data()));
  if (step.verb == Verb::signal) return perform_signal(channel, step, wire);
  if (step.verb == Verb::wait) return perform_wait(channel, step, wire);
  const Slice& shape = step.verb == Verb::send ? step.src : step.dst;
  const uint64_t count = shape.count_at(cursor.iteration);
  if (count == 0) return Progress::finished;
  if (!cursor.checked) {
    RAILCCL_TRY(const bool mapped, map_peers(step));
    if (!mapped) return Progress::blocked;
    if (step.verb != Verb::send &&
        still_read(address(step.dst, cursor.iteration), count * element_))
      return Progress::blocked;
    for (uint32_t t = 0; t < step.target_count; t++)
      if (still_read(address(program_.targets[step.first_target + t], cursor.iteration),
                     count * element_))
        return Progress::blocked;
    cursor.checked = true;
  }
  switch (step.verb) {
    case Verb::send:
      return perform_send(cursor, step, *wire);
    case Verb::recv:
      return perform_recv(cursor, step, *wire);
    case Verb::recv_reduce:
      return perform_recv_reduce(cursor, step, *wire);
    default:
      return perform_local(cursor, step);
  }
}

Result<Execution::Progress> Execution::perform_send(Cursor& cursor, const Step& step, Wire& wire) {
  if (wire.window_full()) {
    RAILCCL_TRY(const bool moved, wire.push());
    if (moved) cursor.budget -= std::min<size_t>(cursor.budget, 1);
    if (wire.window_full()) return Progress::blocked;
  }
  const uint64_t bytes = step.src.count_at(cursor.iteration) * element_;
  const bool scaled = step.pre && scaling_.pre.kind != kernels::Scale::Kind::none;
  const OutgoingScale scale{scaling_.pre, program_.request.datatype};
  wire.post({MessageKind::data, static_cast<uint32_t>(sequence_), bytes, program_.request},
            address(step.src, cursor.iteration), scaled ? &scale : nullptr);
  RAILCCL_TRY([[maybe_unused]] const bool moved, wire.push());
  return Progress::finished;
}

Result<Execution::Progress> Execution::perform_recv(Cursor& cursor, const Step& step, Wire& wire) {
  const uint64_t bytes = step.dst.count_at(cursor.iteration) * element_;
  RAILCCL_TRY(const bool arrived, take_header(wire, MessageKind::data, bytes));
  if (!arrived) return Progress::blocked;
  // `elements` counts bytes here: a medium may stop in the middle of an element.
  std::byte* dst = address(step.dst, cursor.iteration);
  const size_t want =
      std::min<uint64_t>(bytes - cursor.elements, std::max<size_t>(cursor.budget, 1));
  size_t got = 0;
  if (wire.in_place_view() && store_in(step.dst) == kernels::Store::streaming) {
    RAILCCL_TRY(const std::span<const std::byte> view, wire.peek_elements(want, 1));
    kernels::copy(dst + cursor.elements, view.data(), view.size(), kernels::Store::streaming);
    wire.consume_elements(view.size());
    got = view.size();
  } else {
    RAILCCL_TRY(got, wire.receive(dst + cursor.elements, want));
  }
  if (step.post && scaling_.post.kind != kernels::Scale::Kind::none) {
    const uint64_t from = cursor.elements / element_, to = (cursor.elements + got) / element_;
    if (to > from)
      kernels::scale(dst + from * element_, dst + from * element_, to - from,
                     program_.request.datatype, scaling_.post);
  }
  cursor.elements += got;
  cursor.budget -= std::min(cursor.budget, got);
  if (cursor.elements < bytes) return got == 0 ? Progress::blocked : Progress::partial;
  wire.finish_message();
  return Progress::finished;
}

Result<Execution::Progress> Execution::perform_recv_reduce(Cursor& cursor, const Step& step,
                                                           Wire& wire) {
  const uint64_t count = step.dst.count_at(cursor.iteration);
  RAILCCL_TRY(const bool arrived, take_header(wire, MessageKind::data, count * element_));
  if (!arrived) return Progress::blocked;
  bool moved = false;
  while (cursor.elements < count) {
    const size_t want = std::min<uint64_t>((count - cursor.elements) * element_,
                                           std::max(cursor.budget / element_ * element_, element_));
    RAILCCL_TRY(const std::span<const std::byte> view, wire.peek_elements(want, element_));
    if (view.empty()) return moved ? Progress::partial : Progress::blocked;
    const size_t at = cursor.elements * element_;
    const void* inputs[2] = {address(step.src, cursor.iteration) + at, view.data()};
    const bool scaled = scaling_.pre.kind != kernels::Scale::Kind::none;
    if (message_first(step, scaled, program_.rank)) std::swap(inputs[0], inputs[1]);
    kernels::reduce(address(step.dst, cursor.iteration) + at, inputs, 2, view.size() / element_,
                    program_.request.datatype, program_.request.op,
                    step.pre ? scaling_.pre : kNoScale, step.post ? scaling_.post : kNoScale,
                    store_in(step.dst));
    cursor.elements += view.size() / element_;
    cursor.budget -= std::min(cursor.budget, view.size());
    wire.consume_elements(view.size());
    moved = true;
    if (cursor.budget == 0 && cursor.elements < count) return Progress::partial;
  }
  wire.finish_message();
  return Progress::finished;
}

Result<Execution::Progress> Execution::perform_signal(int channel, const Step& step, Wire* wire) {
  if (wire == nullptr) {
    local_signals(channel, step.channel)++;
    return Progress::finished;
  }
  if (wire->window_full()) {
    RAILCCL_TRY([[maybe_unused]] const bool moved, wire->push());
    if (wire->window_full()) return Progress::blocked;
  }
  wire->post({MessageKind::signal, static_cast<uint32_t>(sequence_), 0, program_.request}, nullptr,
             nullptr);
  RAILCCL_TRY([[maybe_unused]] const bool moved, wire->push());
  return Progress::finished;
}

Result<Execution::Progress> Execution::perform_wait(int channel, const Step& step, Wire* wire) {
  if (wire == nullptr) {
    uint32_t& given = local_signals(step.channel, channel);
    if (given == 0) return Progress::blocked;
    given--;
    return Progress::finished;
  }
  RAILCCL_TRY(const bool arrived, take_header(*wire, MessageKind::signal, 0));
  if (!arrived) return Progress::blocked;
  wire->finish_message();
  return Progress::finished;
}

Result<bool> Execution::take_header(Wire& wire, MessageKind kind, uint64_t bytes) {
  RAILCCL_TRY(const bool arrived, wire.header_arrived(bytes));
  if (!arrived) return false;
  const Header mine{kind, static_cast<uint32_t>(sequence_), bytes, program_.request};
  if (!(wire.header() == mine)) return differs(wire, mine, wire.header());
  return true;
}

/// A message of another size may come the other way (lane or link) than the one that is waited for.
Status Execution::look_aside() {
  if (strip_ != nullptr) return look_aside_strip();
  for (size_t c = 0; c < cursors_.size(); c++) {
    const Cursor& cursor = cursors_[c];
    if (cursor.done) continue;
    const uint32_t index = step_here(c);
    const Step& step = program_.channels[c].steps[index];
    Wire* wire = wire_of(static_cast<int>(c), index);
    if (wire == nullptr || sends(step.verb)) continue;
    const bool signal = step.verb == Verb::wait;
    const Header mine{
        signal ? MessageKind::signal : MessageKind::data, static_cast<uint32_t>(sequence_),
        signal ? 0 : step.dst.count_at(cursor.iteration) * element_, program_.request};
    const auto other = wire->other_header(mine.bytes);
    if (other.is_ok() && (!*other || same_call(**other, mine))) continue;
    // What was asked for may have come just before; what a lost peer wrote was there before its
    // loss showed.
    RAILCCL_TRY(const bool arrived, wire->header_arrived(mine.bytes));
    if (!arrived) return other.is_ok() ? differs(*wire, mine, **other) : other.status();
  }
  return ok();
}

Status Execution::look_aside_strip() {
  Wire& wire = *strip_->wire_here();
  const Header mine = strip_->header_here();
  const Verb verb = program_.channels[0].steps[strip_->step_here()].verb;
  if (sends(verb)) return wire.state();
  // What a lost peer wrote was there before its loss showed: look again behind that.
  if (const Status state = wire.state(); !state.is_ok())
    return wire.lane_arrived() ? ok() : state.context("rank {}", program_.rank);
  RAILCCL_TRY(const std::optional<Header> other, wire.other_header(mine.bytes));
  if (!other || same_call(*other, mine) || wire.lane_arrived()) return ok();
  return differs(wire, mine, *other);
}

Status Execution::differs(const Wire& wire, const Header& mine, const Header& theirs) {
  return calls_differ(program_.rank, wire.peer(), mine, theirs, &mismatch_);
}

Status calls_differ(int rank, int peer, const Header& mine, const Header& theirs,
                    std::optional<Mismatch>* mismatch) {
  *mismatch = Mismatch{peer, text_of(mine, false), text_of(theirs, true)};
  const Mismatch& both = **mismatch;
  if (both.mine == both.theirs)
    // The same call, cut differently: the ranks chose different plans.
    return Status(Code::internal, Scope::communicator,
                  "rank {} runs {} by another plan than rank {}: a message of {} bytes (kind {}) "
                  "came where {} bytes (kind {}) were expected",
                  peer, both.theirs, rank, theirs.bytes, static_cast<int>(theirs.kind), mine.bytes,
                  static_cast<int>(mine.kind));
  return Status(Code::mismatch, Scope::communicator, "rank {} called {}, but rank {} called {}",
                rank, both.mine, peer, both.theirs);
}

bool Execution::still_read(const std::byte* begin, size_t bytes) const {
  for (const std::vector<Wire*>& wires : channel_wires_)
    for (const Wire* wire : wires)
      if (wire->reads(begin, bytes)) return true;
  return false;
}

std::byte* Execution::base_of(const Slice& slice) const {
  const bool open = slice.buffer != Buffer::scratch && elsewhere(slice);
  switch (slice.buffer) {
    case Buffer::input:  // only ever read: the checker proves it
      return const_cast<std::byte*>(open ? open_peers_[slice.owner].input : input_);
    case Buffer::output:
      return open ? open_peers_[slice.owner].output : output_;
    case Buffer::scratch:
      break;
  }
  if (slice.owner == kHere || slice.owner == program_.rank) return scratch_;
  for (const PeerMemory& peer : peers_)
    if (peer.rank == slice.owner) return peer.base + turn_offset_;
  return nullptr;
}

/// Makes sure that the memory of other ranks which `step` touches is mapped; false: not yet.
Result<bool> Execution::map_peers(const Step& step) {
  if (peers_.empty()) return true;
  auto map = [&](const Slice& slice) -> Result<bool> {
    if (!elsewhere(slice) || slice.buffer != Buffer::scratch) return true;
    for (PeerMemory& peer : peers_) {
      if (peer.rank != slice.owner) continue;
      if (peer.base == nullptr) {
        RAILCCL_TRY(peer.base,
                    wires_.peer_scratch(peer.rank, (turns_ - 1) * turn_bytes_ + peer.bytes));
      }
      return peer.base != nullptr;
    }
    return true;
  };
  RAILCCL_TRY(bool all, map(step.dst));
  if (!all) return false;
  RAILCCL_TRY(all, map(step.src));
  for (uint32_t i = 0; all && i < step.source_count; i++) {
    RAILCCL_TRY(all, map(program_.sources[step.first_source + i]));
  }
  for (uint32_t i = 0; all && i < step.target_count; i++) {
    RAILCCL_TRY(all, map(program_.targets[step.first_target + i]));
  }
  return all;
}

uint32_t Execution::media_awaited() const {
  if (strip_ != nullptr) return 1u << strip_->wire_here()->medium();
  uint32_t media = 0;
  for (size_t c = 0; c < cursors_.size(); c++) {
    if (cursors_[c].done) continue;
    if (const Wire* wire = wire_of(static_cast<int>(c), step_here(c)))
      media |= 1u << wire->medium();
  }
  for (const auto& wires : channel_wires_)
    for (const Wire* wire : wires)
      if (!wire->idle()) media |= 1u << wire->medium();
  return media;
}

std::string Execution::waiting_for() const {
  if (strip_ != nullptr) {
    const Step& step = program_.channels[0].steps[strip_->step_here()];
    const Wire& wire = *strip_->wire_here();
    return fmt::format("step {} {} {} rank {} ({})", strip_->step_here(), plan::name_of(step.verb),
                       sends(step.verb) ? "to" : "from", step.peer, wire.name());
  }
  std::string text;
  for (size_t c = 0; c < cursors_.size(); c++) {
    const Cursor& cursor = cursors_[c];
    if (cursor.done) continue;
    const uint32_t index = step_here(c);
    const Step& step = program_.channels[c].steps[index];
    if (!text.empty()) text += "; ";
    text += fmt::format("channel {} step {} {}", c, index, plan::name_of(step.verb));
    if (const Wire* wire = wire_of(static_cast<int>(c), index))
      text += fmt::format(" {} rank {} ({})", sends(step.verb) ? "to" : "from", step.peer,
                          wire->name());
  }
  if (!text.empty()) return text;
  for (const auto& wires : channel_wires_)
    for (const Wire* wire : wires)
      if (!wire->idle()) {
        if (!text.empty()) text += "; ";
        text += fmt::format("rank {} to take what was sent ({})", wire->peer(), wire->name());
      }
  return text.empty() ? "nothing" : text;
}

}  // namespace railccl::runtime
