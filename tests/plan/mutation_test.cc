// Shows that the checker refuses wrong plans: takes right ones, breaks one step of one rank at a
// time in every way of a list (dropped, doubled, swapped, sent elsewhere, off by one, without pre,
// ...), and expects a refusal each time. A mutant is excused only when one of the rules below
// proves that it does what the original does; the rules know nothing of the checker.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "plan/sample_plans.h"

namespace railccl::plan {
namespace {

/// Elements of one rank's memory, in addresses where an in-place input and output coincide.
struct Extent {
  int rank = 0;
  uint64_t start = 0;
  uint64_t end = 0;
  bool touches(const Extent& other) const {
    return rank == other.rank && start < other.end && other.start < end;
  }
};

Extent extent_of(const Request& request, int ranks, int rank, const Slice& slice, uint64_t i) {
  constexpr uint64_t kApart = uint64_t{1} << 32;
  const int owner = slice.owner == kHere ? rank : slice.owner;
  uint64_t at = kApart * static_cast<uint64_t>(slice.buffer);
  if (request.in_place && slice.buffer != Buffer::scratch) {
    const uint64_t in = input_elements(request, ranks, owner);
    const uint64_t out = output_elements(request, ranks, owner);
    const uint64_t mine = request.count * static_cast<uint64_t>(owner);
    const Buffer smaller = in < out ? Buffer::input : Buffer::output;
    at = in != out && slice.buffer == smaller ? mine : 0;
  }
  return {owner, at + slice.start_at(i), at + slice.start_at(i) + slice.count_at(i)};
}

struct Accesses {
  std::vector<Extent> reads, writes;
};

bool reads_src(Verb verb) {
  return verb == Verb::copy || verb == Verb::reduce || verb == Verb::send ||
         verb == Verb::recv_reduce;
}
bool writes_dst(Verb verb) {
  return verb == Verb::copy || verb == Verb::reduce || verb == Verb::recv ||
         verb == Verb::recv_reduce;
}
bool has_data(Verb verb) { return reads_src(verb) || writes_dst(verb); }

Accesses accesses_of(const Program& program, const Step& step, uint64_t i) {
  Accesses accesses;
  const auto add = [&](std::vector<Extent>& to, const Slice& slice) {
    if (slice.count_at(i) > 0)
      to.push_back(extent_of(program.request, program.ranks, program.rank, slice, i));
  };
  if (reads_src(step.verb)) add(accesses.reads, step.src);
  for (uint32_t s = 0; s < step.source_count; s++)
    add(accesses.reads, program.sources[step.first_source + s]);
  if (writes_dst(step.verb)) add(accesses.writes, step.dst);
  for (uint32_t t = 0; t < step.target_count; t++)
    add(accesses.writes, program.targets[step.first_target + t]);
  return accesses;
}

bool conflict(const Accesses& a, const Accesses& b) {
  const auto any = [](const std::vector<Extent>& x, const std::vector<Extent>& y) {
    return std::any_of(x.begin(), x.end(), [&](const Extent& e) {
      return std::any_of(y.begin(), y.end(), [&](const Extent& f) { return e.touches(f); });
    });
  };
  return any(a.writes, b.writes) || any(a.writes, b.reads) || any(a.reads, b.writes);
}

/// Both put into, or both take from, the same queue.
bool same_queue(const Step& a, const Step& b) {
  const auto side = [](const Step& step) {
    if (step.verb == Verb::send || step.verb == Verb::signal) return 1;
    return step.verb == Verb::copy || step.verb == Verb::reduce ? 0 : 2;
  };
  return side(a) != 0 && side(a) == side(b) && a.peer == b.peer &&
         (a.peer != kHere || a.channel == b.channel);
}

/// One step of a sample.
struct Spot {
  size_t rank, channel, loop, step;
};

class Mutator {
 public:
  explicit Mutator(const Sample& sample) : sample_(sample) {}

