// Shows that no rank has success from a collective with another result than the rest, whoever dies
// in which step: seeded worlds in one thread and virtual time, whose ranks sum over and over with a
// commit behind each sum, as protected communicators do. Ranks die in the middle; the others fail,
// or are told to stop, at moments of their own; what they tell goes through replay.h's rule; what
// it says is kept or repeated, on a new world of those that are left, where ranks may die again. At
// the end all that live must have the same results. A failure prints its seed.
#include <gtest/gtest.h>

#include <set>

#include "algorithms/algorithm.h"
#include "runtime/chooser.h"
#include "runtime/execute.h"
#include "runtime/replay.h"
#include "self_transport.h"
#include "shapes.h"
#include "transport/simulated.h"
#include "values.h"

namespace railccl::test {
namespace {

using algorithms::Algorithm;
using runtime::CallsFate;
using runtime::Execution;
using runtime::Wires;
using transport::simulated::Options;
using transport::simulated::World;

constexpr uint64_t kSums = 6;

struct Rank {
  int name = 0;  // in the first world
  uint64_t done = 0;
  bool complete = false;  // the sum is here, its commit is not over
  bool stopped = false;
  std::vector<int64_t> input, output, saved;
  std::vector<int64_t> results;
  // In the present world.
  std::unique_ptr<Wires> wires;
  std::unique_ptr<Execution> execution;
  uint64_t sequence = 0;
  uint8_t commit_in = 1, commit_out = 0;

  bool finished() const { return done == kSums; }
};

struct Tale {
  int kept = 0, repeated = 0, deaths = 0;
};

/// What all ranks do in one sum.
struct Sum {
  uint64_t count = 1;
  bool in_place = false;
};

class Life {
 public:
  Life(uint64_t seed, Tale* tale) : seed_(seed), random_(seed), tale_(tale) {}

  void live() {
    const std::vector<std::vector<int>> shapes = {{2}, {3}, {4}, {5}, {2, 2}, {3, 1, 2}, {4, 4}};
    topology::Topology topology = hosts_with(shapes[random_.below(shapes.size())]);
    for (int r = 0; r < topology.size(); r++) {
      ranks_.push_back(std::make_unique<Rank>());
      ranks_.back()->name = r;
    }
    for (uint64_t i = 0; i < kSums; i++)
      sums_.push_back({1 + random_.below(3000), random_.chance(0.5)});
    while (!ranks_.empty()) {
      within(topology);
      if (::testing::Test::HasFatalFailure()) return;
      if (std::all_of(ranks_.begin(), ranks_.end(), [](const auto& r) { return r->finished(); }))
        break;
      std::vector<int> left;
      for (size_t r = 0; r < ranks_.size(); r++)
        if (!dead_.contains(static_cast<int>(r))) left.push_back(static_cast<int>(r));
      if (left.empty()) return;
      bury(left);
      topology = topology.subset(left);
      settle();
      if (::testing::Test::HasFatalFailure()) return;
    }
    int64_t everyone = 0;
    for (const auto& rank : ranks_) everyone |= int64_t{1} << rank->name;
    for (const auto& rank : ranks_) {
      ASSERT_EQ(rank->results, ranks_[0]->results) << story() << ": rank " << rank->name;
      for (const int64_t result : rank->results)
        ASSERT_EQ(result & everyone, everyone) << story() << ": rank " << rank->name;
    }
  }

 private:
  std::string story() const { return fmt::format("seed {}", seed_); }

