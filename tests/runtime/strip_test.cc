// Shows that strips (small programs as straight lines) change nothing but the time: every algorithm
// on 2..5 ranks, and thousands of random programs, leave the bits that the interpreter leaves,
// whichever ranks run strips, in any order of steps and with ranks running ahead; that results are
// exact; and that strips are made of just those programs that they are meant for.
//
// A program with one more channel, which is empty, does the same but is no strip: so the
// interpreter is had for comparison.
#include "runtime/strip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "algorithms/algorithm.h"
#include "local_wires.h"
#include "plan/builder.h"
#include "runtime/execute.h"
#include "shapes.h"
#include "values.h"

namespace railccl::test {
namespace {

using algorithms::Algorithm;
using plan::Buffer;
using plan::Program;
using plan::Slice;
using plan::Step;
using plan::Verb;
using runtime::Execution;
using runtime::Outcome;
using runtime::Wires;

constexpr int kShare = by_build(1, 4, 4);  // of what a release build does, a fourth

/// Which ranks run strips.
enum class Who { all, none, some };

/// Ranks of one host over shared memory; one thread drives them all.
class World {
 public:
  explicit World(int ranks) : ranks_(ranks), wires_(local_wires(ranks, "shm")) {}

  /// Rank r runs programs[r] on buffers[round][r], round after round, without waiting for others.
  void run(const std::vector<Program>& programs,
           std::vector<std::vector<std::unique_ptr<Buffers>>>& buffers, Who who, Random& random,
           const std::string& what) {
    const size_t rounds = buffers.size();
    std::vector<std::unique_ptr<Execution>> executions;
    for (size_t r = 0; r < programs.size(); r++) {
      Program program = programs[r];
      if (who == Who::none || (who == Who::some && random.chance(0.5)))
        program.channels.emplace_back();
      const size_t scratch = program.scratch_elements * size_of(program.request.datatype);
      auto memory = wires_[r]->scratch(scratch);
      ASSERT_TRUE(memory.is_ok());
      if (scratch > 0) std::memset(*memory, 0x5a, scratch);
      auto execution = Execution::make(std::move(program), *wires_[r]);
      ASSERT_TRUE(execution.is_ok()) << what << ": " << execution.status().text();
      executions.push_back(std::move(execution).value());
      ASSERT_FALSE(who == Who::none && executions.back()->may_be_strip()) << what;
    }
    std::vector<size_t> round(programs.size(), 0);
    const uint64_t first = sequence_;
    sequence_ += rounds;
    const auto begin = [&](size_t r) {
      const Buffers& mine = *buffers[round[r]][r];
      const plan::Request& request = mine.request_;
      const Status status =
          executions[r]->begin({.sequence = first + round[r],
                                .input = mine.input,
                                .output = mine.output,
                                .scaling = kernels::scaling_of(request.op, request.datatype, ranks_,
                                                               factor_of(request))});
      ASSERT_TRUE(status.is_ok()) << status.text();
      ASSERT_EQ(executions[r]->is_strip(), executions[r]->may_be_strip());
    };
    for (size_t r = 0; r < programs.size(); r++) begin(r);
    size_t left = programs.size();
    for (int idle = 0; left > 0;) {
      const size_t r = random.below(programs.size());
      if (round[r] == rounds) continue;
      const Outcome outcome = executions[r]->step();
      wires_[r]->ring();
      ASSERT_TRUE(outcome.status.is_ok()) << what << ": " << outcome.status.text();
      if (outcome.done && ++round[r] == rounds) left--;
      if (outcome.done && round[r] < rounds) begin(r);
      idle = outcome.progressed || outcome.done ? 0 : idle + 1;
      if (idle % 64 == 63) {
        for (auto& each : wires_) {
          ASSERT_TRUE(each->progress(true).is_ok());
        }
      }
      ASSERT_LT(idle, 20000) << what << ": rank " << r
                             << " waits: " << executions[r]->waiting_for();
    }
    for (auto& each : wires_) {
      auto unread = each->unread();
      ASSERT_TRUE(unread.is_ok() && *unread == nullptr) << what << ": leftovers";
    }
  }
  /// Is `program` of that rank a strip?
  bool is_strip(const Program& program) {
    auto execution = Execution::make(program, *wires_[static_cast<size_t>(program.rank)]);
    return execution.is_ok() && (*execution)->may_be_strip();
  }