  void run() {
    for (size_t r = 0; r < sample_.programs.size(); r++)
      for (size_t c = 0; c < sample_.programs[r].channels.size(); c++) {
        const Channel& channel = sample_.programs[r].channels[c];
        for (size_t l = 0; l < channel.loops.size(); l++) {
          loop_iterations({r, c, l, 0});
          const Loop& loop = channel.loops[l];
          for (size_t s = loop.first_step; s < loop.first_step + loop.step_count; s++)
            all_of({r, c, l, s});
        }
      }
  }

  std::map<std::string, int> killed, excused;

 private:
  const Channel& channel(const Spot& at) const {
    return sample_.programs[at.rank].channels[at.channel];
  }
  const Step& step(const Spot& at) const { return channel(at).steps[at.step]; }
  const Loop& loop(const Spot& at) const { return channel(at).loops[at.loop]; }

  void all_of(const Spot& at) {
    drop(at);
    duplicate(at);
    swap(at);
    misdirect(at);
    off_by_one(at);
    lists(at);
    marks(at);
  }

  /// The step moves no element in any iteration and carries no signal.
  bool idle(const Spot& at) const {
    const Step& s = step(at);
    if (!has_data(s.verb)) return false;
    for (uint64_t i = 0; i < loop(at).iterations; i++)
      if ((reads_src(s.verb) ? s.src : s.dst).count_at(i) > 0) return false;
    return true;
  }

  void drop(const Spot& at) {
    if (idle(at)) return excuse("drop");
    Sample mutant = sample_;
    Channel& c = mutant.programs[at.rank].channels[at.channel];
    c.steps.erase(c.steps.begin() + static_cast<std::ptrdiff_t>(at.step));
    resize(c, at, -1);
    expect_refused("drop", mutant, at);
  }

  /// Excused: nothing happens, or the step is local and its result is none of its operands, so that
  /// doing it twice gives the same.
  void duplicate(const Spot& at) {
    const Step& s = step(at);
    const Program& program = sample_.programs[at.rank];
    bool idempotent = s.verb == Verb::copy || s.verb == Verb::reduce;
    for (uint64_t i = 0; idempotent && i < loop(at).iterations; i++) {
      const Accesses own = accesses_of(program, s, i);
      idempotent = !conflict({own.reads, {}}, {{}, own.writes});
    }
    if (idle(at) || idempotent) return excuse("duplicate");
    Sample mutant = sample_;
    Channel& c = mutant.programs[at.rank].channels[at.channel];
    c.steps.insert(c.steps.begin() + static_cast<std::ptrdiff_t>(at.step), s);
    resize(c, at, 1);
    expect_refused("duplicate", mutant, at);
  }

  /// Excused: the steps are equal, or idle; or they share neither elements (one of them writing)
  /// nor a queue, and if one is a signal or wait, no other thread conflicts with the other, or both
  /// are; or both add a message of different peers to the same sum, which commutes.
  void swap(const Spot& at) {
    if (at.step + 1 >= loop(at).first_step + loop(at).step_count) return;
    const Spot next = {at.rank, at.channel, at.loop, at.step + 1};
    const Step &a = step(at), &b = step(next);
    const Program& program = sample_.programs[at.rank];
    bool independent = !same_queue(a, b);
    for (uint64_t i = 0; independent && i < loop(at).iterations; i++)
      independent = !conflict(accesses_of(program, a, i), accesses_of(program, b, i));
    if (has_data(a.verb) != has_data(b.verb))
      independent = independent && !shared_with_others(has_data(a.verb) ? at : next);
    independent = independent || (a.verb == Verb::recv_reduce && b.verb == a.verb &&
                                  a.peer != b.peer && a.src == a.dst && a.src == b.src &&
                                  a.dst == b.dst && a.pre == b.pre && a.post == b.post);
    if (a == b || idle(at) || idle(next) || independent) return excuse("swap");
    Sample mutant = sample_;
    Channel& c = mutant.programs[at.rank].channels[at.channel];
    std::swap(c.steps[at.step], c.steps[at.step + 1]);
    expect_refused("swap", mutant, at);
  }

