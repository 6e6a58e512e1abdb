// Staged: records a stage's steps for two chunks and writes the loop that both are iterations of.
#include "algorithms/staged.h"

#include <cassert>
#include <numeric>
#include <utility>

namespace railccl::algorithms {
namespace {

using plan::Slice;
using plan::Step;

/// The steps of one chunk with their slices resolved, their sources and targets beside them.
struct Recording {
  struct Entry {
    Step step;
    std::vector<Slice> sources;
    std::vector<Slice> targets;
  };
  std::vector<Entry> entries;
  uint64_t scratch_end = 0;
};

Slice fixed(const Slice& slice, uint64_t iteration) {
  return {slice.buffer, slice.owner, slice.start_at(iteration), slice.count_at(iteration), 0, 0, 0,
          ~uint64_t{0}};
}

bool does_nothing(const Step& step) {
  switch (step.verb) {
    case plan::Verb::copy:
    case plan::Verb::reduce:
    case plan::Verb::send:
      return step.src.count == 0;
    case plan::Verb::recv:
    case plan::Verb::recv_reduce:
      return step.dst.count == 0;
    case plan::Verb::signal:
    case plan::Verb::wait:
      return false;
  }
  return false;
}

Recording record(const plan::Builder& b, uint64_t scratch_used, int channel, const StageBody& body,
                 uint64_t from, uint64_t n) {
  plan::Builder recorder(b.request(), b.ranks(), b.rank(), "recording");
  // What the real program uses already keeps its place.
  recorder.scratch(scratch_used);
  recorder.channel(channel);
  body(recorder, channel, from, n);
  const plan::Program program = std::move(recorder).take();
  const plan::Channel& written = program.channels[static_cast<size_t>(channel)];
  Recording recording;
  recording.scratch_end = program.scratch_elements;
  for (const plan::Loop& loop : written.loops) {
    for (uint64_t i = 0; i < loop.iterations; i++) {
      for (uint32_t s = 0; s < loop.step_count; s++) {
        Recording::Entry entry{written.steps[loop.first_step + s], {}, {}};
        entry.step.src = fixed(entry.step.src, i);
        entry.step.dst = fixed(entry.step.dst, i);
        for (uint32_t k = 0; k < entry.step.source_count; k++) {
          entry.sources.push_back(fixed(program.sources[entry.step.first_source + k], i));
        }
        for (uint32_t k = 0; k < entry.step.target_count; k++) {
          entry.targets.push_back(fixed(program.targets[entry.step.first_target + k], i));
        }
        if (!does_nothing(entry.step)) recording.entries.push_back(std::move(entry));
      }
    }
  }
  return recording;
}

/// `first` as it moves towards `second` from one iteration to the next.
Slice moving(const Slice& first, const Slice& second) {
  assert(first.buffer == second.buffer && first.owner == second.owner &&
         first.count == second.count && first.offset <= second.offset);
  Slice slice = first;
  slice.stride = second.offset - first.offset;
  return slice;
}

void write_step(plan::Builder& b, const Recording::Entry& first, const Recording::Entry& second) {
  const Step& step = first.step;
  assert(step.verb == second.step.verb && step.peer == second.step.peer);
  const auto pre = step.pre ? plan::Pre::yes : plan::Pre::no;
  const auto post = step.post ? plan::Post::yes : plan::Post::no;
  const Slice src = moving(step.src, second.step.src);
  const Slice dst = moving(step.dst, second.step.dst);
  std::vector<Slice> dsts = {dst};
  for (size_t i = 0; i < first.targets.size(); i++) {
    dsts.push_back(moving(first.targets[i], second.targets[i]));
  }
  switch (step.verb) {
    case plan::Verb::copy:
      return b.copy(src, dsts, pre, post);
    case plan::Verb::reduce: {
      std::vector<Slice> sources;
      for (size_t i = 0; i < first.sources.size(); i++) {
        sources.push_back(moving(first.sources[i], second.sources[i]));
      }
      return b.reduce(src, sources, dsts, pre, post);
    }
    case plan::Verb::send:
      return b.send(step.peer, src, pre);
    case plan::Verb::recv:
      return b.recv(step.peer, dst, post);
    case plan::Verb::recv_reduce:
      return b.recv_reduce(step.peer, src, dst, pre, post);
    case plan::Verb::signal:
      return b.signal(step.peer);
    case plan::Verb::wait:
      return b.wait(step.peer);
  }
}

}  // namespace

void write_stages(plan::Builder& b, uint64_t count, uint64_t chunk,
                  const std::vector<WideStage>& stages) {
  const uint64_t full = count / chunk, rest = count % chunk;
  for (size_t i = 0; i < stages.size(); i++) {
    const WideStage& stage = stages[i];
    for (size_t part = 0; part < stage.channels.size(); part++) {
      const int channel = stage.channels[part];
      const StageBody body = [&](plan::Builder& to, int on, uint64_t from, uint64_t n) {
        stage.body(to, on, part, from, n);
      };
      const uint64_t scratch_used = b.scratch(0).offset;
      uint64_t scratch_end = scratch_used;
      b.channel(channel);
      const auto write = [&](uint64_t iterations, const Recording& first, const Recording& second) {
        assert(first.entries.size() == second.entries.size());
        b.loop(iterations, [&] {
          if (i > 0)
            for (const int before : stages[i - 1].channels) b.wait_channel(before);
          for (size_t s = 0; s < first.entries.size(); s++)
            write_step(b, first.entries[s], second.entries[s]);
          if (i + 1 < stages.size())
            for (const int next : stages[i + 1].channels) b.signal_channel(next);
        });
        scratch_end = std::max(scratch_end, first.scratch_end);
      };
      if (full > 0) {
        const Recording first = record(b, scratch_used, channel, body, 0, chunk);
        write(full, first, full > 1 ? record(b, scratch_used, channel, body, chunk, chunk) : first);
      }
      if (rest > 0) {
        const Recording tail = record(b, scratch_used, channel, body, full * chunk, rest);
        write(1, tail, tail);
      }
      b.scratch(scratch_end - scratch_used);
    }
  }
}

void write_stages(plan::Builder& b, const std::vector<int>& channels, uint64_t count,
                  uint64_t chunk, const std::vector<StageBody>& stages) {
  std::vector<WideStage> wide;
  for (size_t i = 0; i < stages.size(); i++)
    wide.push_back({{channels[i]},
                    [&body = stages[i]](plan::Builder& to, int channel, size_t, uint64_t from,
                                        uint64_t n) { body(to, channel, from, n); }});
  write_stages(b, count, chunk, wide);
}

void write_stages(plan::Builder& b, int first_channel, uint64_t count, uint64_t chunk,
                  const std::vector<StageBody>& stages) {
  std::vector<int> channels(stages.size());
  std::iota(channels.begin(), channels.end(), first_channel);
  write_stages(b, channels, count, chunk, stages);
}

}  // namespace railccl::algorithms
