// Compiled: slices made unique, messages matched to queues.
#include "simulator/compiled.h"

#include <cassert>
#include <utility>

namespace railccl::simulator {

using plan::Slice;
using plan::Verb;

namespace {

/// One round of SplitMix64's mixing for each word.
template <typename... Words>
size_t mix(Words... words) {
  uint64_t hash = 0;
  ((hash = (hash ^ static_cast<uint64_t>(words)) * 0xbf58476d1ce4e5b9ULL, hash ^= hash >> 29), ...);
  return hash;
}

}  // namespace

size_t SliceHash::operator()(const Slice& slice) const {
  return mix(static_cast<int>(slice.buffer), slice.owner, slice.offset, slice.count, slice.stride,
             slice.modulo, slice.clamp_stride, slice.limit);
}

size_t Compiled::EndsHash::operator()(const Ends& ends) const {
  return mix(ends.from.rank, ends.from.channel, ends.to.rank, ends.to.channel, ends.local);
}

uint32_t Compiled::intern(const Slice& slice) {
  const auto [at, fresh] = slice_ids_.try_emplace(slice, static_cast<uint32_t>(slices_.size()));
  if (fresh) slices_.push_back(slice);
  return at->second;
}

uint32_t Compiled::queue_of(Ends ends) {
  ends.to.rank = folding_.seen(ends.from.rank, ends.to.rank);
  ends.from.rank = folding_.stand_in(ends.from.rank);
  const auto [at, fresh] = queue_ids_.try_emplace(ends, static_cast<uint32_t>(ends_.size()));
  if (fresh) ends_.push_back(ends);
  return at->second;
}

Compiled::Op Compiled::compile(const plan::Program& program, int channel, const plan::Step& step) {
  Op op;
  op.verb = step.verb;
  const End here{program.rank, channel};
  const bool local = step.peer == plan::kHere;
  const End there = local ? End{program.rank, step.channel} : End{step.peer, channel};
  switch (step.verb) {
    case Verb::send:
      op.src = intern(step.src);
      op.queue = queue_of({here, there, local});
      break;
    case Verb::signal:
      op.queue = queue_of({here, there, local});
      break;
    case Verb::recv:
    case Verb::recv_reduce:
    case Verb::wait:
      op.queue = queue_of({there, here, local});
      if (step.verb == Verb::recv_reduce) op.src = intern(step.src);
      if (step.verb != Verb::wait) op.dst = intern(step.dst);
      break;
    case Verb::copy:
    case Verb::reduce:
      op.src = intern(step.src);
      op.dst = intern(step.dst);
      if (step.source_count + step.target_count == 0) break;
      op.extra = static_cast<uint32_t>(extras_.size());
      extras_.push_back(
          {static_cast<uint32_t>(extra_slices_.size()), step.source_count, step.target_count});
      for (uint32_t s = 0; s < step.source_count; s++)
        extra_slices_.push_back(intern(program.sources[step.first_source + s]));
      for (uint32_t t = 0; t < step.target_count; t++)
        extra_slices_.push_back(intern(program.targets[step.first_target + t]));
      break;
  }
  return op;
}

void Compiled::add(const plan::Program& program) {
  assert(program.rank >= next_rank_ && folding_.stand_in(program.rank) == program.rank);
  while (next_rank_ <= program.rank)
    first_thread_[static_cast<size_t>(next_rank_++)] = static_cast<uint32_t>(threads_.size());
  for (size_t c = 0; c < program.channels.size(); c++) {
    const plan::Channel& channel = program.channels[c];
    threads_.push_back(
        {program.rank, static_cast<int>(c), static_cast<uint32_t>(loops_.size()), 0, ops_.size()});
    for (const plan::Loop& loop : channel.loops) {
      if (loop.iterations == 0 || loop.step_count == 0) continue;
      loops_.push_back(loop);
      threads_.back().loop_count++;
    }
    for (const plan::Step& step : channel.steps)
      ops_.push_back(compile(program, static_cast<int>(c), step));
  }
}

void Compiled::finish() {
  while (static_cast<size_t>(next_rank_) < first_thread_.size())
    first_thread_[static_cast<size_t>(next_rank_++)] = static_cast<uint32_t>(threads_.size());
  const auto thread_of = [&](const End& end) -> uint32_t {
    const auto rank = static_cast<size_t>(folding_.stand_in(end.rank));
    const uint32_t thread = first_thread_[rank] + static_cast<uint32_t>(end.channel);
    return thread < first_thread_[rank + 1] ? thread : kNone;
  };
  queues_.reserve(ends_.size());
  for (const Ends& ends : ends_)
    queues_.push_back(
        {ends.from.rank, ends.to.rank, thread_of(ends.from), thread_of(ends.to), ends.local});
  // What was needed to make it.
  std::exchange(slice_ids_, {});
  std::exchange(queue_ids_, {});
  std::exchange(ends_, {});
}

}  // namespace railccl::simulator