  /// Does another thread conflict with what the step accesses, or does it reach another rank?
  bool shared_with_others(const Spot& at) const {
    const Program& program = sample_.programs[at.rank];
    std::vector<Accesses> mine;
    for (uint64_t i = 0; i < loop(at).iterations; i++)
      mine.push_back(accesses_of(program, step(at), i));
    for (size_t r = 0; r < sample_.programs.size(); r++)
      for (size_t c = 0; c < sample_.programs[r].channels.size(); c++) {
        if (r == at.rank && c == at.channel) continue;
        const Channel& other = sample_.programs[r].channels[c];
        for (const Loop& l : other.loops)
          for (uint64_t i = 0; i < l.iterations; i++)
            for (uint32_t s = 0; s < l.step_count; s++) {
              const Accesses theirs =
                  accesses_of(sample_.programs[r], other.steps[l.first_step + s], i);
              for (const Accesses& own : mine)
                if (conflict(own, theirs)) return true;
            }
      }
    return false;
  }

  void misdirect(const Spot& at) {
    const Step& s = step(at);
    if (s.peer == kHere) {
      if (has_data(s.verb)) return;
      Sample mutant = sample_;
      Step& m = mutant.programs[at.rank].channels[at.channel].steps[at.step];
      m.channel = static_cast<uint16_t>(m.channel ^ 1);
      return expect_refused("misdirect", mutant, at);
    }
    if (idle(at)) return excuse("misdirect");
    for (const int by : {1, sample_.ranks - 1}) {
      Sample mutant = sample_;
      Step& m = mutant.programs[at.rank].channels[at.channel].steps[at.step];
      m.peer = (m.peer + by) % sample_.ranks;
      if (m.peer != s.peer) expect_refused("misdirect", mutant, at);
    }
  }

  /// Excused: in no iteration does the changed slice name other elements.
  void off_by_one(const Spot& at) {
    const Step& s = step(at);
    if (reads_src(s.verb)) off_by_one(at, [&](Program& p) -> Slice& { return slot(p, at).src; });
    if (writes_dst(s.verb)) off_by_one(at, [&](Program& p) -> Slice& { return slot(p, at).dst; });
    for (uint32_t k = 0; k < s.source_count; k++)
      off_by_one(at, [&](Program& p) -> Slice& { return p.sources[s.first_source + k]; });
    for (uint32_t k = 0; k < s.target_count; k++)
      off_by_one(at, [&](Program& p) -> Slice& { return p.targets[s.first_target + k]; });
  }

  /// The last source, and the last target, left out.
  void lists(const Spot& at) {
    const Step& s = step(at);
    if (idle(at)) return excuse("lists");
    Sample mutant = sample_;
    if (s.source_count > 0) {
      slot(mutant.programs[at.rank], at).source_count--;
      expect_refused("source", mutant, at);
    }
    mutant = sample_;
    if (s.target_count > 0) {
      slot(mutant.programs[at.rank], at).target_count--;
      expect_refused("target", mutant, at);
    }
  }

  static Step& slot(Program& program, const Spot& at) {
    return program.channels[at.channel].steps[at.step];
  }

  void off_by_one(const Spot& at, const std::function<Slice&(Program&)>& slice_in) {
    const auto mutate = [&](const char* name, const std::function<void(Slice&)>& change) {
      Sample mutant = sample_;
      Slice& slice = slice_in(mutant.programs[at.rank]);
      const Slice before = slice;
      change(slice);
      bool same = true;
      for (uint64_t i = 0; same && i < loop(at).iterations; i++)
        same = before.count_at(i) == slice.count_at(i) &&
               (before.count_at(i) == 0 ||
                (before.start_at(i) == slice.start_at(i) && before.owner == slice.owner &&
                 before.buffer == slice.buffer));
      if (same) return excuse(name);
      expect_refused(name, mutant, at);
    };
    mutate("offset+1", [](Slice& s) { s.offset++; });
    mutate("offset-1", [](Slice& s) { s.offset--; });
    mutate("count+1", [](Slice& s) { s.count++; });
    mutate("count-1", [](Slice& s) { s.count--; });
    mutate("stride+1", [](Slice& s) { s.stride++; });
    mutate("stride-1", [](Slice& s) { s.stride--; });
    mutate("limit-1", [](Slice& s) { s.limit--; });
    mutate("clamp+1", [](Slice& s) { s.clamp_stride++; });
    mutate("modulo+1", [](Slice& s) { s.modulo += s.modulo > 0 ? 1 : 0; });
    mutate("owner+1", [&](Slice& s) {
      if (s.owner != kHere) s.owner = (s.owner + 1) % sample_.ranks;
    });
  }

