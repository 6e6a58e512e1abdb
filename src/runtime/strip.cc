// Compiling and running strips.
#include "runtime/strip.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace railccl::runtime {

using plan::Slice;
using plan::Step;
using plan::Verb;

namespace {

// A straight line longer than this gains nothing over the interpreter.
constexpr size_t kStepsMax = 256;
constexpr uint64_t kBytesMax = uint64_t{256} << 10;
// A strip waits where it stands, without a queue, so its lanes must have room for all that a plan
// may have in flight; credits come in halves of a lane.
static_assert(transport::kLaneSlots - (transport::kLaneSlots / 2 - 1) >= plan::kSendWindow);

bool is_message(Verb verb) { return verb != Verb::copy && verb != Verb::reduce; }
bool receives(Verb verb) {
  return verb == Verb::recv || verb == Verb::recv_reduce || verb == Verb::wait;
}
bool is_here(const Slice& slice, int rank) {
  return slice.owner == plan::kHere || slice.owner == rank;
}
bool covers(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes) {
  return a <= b && b + b_bytes <= a + a_bytes;
}
bool overlap(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

}  // namespace

std::optional<Strip> Strip::make(const plan::Program& program, const std::vector<Wire*>& wires,
                                 bool scaled) {
  if (program.channels.size() != 1) return std::nullopt;
  const plan::Channel& channel = program.channels[0];
  if (channel.steps.size() > kStepsMax) return std::nullopt;
  Strip strip;
  strip.request_ = program.request;
  strip.element_ = size_of(program.request.datatype);
  const auto place_of = [&](const Slice& slice) {
    return Place{static_cast<uint8_t>(slice.buffer),
                 static_cast<uint32_t>(slice.start_at(0) * strip.element_), nullptr};
  };
  size_t inputs = 1;
  for (const plan::Loop& loop : channel.loops) {
    if (loop.iterations > 1) return std::nullopt;
    if (loop.iterations == 0) continue;
    for (uint32_t s = loop.first_step; s < loop.first_step + loop.step_count; s++) {
      const Step& step = channel.steps[s];
      Op op;
      op.verb = step.verb;
      op.pre = step.pre;
      op.post = step.post;
      op.step = s;
      if (step.verb != Verb::signal && step.verb != Verb::wait) {
        const Slice& shape = step.verb == Verb::send ? step.src : step.dst;
        const uint64_t bytes = shape.count_at(0) * strip.element_;
        if (bytes == 0) continue;
        if (bytes > kBytesMax || !is_here(step.src, program.rank) ||
            !is_here(step.dst, program.rank))
          return std::nullopt;
        for (const Slice* slice : {&step.src, &step.dst})
          if (slice->start_at(0) * strip.element_ > kBytesMax) return std::nullopt;
        op.count = static_cast<uint32_t>(shape.count_at(0));
        op.bytes = static_cast<uint32_t>(bytes);
        op.src = place_of(step.src);
        op.dst = place_of(step.dst);
      }
      if (is_message(step.verb)) {
        op.wire = wires[s];
        // Without a wire it is a signal between channels.
        if (op.wire == nullptr || !op.wire->by_lane(op.bytes)) return std::nullopt;
        op.message_first = message_first(step, scaled, program.rank);
        const bool empty = step.verb == Verb::signal || step.verb == Verb::wait;
        op.header =
            encode({empty ? MessageKind::signal : MessageKind::data, 0, op.bytes, program.request});
      }
      op.first_source = static_cast<uint32_t>(strip.sources_.size());
      op.source_count = step.source_count;
      for (uint32_t i = 0; i < step.source_count; i++) {
        const Slice& source = program.sources[step.first_source + i];
        if (!is_here(source, program.rank) || source.start_at(0) * strip.element_ > kBytesMax)
          return std::nullopt;
        strip.sources_.push_back(place_of(source));
      }
      inputs = std::max<size_t>(inputs, step.source_count + 1);
      strip.ops_.push_back(op);
    }
  }
  strip.inputs_.resize(std::max<size_t>(inputs, 2));
  // Who signals may be telling peers to look at its scratch: then it has to be as the plan says.
  const bool secluded = std::none_of(strip.ops_.begin(), strip.ops_.end(), [](const Op& op) {
    return op.verb == Verb::signal || op.verb == Verb::wait;
  });
  if (secluded) {
    if (!scaled) strip.forward_copies();
    strip.reduce_from_lanes();
  }
  return strip;
}

bool Strip::reads(const Op& op, uint8_t base, uint32_t offset, uint32_t bytes) const {
  const auto in = [&](const Place& place) {
    return place.base == base && overlap(place.offset, op.bytes, offset, bytes);
  };
  const bool source = op.verb == Verb::copy || op.verb == Verb::reduce || op.verb == Verb::send ||
                      op.verb == Verb::recv_reduce;
  if (source && in(op.src)) return true;
  for (uint32_t i = 0; i < op.source_count; i++)
    if (in(sources_[op.first_source + i])) return true;
  return false;
}

/// A copy from the input to scratch is left out when all who read the scratch can read the input
/// instead: they read exactly that range, and nothing has overwritten either by then.
void Strip::forward_copies() {
  constexpr auto kInput = static_cast<uint8_t>(plan::Buffer::input);
  constexpr auto kOutput = static_cast<uint8_t>(plan::Buffer::output);
  constexpr auto kScratch = static_cast<uint8_t>(plan::Buffer::scratch);
  for (size_t c = 0; c < ops_.size(); c++) {
    const Op copy = ops_[c];
    if (copy.verb != Verb::copy || copy.post || copy.src.base != kInput ||
        copy.dst.base != kScratch)
      continue;
    const auto is_copied = [&](const Place& place, uint32_t bytes) {
      return place.base == kScratch && place.offset == copy.dst.offset && bytes == copy.bytes;
    };
    bool possible = true, input_gone = false, copy_gone = false;
    for (size_t i = c + 1; i < ops_.size() && possible; i++) {
      const Op& op = ops_[i];
      if (!copy_gone && reads(op, kScratch, copy.dst.offset, copy.bytes)) {
        possible = !input_gone;
        const auto exact = [&](const Place& place) {
          return place.base != kScratch ||
                 !overlap(place.offset, op.bytes, copy.dst.offset, copy.bytes) ||
                 is_copied(place, op.bytes);
        };
        possible = possible && exact(op.src);
        for (uint32_t s = 0; s < op.source_count; s++)
          possible = possible && exact(sources_[op.first_source + s]);
        // In place, a kernel may find its own output among its sources, but at the same offset
        // only.
        if (op.verb != Verb::send && op.dst.base == kOutput)
          possible = possible && (!request_.in_place || op.dst.offset == copy.src.offset);
      }
      if (op.verb == Verb::send || op.verb == Verb::signal || op.verb == Verb::wait) continue;
      if (op.dst.base == kOutput && request_.in_place) input_gone = true;
      if (copy_gone || op.dst.base != kScratch ||
          !overlap(op.dst.offset, op.bytes, copy.dst.offset, copy.bytes))
        continue;
      copy_gone = covers(op.dst.offset, op.bytes, copy.dst.offset, copy.bytes);
      possible = possible && copy_gone;  // what is overwritten in part is needed in part
    }
    if (!possible) continue;
    copy_gone = false;
    for (size_t i = c + 1; i < ops_.size() && !copy_gone; i++) {
      Op& op = ops_[i];
      if (op.verb != Verb::recv && is_copied(op.src, op.bytes)) op.src = copy.src;
      for (uint32_t s = 0; s < op.source_count; s++) {
        Place& source = sources_[op.first_source + s];
        if (is_copied(source, op.bytes)) source = copy.src;
      }
      copy_gone = op.verb != Verb::send && op.dst.base == kScratch && op.bytes > 0 &&
                  overlap(op.dst.offset, op.bytes, copy.dst.offset, copy.bytes);
    }
    ops_.erase(ops_.begin() + static_cast<std::ptrdiff_t>(c--));
  }
}

/// What was received into scratch for one reduction only is reduced where the lane shows it, when
/// no other message of that wire is taken in before.
void Strip::reduce_from_lanes() {
  constexpr auto kScratch = static_cast<uint8_t>(plan::Buffer::scratch);
  for (size_t r = 0; r < ops_.size(); r++) {
    Op& recv = ops_[r];
    if (recv.verb != Verb::recv || recv.post || recv.dst.base != kScratch) continue;
    Op* user = nullptr;
    bool possible = true;
    for (size_t i = r + 1; i < ops_.size() && possible; i++) {
      Op& op = ops_[i];
      if (user == nullptr && receives(op.verb) && op.wire == recv.wire) possible = false;
      if (reads(op, kScratch, recv.dst.offset, recv.bytes)) {
        possible = possible && user == nullptr && op.verb == Verb::reduce && op.bytes == recv.bytes;
        user = &op;
      }
      const bool writes = op.verb == Verb::copy || op.verb == Verb::reduce ||
                          op.verb == Verb::recv || op.verb == Verb::recv_reduce;
      if (writes && op.dst.base == kScratch &&
          overlap(op.dst.offset, op.bytes, recv.dst.offset, recv.bytes))
        possible = possible && user != nullptr;
    }
    if (!possible || user == nullptr) continue;
    // The lane is let go of behind its one use.
    int uses = 0;
    Place* use = nullptr;
    const auto look = [&](Place& place) {
      if (place.base != kScratch ||
          !overlap(place.offset, user->bytes, recv.dst.offset, recv.bytes))
        return;
      uses++;
      if (place.offset == recv.dst.offset) use = &place;
    };
    look(user->src);
    for (uint32_t s = 0; s < user->source_count; s++) look(sources_[user->first_source + s]);
    if (uses != 1 || use == nullptr) continue;
    *use = {kLane, 0, recv.wire};
    recv.keeps_open = true;
  }
}

void Strip::begin(uint64_t sequence, const Buffers& buffers, const kernels::Scaling& scaling) {
  sequence_ = static_cast<uint32_t>(sequence);
  bases_ = {const_cast<std::byte*>(buffers.input), buffers.output, buffers.scratch};
  scaling_ = scaling;
  next_ = 0;
  for (Op& op : ops_)
    if (op.wire != nullptr) set_sequence(&op.header, sequence_);
}

Strip::State Strip::step() {
  for (; next_ < ops_.size(); next_++) {
    const Op& op = ops_[next_];
    if (op.verb == Verb::send || op.verb == Verb::signal) {
      std::byte* place = op.wire->lane_place(op.bytes);
      if (place == nullptr) return State::blocked;
      if (op.pre && scaling_.pre.kind != kernels::Scale::Kind::none) {
        kernels::scale(place, at(op.src), op.count, request_.datatype, scaling_.pre);
      } else if (op.bytes > 0) {
        std::memcpy(place, at(op.src), op.bytes);
      }
      op.wire->publish(op.header.data());
      continue;
    }
    if (receives(op.verb)) {
      if (!op.wire->lane_arrived()) return State::blocked;
      if (!op.wire->open_lane(op.header, op.bytes)) return State::differs;
      if (op.keeps_open) continue;
      if (op.verb == Verb::recv) {
        std::memcpy(at(op.dst), op.wire->lane_payload(), op.bytes);
        if (op.post && scaling_.post.kind != kernels::Scale::Kind::none)
          kernels::scale(at(op.dst), at(op.dst), op.count, request_.datatype, scaling_.post);
      } else if (op.verb == Verb::recv_reduce) {
        const void* inputs[2] = {at(op.src), op.wire->lane_payload()};
        if (op.message_first) std::swap(inputs[0], inputs[1]);
        kernels::reduce(at(op.dst), inputs, 2, op.count, request_.datatype, request_.op,
                        op.pre ? scaling_.pre : kernels::Scale(),
                        op.post ? scaling_.post : kernels::Scale(), kernels::Store::cached);
      }
      op.wire->finish_message();
      continue;
    }
    combine(op);
  }
  return State::done;
}

void Strip::combine(const Op& op) {
  static const kernels::Scale kNone;
  const kernels::Scale& pre = op.pre ? scaling_.pre : kNone;
  const kernels::Scale& post = op.post ? scaling_.post : kNone;
  inputs_[0] = at(op.src);
  for (uint32_t s = 0; s < op.source_count; s++) inputs_[s + 1] = at(sources_[op.first_source + s]);
  std::byte* dst = at(op.dst);
  const bool scaled =
      pre.kind != kernels::Scale::Kind::none || post.kind != kernels::Scale::Kind::none;
  if (op.verb == Verb::reduce || scaled) {
    kernels::reduce(dst, inputs_.data(), static_cast<int>(op.source_count) + 1, op.count,
                    request_.datatype, request_.op, pre, post, kernels::Store::cached);
  } else if (dst != inputs_[0]) {
    std::memmove(dst, inputs_[0], op.bytes);
  }
  if (op.src.base == kLane) op.src.wire->finish_message();
  for (uint32_t s = 0; s < op.source_count; s++) {
    const Place& source = sources_[op.first_source + s];
    if (source.base == kLane) source.wire->finish_message();
  }
}

Header Strip::header_here() const {
  Header header;
  decode(ops_[next_].header.data(), &header);
  return header;
}

}  // namespace railccl::runtime
