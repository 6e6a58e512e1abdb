// Builder: appends steps to the loops of a Program's channels.
#include "plan/builder.h"

#include <cassert>

namespace railccl::plan {

Builder::Builder(const Request& request, int ranks, int rank, std::string algorithm) {
  assert(ranks >= 1 && rank >= 0 && rank < ranks);
  program_.rank = rank;
  program_.ranks = ranks;
  program_.algorithm = std::move(algorithm);
  program_.request = request;
  channel(0);
}

Region Builder::input() const {
  return {Buffer::input, kHere, 0, input_elements(request(), ranks(), rank())};
}

Region Builder::output() const {
  return {Buffer::output, kHere, 0, output_elements(request(), ranks(), rank())};
}

Region Builder::scratch(uint64_t count) {
  const uint64_t offset = program_.scratch_elements;
  program_.scratch_elements += count;
  return {Buffer::scratch, kHere, offset, count};
}

Builder& Builder::channel(int c) {
  assert(c >= 0);
  channel_ = c;
  const size_t needed = static_cast<size_t>(c) + 1;
  if (program_.channels.size() < needed) {
    program_.channels.resize(needed);
    open_.resize(needed, kClosed);
  }
  return *this;
}

void Builder::loop(uint64_t iterations, const std::function<void()>& body) {
  assert(loop_ == kOnce && "loops do not nest");
  if (iterations == 0) return;
  loop_ = ++loops_made_;
  iterations_ = iterations;
  body();
  loop_ = kOnce;
  iterations_ = 1;
}

void Builder::copy(const Slice& src, const Slice& dst, Pre pre, Post post) {
  copy(src, std::span<const Slice>(&dst, 1), pre, post);
}

void Builder::copy(const Slice& src, std::span<const Slice> dsts, Pre pre, Post post) {
  Step& step = add(Verb::copy, pre, post);
  step.src = src;
  set_destinations(step, dsts);
}

void Builder::reduce(const Slice& src, std::span<const Slice> sources, const Slice& dst, Pre pre,
                     Post post) {
  reduce(src, sources, std::span<const Slice>(&dst, 1), pre, post);
}

void Builder::reduce(const Slice& src, std::span<const Slice> sources, std::span<const Slice> dsts,
                     Pre pre, Post post) {
  Step& step = add(Verb::reduce, pre, post);
  step.src = src;
  set_destinations(step, dsts);
  step.first_source = static_cast<uint32_t>(program_.sources.size());
  step.source_count = static_cast<uint32_t>(sources.size());
  program_.sources.insert(program_.sources.end(), sources.begin(), sources.end());
}

void Builder::send(int to, const Slice& src, Pre pre) {
  Step& step = add(Verb::send, pre, Post::no);
  step.peer = to;
  step.src = src;
}

void Builder::recv(int from, const Slice& dst, Post post) {
  Step& step = add(Verb::recv, Pre::no, post);
  step.peer = from;
  step.dst = dst;
}

void Builder::recv_reduce(int from, const Slice& src, const Slice& dst, Pre pre, Post post) {
  Step& step = add(Verb::recv_reduce, pre, post);
  step.peer = from;
  step.src = src;
  step.dst = dst;
}

void Builder::signal(int to) { add(Verb::signal, Pre::no, Post::no).peer = to; }

void Builder::wait(int from) { add(Verb::wait, Pre::no, Post::no).peer = from; }

void Builder::signal_channel(int channel) {
  add(Verb::signal, Pre::no, Post::no).channel = static_cast<uint16_t>(channel);
}

void Builder::wait_channel(int channel) {
  add(Verb::wait, Pre::no, Post::no).channel = static_cast<uint16_t>(channel);
}

Program Builder::take() && {
  // Verbs went to channels in any order; the side tables follow the channels, so that equal
  // programs have equal tables and the text form, which has no table, reads back equal.
  std::vector<Slice> sources, targets;
  sources.reserve(program_.sources.size());
  targets.reserve(program_.targets.size());
  for (Channel& channel : program_.channels)
    for (Step& step : channel.steps) {
      if (step.verb == Verb::reduce) {
        const auto first = program_.sources.begin() + step.first_source;
        step.first_source = static_cast<uint32_t>(sources.size());
        sources.insert(sources.end(), first, first + step.source_count);
      }
      if (step.target_count == 0) continue;
      const auto first = program_.targets.begin() + step.first_target;
      step.first_target = static_cast<uint32_t>(targets.size());
      targets.insert(targets.end(), first, first + step.target_count);
    }
  program_.sources = std::move(sources);
  program_.targets = std::move(targets);
  return std::move(program_);
}

void Builder::set_destinations(Step& step, std::span<const Slice> dsts) {
  assert(!dsts.empty());
  step.dst = dsts.front();
  if (dsts.size() == 1) return;
  step.first_target = static_cast<uint32_t>(program_.targets.size());
  step.target_count = static_cast<uint32_t>(dsts.size() - 1);
  program_.targets.insert(program_.targets.end(), dsts.begin() + 1, dsts.end());
}

Step& Builder::add(Verb verb, Pre pre, Post post) {
  const size_t c = static_cast<size_t>(channel_);
  Channel& channel = program_.channels[c];
  if (open_[c] != loop_) {
    // Verbs outside of loop() gather in one loop that runs once; each call of loop() opens its own
    // loop on every channel that its body writes to.
    channel.loops.push_back({static_cast<uint32_t>(channel.steps.size()), 0, iterations_});
    open_[c] = loop_;
  }
  channel.loops.back().step_count++;
  Step& step = channel.steps.emplace_back();
  step.verb = verb;
  step.pre = pre == Pre::yes;
  step.post = post == Post::yes;
  return step;
}

}  // namespace railccl::plan