  /// pre and post the other way round, where the verb can have them.
  void marks(const Spot& at) {
    if (idle(at)) return excuse("marks");
    for (const bool pre : {true, false}) {
      Sample mutant = sample_;
      Step& m = slot(mutant.programs[at.rank], at);
      (pre ? m.pre : m.post) = !(pre ? m.pre : m.post);
      expect_refused(pre ? "pre" : "post", mutant, at);
    }
  }

  /// Excused: the added iteration moves nothing.
  void loop_iterations(const Spot& at) {
    const Loop& original = loop(at);
    bool added_idle = true, last_idle = true;
    for (uint32_t s = 0; s < original.step_count; s++) {
      const Step& one = channel(at).steps[original.first_step + s];
      const Slice& slice = reads_src(one.verb) ? one.src : one.dst;
      added_idle = added_idle && has_data(one.verb) && slice.count_at(original.iterations) == 0;
      last_idle = last_idle && has_data(one.verb) && slice.count_at(original.iterations - 1) == 0;
    }
    for (const bool more : {true, false}) {
      if (more ? added_idle : last_idle) {
        excuse("iterations");
        continue;
      }
      if (more && original.iterations == 1) continue;  // the same as doubling its steps
      Sample mutant = sample_;
      Loop& m = mutant.programs[at.rank].channels[at.channel].loops[at.loop];
      m.iterations += more ? 1 : ~uint64_t{0};
      expect_refused("iterations", mutant, {at.rank, at.channel, at.loop, original.first_step});
    }
  }

  static void resize(Channel& c, const Spot& at, int by) {
    c.loops[at.loop].step_count += static_cast<uint32_t>(by);
    for (size_t l = at.loop + 1; l < c.loops.size(); l++)
      c.loops[l].first_step += static_cast<uint32_t>(by);
  }

  void excuse(const std::string& kind) { excused[kind]++; }
  void expect_refused(const std::string& kind, const Sample& mutant, const Spot& at) {
    const Result<CheckReport> report = mutant.check();
    EXPECT_FALSE(report) << kind << " survives: " << sample_.name << " " << text_of(sample_.request)
                         << " p=" << sample_.ranks << " rank " << at.rank << " channel "
                         << at.channel << " step " << at.step << " (" << name_of(step(at).verb)
                         << ")";
    if (!report) killed[kind]++;
  }

  const Sample& sample_;
};

TEST(Mutation, EveryChangedMeaningIsRefused) {
  std::map<std::string, int> killed, excused;
  for (const int p : {1, 2, 3, 4, 5})
    // Counts with more chunks than the broadcast has slots, or the order of reuse means nothing.
    for (const uint64_t count : {7, 9}) {
      for (const Sample& sample : all_samples(p, count)) {
        ASSERT_TRUE(sample.check()) << sample.name;
        Mutator mutator(sample);
        mutator.run();
        for (const auto& [kind, n] : mutator.killed) killed[kind] += n;
        for (const auto& [kind, n] : mutator.excused) excused[kind] += n;
      }
    }
  int total = 0;
  for (const auto& [kind, n] : killed) {
    RecordProperty(kind,
                   std::to_string(n) + " refused, " + std::to_string(excused[kind]) + " excused");
    total += n;
  }
  for (const char* kind : {"drop", "duplicate", "swap", "misdirect", "offset+1", "offset-1",
                           "count+1", "count-1", "stride+1", "limit-1", "clamp+1", "modulo+1",
                           "owner+1", "source", "target", "pre", "post", "iterations"})
    EXPECT_GT(killed[kind], 0) << "no mutant of kind " << kind << " was tried";
  EXPECT_GT(total, 10'000);
}

}  // namespace
}  // namespace railccl::plan