  /// Until all are through, or ranks have died and the others have stopped.
  void within(const topology::Topology& topology) {
    const int ranks = topology.size();
    Options options = Options::drawn(random_.next());
    options.shared_memory = random_.chance(0.5);
    World world(random_.next(), ranks, options);
    const std::vector<std::vector<transport::Address>> addresses(
        2, std::vector<transport::Address>(static_cast<size_t>(ranks)));
    const std::vector<uint64_t> same(static_cast<size_t>(ranks), 1);
    for (int r = 0; r < ranks; r++) {
      std::vector<std::unique_ptr<transport::Transport>> media;
      media.push_back(self_transport(r, ranks));
      media.push_back(world.transport(r));
      Rank& rank = *ranks_[static_cast<size_t>(r)];
      rank.wires = std::make_unique<Wires>(r, ranks, std::move(media));
      ASSERT_TRUE(rank.wires->set_peers(addresses, same, same).is_ok());
      rank.sequence = 0;
      rank.stopped = false;
    }
    choose(topology, options.shared_memory);
    dead_.clear();
    bool alarm = false;
    for (int r = 0; r < ranks; r++)
      if (!ranks_[static_cast<size_t>(r)]->finished()) begin(topology, r, false);
    // Whoever dies, dies after that many looks at ranks.
    std::multimap<uint64_t, int> deaths;
    while (random_.chance(0.6) && static_cast<int>(deaths.size()) < ranks - 1)
      deaths.emplace(random_.below(400 * static_cast<uint64_t>(ranks)),
                     static_cast<int>(random_.below(static_cast<uint64_t>(ranks))));
    for (uint64_t looks = 0;;) {
      bool moved = false, open = false;
      for (int r = 0; r < ranks; r++, looks++) {
        for (auto death = deaths.find(looks); death != deaths.end() && death->first == looks;
             ++death)
          kill(&world, death->second);
        Rank& rank = *ranks_[static_cast<size_t>(r)];
        if (dead_.contains(r) || rank.stopped || rank.finished()) continue;
        open = true;
        // What another has found out comes at any moment.
        if (alarm && random_.chance(0.1)) {
          rank.stopped = moved = true;
          continue;
        }
        const runtime::Outcome outcome = rank.execution->step();
        moved |= outcome.progressed || outcome.done;
        if (!outcome.status.is_ok()) {
          ASSERT_FALSE(dead_.empty()) << story() << ": " << outcome.status.text();
          rank.stopped = alarm = moved = true;
        } else if (outcome.done) {
          finish(topology, r);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
      if (!open) break;
      if (moved || world.advance()) continue;
      // Nothing moves any more: those that wait are told, if there is anything to tell.
      ASSERT_TRUE(alarm || !dead_.empty()) << story() << ": hang";
      alarm = true;
    }
  }

  void kill(World* world, int victim) {
    if (!dead_.insert(victim).second) return;
    tale_->deaths++;
    for (int r = 0; r < world->ranks(); r++)
      if (r != victim) world->lose(victim, r);
  }

  /// An algorithm for sums and one for commits, the same on all ranks.
  void choose(const topology::Topology& topology, bool shared_memory) {
    for (const bool commit : {false, true}) {
      const Algorithm*& chosen = commit ? commit_by_ : sum_by_;
      chosen = nullptr;
      while (chosen == nullptr) {
        const auto& rows = algorithms::all();
        const Algorithm* candidate = rows[random_.below(rows.size())];
        const Request request = request_of(commit ? Sum{1, false} : Sum{1000, true}, commit);
        if (candidate->collective != Collective::all_reduce || candidate->open ||
            !candidate->supports(request, topology))
          continue;
        if (!shared_memory) {
          auto uses = runtime::uses_peer_memory(*candidate, request, topology, {1, 100});
          if (!uses.is_ok() || *uses) continue;
        }
        chosen = candidate;
      }
    }
  }

  static Request request_of(const Sum& sum, bool commit) {
    Request request;
    request.collective = Collective::all_reduce;
    request.op = commit ? Reduction::max : Reduction::sum;
    request.datatype = commit ? Datatype::uint8 : Datatype::int64;
    request.count = sum.count;
    request.in_place = !commit && sum.in_place;
    return request;
  }

  void begin(const topology::Topology& topology, int r, bool commit) {
    Rank& rank = *ranks_[static_cast<size_t>(r)];
    const Sum& sum = sums_[rank.done];
    const Request request = request_of(commit ? Sum{1, false} : sum, commit);
    const plan::Tuning tuning = {1, commit ? 1 : 1 + sum.count / 3};
    const Algorithm& algorithm = commit ? *commit_by_ : *sum_by_;
    auto program = algorithm.build(request, topology, tuning, r);
    ASSERT_TRUE(program.is_ok()) << story() << ": " << program.status().text();
    auto made = Execution::make(std::move(program).value(), *rank.wires);
    if (!made.is_ok()) {  // a link that is lost already
      ASSERT_FALSE(dead_.empty()) << story() << ": " << made.status().text();
      rank.stopped = true;
      return;
    }
    rank.execution = std::move(made).value();
    Execution::Operation operation;
    operation.sequence = rank.sequence++;
    if (commit) {
      rank.complete = true;
      operation.input = &rank.commit_in;
      operation.output = &rank.commit_out;
    } else {
      rank.input.assign(sum.count, int64_t{1} << rank.name);
      if (sum.in_place) rank.saved = rank.input;
      if (!sum.in_place) rank.output.assign(sum.count, -1);
      operation.input = rank.input.data();
      operation.output = sum.in_place ? rank.input.data() : rank.output.data();
    }
    operation.scaling = kernels::scaling_of(request.op, request.datatype, topology.size(), {});
    ASSERT_TRUE(rank.execution->begin(operation).is_ok());
  }

  /// Its sum is over, or its commit.
  void finish(const topology::Topology& topology, int r) {
    Rank& rank = *ranks_[static_cast<size_t>(r)];
    if (!rank.complete) return begin(topology, r, true);
    succeed(&rank);
    if (!rank.finished() && !::testing::Test::HasFatalFailure()) begin(topology, r, false);
  }

  /// The caller has success: this is what it sees.
  void succeed(Rank* rank) {
    const Sum& sum = sums_[rank->done];
    const std::vector<int64_t>& result = sum.in_place ? rank->input : rank->output;
    for (const int64_t value : result)
      ASSERT_EQ(value, result[0]) << story() << ": rank " << rank->name << ", sum " << rank->done;
    rank->results.push_back(result[0]);
    rank->done++;
    rank->complete = false;
  }

  void bury(const std::vector<int>& left) {
    std::vector<std::unique_ptr<Rank>> living;
    for (const int r : left) living.push_back(std::move(ranks_[static_cast<size_t>(r)]));
    ranks_ = std::move(living);
    for (auto& rank : ranks_) {
      rank->execution.reset();
      rank->wires.reset();
    }
  }

  /// As Member::recover(): what is complete everywhere is kept, the rest begins anew.
  void settle() {
    std::map<int, runtime::Tally> tallies;
    for (const auto& rank : ranks_) {
      runtime::Tally& tally = tallies[rank->name];
      tally.done = rank->done;
      tally.complete = rank->complete;
      if (!rank->finished()) tally.calls.push_back({true, true, -1});
      const Sum* sum = rank->finished() ? nullptr : &sums_[rank->done];
      if (sum != nullptr && !sum->in_place && !rank->input.empty()) {
        const std::vector<int64_t> untouched(sum->count, int64_t{1} << rank->name);
        ASSERT_EQ(rank->input, untouched) << story() << ": rank " << rank->name;
      }
    }
    const runtime::Ruling ruling = runtime::rule(tallies);
    const bool over = std::all_of(ranks_.begin(), ranks_.end(),
                                  [](const auto& rank) { return rank->finished(); });
    ASSERT_EQ(ruling.outcome, over ? CallsFate::none : CallsFate::finished)
        << story() << ": " << ruling.why;
    for (const auto& rank : ranks_) {
      if (ruling.keeps(tallies.at(rank->name))) {
        succeed(rank.get());
        tale_->kept++;
      } else if (!rank->finished()) {
        tale_->repeated++;
      }
      rank->complete = false;
      ASSERT_EQ(rank->done, ranks_[0]->done) << story() << ": they would not be in step";
    }
  }

  const uint64_t seed_;
  Random random_;
  Tale* tale_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  std::vector<Sum> sums_;
  std::set<int> dead_;  // of the present world
  const Algorithm* sum_by_ = nullptr;
  const Algorithm* commit_by_ = nullptr;
};

constexpr uint64_t kFirstSeed = by_build(1, 10'001, 0);
constexpr uint64_t kWorlds = by_build(500, 100, 0);

TEST(SimulatedRecovery, AllThatLiveHaveTheSameResults) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  Tale tale;
  for (uint64_t seed = kFirstSeed; seed < kFirstSeed + kWorlds; seed++) {
    Life(seed, &tale).live();
    if (HasFatalFailure()) return;
  }
  // All of it must really have happened, or the test shows nothing.
  EXPECT_GT(tale.deaths, static_cast<int>(kWorlds / 2));
  EXPECT_GT(tale.kept, static_cast<int>(kWorlds / 100));
  EXPECT_GT(tale.repeated, static_cast<int>(kWorlds / 4));
}

}  // namespace
}  // namespace railccl::test