 private:
  int ranks_;
  std::vector<std::unique_ptr<Wires>> wires_;
  uint64_t sequence_ = 0;
};

using Rounds = std::vector<std::vector<std::unique_ptr<Buffers>>>;

Rounds buffers_for(const plan::Request& request, int ranks, int rounds) {
  Rounds all;
  for (int i = 0; i < rounds; i++) {
    all.emplace_back();
    for (int r = 0; r < ranks; r++)
      all.back().push_back(std::make_unique<Buffers>(request, ranks, r));
  }
  return all;
}

/// Any bits at all in place of the inputs: also NaN, infinities, and what overflows.
void scramble(Rounds& rounds, int ranks, uint64_t seed) {
  Random random(seed);
  for (auto& round : rounds)
    for (size_t r = 0; r < round.size(); r++) {
      Buffers& buffers = *round[r];
      const size_t bytes = plan::input_elements(buffers.request_, ranks, static_cast<int>(r)) *
                           size_of(buffers.request_.datatype);
      auto* input = const_cast<std::byte*>(buffers.input);
      for (size_t i = 0; i < bytes; i++) input[i] = static_cast<std::byte>(random.next());
    }
}

void expect_same(const Rounds& strips, const Rounds& plain, const std::string& what) {
  for (size_t i = 0; i < strips.size(); i++)
    for (size_t r = 0; r < strips[i].size(); r++) {
      const auto& one = strips[i][r]->output_memory;
      const auto& two = plain[i][r]->output_memory;
      ASSERT_TRUE(one == two) << what << ": rank " << r << ", round " << i << ", byte "
                              << std::mismatch(one.begin(), one.end(), two.begin()).first -
                                     one.begin();
      ASSERT_TRUE(strips[i][r]->input_memory == plain[i][r]->input_memory)
          << what << ": rank " << r << "'s input, round " << i;
    }
}

std::vector<Program> programs_of(const Algorithm& algorithm, const plan::Request& request,
                                 const topology::Topology& topology, const plan::Tuning& tuning) {
  std::vector<Program> programs;
  for (int r = 0; r < topology.size(); r++) {
    auto program = algorithm.build(request, topology, tuning, r);
    EXPECT_TRUE(program.is_ok()) << program.status().text();
    programs.push_back(std::move(program).value());
  }
  return programs;
}

/// Calls `visit` for requests of every algorithm that ranks of one host without open buffers use.
template <typename Visit>
void each_request(const topology::Topology& topology, int requests, Random& random,
                  const Visit& visit) {
  for (const Algorithm* algorithm : algorithms::all()) {
    if (algorithm->reach != algorithms::Reach::none) continue;
    for (int i = 0; i < requests; i++) {
      plan::Request request = random_request(random, algorithm->collective, topology.size(), 300);
      // The scaling operators more often than one time in six each.
      if (reduces(request.collective) && i % 3 == 0)
        request.op = i % 2 == 0 ? Reduction::avg : Reduction::pre_mul_sum;
      if (!algorithm->supports(request, topology)) continue;
      visit(*algorithm, request);
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

std::string describe(const Algorithm& algorithm, const plan::Request& request, int ranks) {
  return fmt::format("{}{} by {} on {} ranks", plan::text_of(request),
                     request.in_place ? " in place" : "", algorithm.name, ranks);
}

/// What strips are for, in other words than strip.cc's.
bool should_be_strip(const Program& program) {
  if (program.channels.size() != 1 || !program.targets.empty()) return false;
  const auto here = [&](const Slice& slice) {
    return slice.count == 0 || slice.owner == plan::kHere || slice.owner == program.rank;
  };
  for (const Slice& source : program.sources)
    if (!here(source)) return false;
  for (const plan::Loop& loop : program.channels[0].loops)
    if (loop.iterations > 1) return false;
  for (const Step& step : program.channels[0].steps) {
    const bool message = step.verb != Verb::copy && step.verb != Verb::reduce;
    const Slice& shape = step.verb == Verb::send ? step.src : step.dst;
    if (message && step.peer == program.rank) return false;
    if (message && shape.count_at(0) * size_of(program.request.datatype) > transport::kLaneBytesMax)
      return false;
    if (!here(step.src) || !here(step.dst)) return false;
  }
  return program.channels[0].steps.size() <= 256;
}

TEST(Strip, EveryAlgorithmGivesExactResults) {
  Random random(11);
  int strips = 0;
  for (int ranks = 2; ranks <= 5; ranks++) {
    const topology::Topology topology = hosts_with({ranks});
    World world(ranks);
    each_request(topology, 24 / kShare, random, [&](const auto& algorithm, const auto& request) {
      const auto programs = programs_of(algorithm, request, topology, {1, 4096});
      const std::string what = describe(algorithm, request, ranks);
      Rounds buffers = buffers_for(request, ranks, 3);
      world.run(programs, buffers, Who::all, random, what);
      if (::testing::Test::HasFatalFailure()) return;
      for (size_t i = 0; i < buffers.size(); i++)
        for (size_t r = 0; r < programs.size(); r++)
          ASSERT_EQ(buffers[i][r]->first_wrong(), -1) << what << ": rank " << r << " round " << i;
      strips += should_be_strip(programs[0]) ? 1 : 0;
    });
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(strips, 1000 / kShare);
}

TEST(Strip, EveryAlgorithmLeavesTheInterpretersBits) {
  Random random(12);
  for (int ranks = 2; ranks <= 5; ranks++) {
    const topology::Topology topology = hosts_with({ranks});
    World world(ranks);
    each_request(topology, 16 / kShare, random, [&](const auto& algorithm, const auto& request) {
      const auto programs = programs_of(algorithm, request, topology, {1, 4096});
      const std::string what = describe(algorithm, request, ranks);
      const uint64_t seed = random.next();
      Rounds plain = buffers_for(request, ranks, 2);
      scramble(plain, ranks, seed);
      world.run(programs, plain, Who::none, random, what);
      if (::testing::Test::HasFatalFailure()) return;
      for (const Who who : {Who::all, Who::some}) {
        Rounds strips = buffers_for(request, ranks, 2);
        scramble(strips, ranks, seed);
        world.run(programs, strips, who, random, what);
        if (::testing::Test::HasFatalFailure()) return;
        expect_same(strips, plain, what);
        if (::testing::Test::HasFatalFailure()) return;
      }
    });
    if (HasFatalFailure()) return;
  }
}

TEST(Strip, IsMadeOfEveryProgramItIsMeantFor) {
  Random random(13);
  for (int ranks = 2; ranks <= 5; ranks++) {
    const topology::Topology topology = hosts_with({ranks});
    World world(ranks);
    each_request(topology, 12 / kShare, random, [&](const auto& algorithm, const auto& request) {
      for (const Program& program : programs_of(algorithm, request, topology, {1, 4096}))
        EXPECT_EQ(world.is_strip(program), should_be_strip(program))
            << describe(algorithm, request, ranks) << '\n'
            << plan::print(program);
    });
  }
}

/// What a call of 8 bytes most often is must be quick.
TEST(Strip, IsMadeOfTheUsualAlgorithms) {
  for (int ranks = 2; ranks <= 5; ranks++) {
    const topology::Topology topology = hosts_with({ranks});
    World world(ranks);
    for (const Algorithm* algorithm : algorithms::all()) {
      const std::string_view name = algorithm->name;
      if (name != "direct" && name != "doubling") continue;
      plan::Request request;
      request.collective = algorithm->collective;
      request.op = reduces(request.collective) ? Reduction::sum : Reduction::none;
      request.count = 2;
      if (!algorithm->supports(request, topology)) continue;
      for (const Program& program : programs_of(*algorithm, request, topology, {1, 4096}))
        EXPECT_TRUE(world.is_strip(program)) << describe(*algorithm, request, ranks);
    }
  }
}

/// Writes random programs of all ranks, as one history of events that can happen in this order.
class Author {
 public:
  static constexpr uint64_t kCount = 12;    // of the request
  static constexpr uint64_t kScratch = 24;  // elements

  Author(const plan::Request& request, int ranks, Random& random)
      : request_(request), ranks_(ranks), random_(random) {
    for (int r = 0; r < ranks; r++) {
      builders_.emplace_back(request, ranks, r, "random");
      builders_.back().scratch(kScratch);
      builders_.back().channel(0);
      written_.emplace_back(kCount, false);
      scratch_written_.emplace_back(kScratch, false);
    }
  }

  std::vector<Program> write(int events) {
    const bool signals = random_.chance(0.2);
    for (int i = 0; i < events; i++) {
      const int rank = static_cast<int>(random_.below(static_cast<uint64_t>(ranks_)));
      const int peer = static_cast<int>(
          (static_cast<uint64_t>(rank) + 1 + random_.below(static_cast<uint64_t>(ranks_ - 1))) %
          static_cast<uint64_t>(ranks_));
      const uint64_t count = 1 + random_.below(4);
      switch (random_.below(signals ? 8 : 7)) {
        case 0:
        case 1:
          copy(rank, count);
          break;
        case 2:
        case 3:
          reduce(rank, count);
          break;
        case 7:
          at(rank).signal(peer);
          at(peer).wait(rank);
          break;
        default:
          message(rank, peer, count);
          break;
      }
    }
    std::vector<Program> programs;
    for (plan::Builder& builder : builders_) programs.push_back(std::move(builder).take());
    return programs;
  }

 private:
  plan::Builder& at(int rank) { return builders_[static_cast<size_t>(rank)]; }

  /// A place to read `count` elements from. Mostly at multiples of 4, so that ranges meet often.
  /// Programs read no scratch that was not written, and no input that was overwritten in place.
  Slice source(int rank, uint64_t count) {
    const auto& scratch = scratch_written_[static_cast<size_t>(rank)];
    const auto& output = written_[static_cast<size_t>(rank)];
    for (int attempts = 0; attempts < 20; attempts++) {
      const bool from_scratch = random_.chance(0.75);
      const uint64_t offset = position(count, from_scratch);
      bool good = true;
      for (uint64_t i = offset; i < offset + count; i++)
        good = good && (from_scratch ? scratch[i] : !request_.in_place || !output[i]);
      if (good) return {from_scratch ? Buffer::scratch : Buffer::input, plan::kHere, offset, count};
    }
    return {};  // there is none: fits nowhere
  }
  Slice destination(uint64_t count) {
    const bool scratch = random_.chance(0.7);
    const Slice slice{scratch ? Buffer::scratch : Buffer::output, plan::kHere,
                      position(count, scratch), count};
    return slice;
  }
  void note_written(int rank, const Slice& slice) {
    auto& written = slice.buffer == Buffer::scratch ? scratch_written_ : written_;
    for (uint64_t i = slice.offset; i < slice.offset + slice.count; i++)
      written[static_cast<size_t>(rank)][i] = true;
  }
  uint64_t position(uint64_t count, bool scratch) {
    const uint64_t size = scratch ? kScratch : kCount;
    if (random_.chance(0.8)) return random_.below(3) * 4;
    return random_.below(size - count + 1);
  }
  /// May a kernel write one while it reads the other? The same place, or nothing in common.
  bool fit(const Slice& dst, const Slice& src) const {
    if (src.count == 0) return false;
    const bool output_is_input =
        request_.in_place && dst.buffer == Buffer::output && src.buffer == Buffer::input;
    if (dst.buffer != src.buffer && !output_is_input) return true;
    return dst.offset == src.offset || dst.offset + dst.count <= src.offset ||
           src.offset + src.count <= dst.offset;
  }
  plan::Pre pre_of(const Slice& src) {
    return src.buffer == Buffer::input ? plan::Pre::yes : plan::Pre::no;
  }
  plan::Post post() { return random_.chance(0.2) ? plan::Post::yes : plan::Post::no; }

  void copy(int rank, uint64_t count) {
    const Slice src = source(rank, count), dst = destination(count);
    if (!fit(dst, src)) return;
    at(rank).copy(src, dst, pre_of(src), post());
    note_written(rank, dst);
  }
  void reduce(int rank, uint64_t count) {
    const Slice src = source(rank, count);
    std::vector<Slice> sources;
    for (uint64_t i = 0; i < 1 + random_.below(3); i++) sources.push_back(source(rank, count));
    const Slice dst = destination(count);
    bool fits = fit(dst, src);
    for (const Slice& each : sources) fits = fits && fit(dst, each);
    if (!fits) return;
    at(rank).reduce(src, sources, dst, pre_of(src), post());
    note_written(rank, dst);
  }
  void message(int rank, int peer, uint64_t count) {
    const Slice src = source(rank, count);
    const bool reduces = random_.chance(0.3);
    const Slice operand = source(peer, count);
    const Slice dst = destination(count);
    if (src.count == 0 || (reduces && !fit(dst, operand))) return;
    at(rank).send(peer, src, pre_of(src));
    if (reduces) {
      at(peer).recv_reduce(rank, operand, dst, pre_of(operand), post());
    } else {
      at(peer).recv(rank, dst, post());
    }
    note_written(peer, dst);
  }

  plan::Request request_;
  int ranks_;
  Random& random_;
  std::vector<plan::Builder> builders_;
  std::vector<std::vector<bool>> written_, scratch_written_;  // of each rank's output and scratch
};

TEST(Strip, RandomProgramsLeaveTheInterpretersBits) {
  constexpr Reduction kOps[] = {Reduction::sum, Reduction::max, Reduction::avg,
                                Reduction::pre_mul_sum};
  constexpr Datatype kTypes[] = {Datatype::float32, Datatype::int32, Datatype::bfloat16};
  int strips = 0;
  for (int ranks = 2; ranks <= 3; ranks++) {
    World world(ranks);
    for (uint64_t seed = 0; seed < 3000 / kShare; seed++) {
      Random random(seed * 2 + static_cast<uint64_t>(ranks));
      plan::Request request;
      request.op = kOps[random.below(4)];
      request.datatype = kTypes[random.below(3)];
      request.in_place = random.chance(0.4);
      request.count = Author::kCount;
      const auto programs =
          Author(request, ranks, random).write(3 + static_cast<int>(random.below(12)));
      const std::string what =
          fmt::format("seed {}, {} ranks{}\n{}", seed, ranks, request.in_place ? ", in place" : "",
                      plan::print(programs[0]) + plan::print(programs[1]));
      Rounds plain = buffers_for(request, ranks, 2);
      scramble(plain, ranks, seed);
      world.run(programs, plain, Who::none, random, what);
      for (const Who who : {Who::all, Who::some}) {
        if (HasFatalFailure()) return;
        Rounds others = buffers_for(request, ranks, 2);
        scramble(others, ranks, seed);
        world.run(programs, others, who, random, what);
        if (HasFatalFailure()) return;
        expect_same(others, plain, what);
      }
      if (HasFatalFailure()) return;
      strips += world.is_strip(programs[0]) ? 1 : 0;
    }
  }
  EXPECT_GT(strips, 4000 / kShare);
}

plan::Request ints(uint64_t count) {
  plan::Request request;
  request.datatype = Datatype::int32;
  request.op = Reduction::sum;
  request.count = count;
  return request;
}

/// Two ranks exchange their inputs; rank 1 fetches rank 0's out of its scratch.
TEST(Strip, KeepsCopiesThatPeersReadFromScratch) {
  const plan::Request request = ints(4);
  plan::Builder zero(request, 2, 0, "fetch"), one(request, 2, 1, "fetch");
  plan::Region mine = zero.scratch(4);
  zero.channel(0).copy(zero.input().slice(), mine.slice());
  zero.signal(1);
  zero.recv_reduce(1, zero.input().slice(), zero.output().slice());
  mine.owner = 0;
  one.channel(0).wait(0);
  one.reduce(one.input().slice(), {{mine.slice()}}, one.output().slice());
  one.send(0, one.input().slice());
  const std::vector<Program> programs = {std::move(zero).take(), std::move(one).take()};
  World world(2);
  EXPECT_TRUE(world.is_strip(programs[0]));
  EXPECT_FALSE(world.is_strip(programs[1])) << "it reads a peer's memory";
  Random random(3);
  Rounds buffers = buffers_for(request, 2, 1);
  world.run(programs, buffers, Who::all, random, "fetch");
  EXPECT_EQ(buffers[0][0]->first_wrong(), -1);
  EXPECT_EQ(buffers[0][1]->first_wrong(), -1);
}

/// A strip's messages wait in no queue as the interpreter's do: the lane must have room for them.
TEST(Strip, AsManyMessagesInFlightAsPlansMayHaveDoNotBlockEachOther) {
  for (uint64_t messages = 1; messages <= plan::kSendWindow; messages++) {
    const plan::Request request = ints(messages);
    std::vector<Program> programs;
    for (int r = 0; r < 2; r++) {
      plan::Builder b(request, 2, r, "burst");
      b.channel(0);
      for (uint64_t i = 0; i < messages; i++) b.send(1 - r, b.input().part(i, 1).slice());
      for (uint64_t i = 0; i < messages; i++)
        b.recv_reduce(1 - r, b.input().part(i, 1).slice(), b.output().part(i, 1).slice());
      programs.push_back(std::move(b).take());
    }
    World world(2);
    EXPECT_TRUE(world.is_strip(programs[0]));
    Random random(messages);
    Rounds buffers = buffers_for(request, 2, 8);
    world.run(programs, buffers, Who::all, random, fmt::format("bursts of {}", messages));
    if (HasFatalFailure()) return;
    for (auto& round : buffers)
      for (auto& each : round) ASSERT_EQ(each->first_wrong(), -1);
  }
}

TEST(Strip, NamesTheCallOfAPeerThatMakesAnother) {
  const topology::Topology topology = hosts_with({2});
  const Algorithm* direct = nullptr;
  for (const Algorithm* row : algorithms::all())
    if (row->collective == Collective::all_reduce && std::string_view(row->name) == "direct")
      direct = row;
  ASSERT_NE(direct, nullptr);
  const plan::Request mine = ints(2), theirs = ints(3);
  auto wires = local_wires(2, "shm");
  Buffers my_buffers(mine, 2, 0), their_buffers(theirs, 2, 1);
  auto one = Execution::make(direct->build(mine, topology, {1, 64}, 0).value(), *wires[0]);
  auto two = Execution::make(direct->build(theirs, topology, {1, 64}, 1).value(), *wires[1]);
  ASSERT_TRUE(one.is_ok() && two.is_ok());
  const auto operation = [](const Buffers& buffers) {
    return Execution::Operation{
        .sequence = 9, .input = buffers.input, .output = buffers.output, .scaling = {}};
  };
  ASSERT_TRUE((*one)->begin(operation(my_buffers)).is_ok());
  ASSERT_TRUE((*two)->begin(operation(their_buffers)).is_ok());
  ASSERT_TRUE((*one)->is_strip() && (*two)->is_strip());
  Outcome outcome;
  for (int i = 0; i < 10'000 && outcome.status.is_ok(); i++) {
    (void)(*two)->step();
    outcome = (*one)->step();
    for (auto& each : wires) ASSERT_TRUE(each->progress(true).is_ok());
  }
  ASSERT_EQ(outcome.status.code(), Code::mismatch) << outcome.status.text();
  EXPECT_EQ((*one)->mismatch()->peer, 1);
  EXPECT_EQ((*one)->mismatch()->mine, "all_reduce(count=2, int32, sum) as operation 9");
  EXPECT_EQ((*one)->mismatch()->theirs, "all_reduce(count=3, int32, sum) as operation 9");
  EXPECT_EQ(std::to_integer<int>(my_buffers.output[0]), 0xee) << "nothing was combined";
}

}  // namespace
}  // namespace railccl::test
