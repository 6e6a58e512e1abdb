// Shows that ranks that call the roll agree, whoever dies when: worlds in one thread, with messages
// that overtake each other between different pairs, and deaths that may swallow what was sent last.
#include "runtime/roll.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/random.h"
#include "build_kind.h"

namespace railccl::runtime {
namespace {

using test::by_build;

/// Ranks, each a Roll, and between each two a connection in each direction: in order, and ending
/// when an end dies.
class World {
 public:
  World(int ranks, uint64_t seed) : ranks_(ranks), random_(seed) {
    for (int rank = 0; rank < ranks; rank++) rolls_.emplace_back(rank, ranks);
    dead_.resize(static_cast<size_t>(ranks), false);
    rounds_.resize(static_cast<size_t>(ranks), 0);
  }

  /// Kill `rank` after the event with that number.
  std::map<int, int> kills;  // event -> rank
  int events = 0;

  /// Every rank takes part in `rounds` rounds, one after the other, as far as it lives. False: it
  /// has not ended.
  bool live(uint64_t rounds) {
    for (int rank = 0; rank < ranks_; rank++) take_part(rank);
    for (int limit = 0; limit < 100'000; limit++) {
      if (const auto kill = kills.find(events); kill != kills.end()) die(kill->second);
      for (int rank = 0; rank < ranks_; rank++) {
        go_on(rank, rounds);
        collect(rank);
      }
      std::vector<std::pair<int, int>> busy;
      for (auto& [pair, queue] : wires_)
        if (!queue.empty()) busy.push_back(pair);
      if (busy.empty()) {
        if (!kills.empty() && kills.rbegin()->first > events) {  // nothing happens until then
          events++;
          continue;
        }
        for (int rank = 0; rank < ranks_; rank++)
          if (!dead(rank) && rounds_[static_cast<size_t>(rank)] < rounds) return false;
        return true;
      }
      events++;
      const auto [from, to] = busy[random_.below(busy.size())];
      std::deque<std::optional<RollMessage>>& queue = wires_[{from, to}];
      const std::optional<RollMessage> message = std::move(queue.front());
      queue.pop_front();
      if (dead(to)) continue;
      Roll& roll = rolls_[static_cast<size_t>(to)];
      message ? roll.receive(from, *message) : roll.lose(from, Gone::died);
    }
    return false;
  }

  /// Do all that have a result of `round` have the same? It names all that live.
  void check(uint64_t round, const std::string& story) {
    const RollResult* first = nullptr;
    for (int rank = 0; rank < ranks_; rank++) {
      const RollResult* result = rolls_[static_cast<size_t>(rank)].result(round);
      if (result == nullptr) continue;
      if (first == nullptr) first = result;
      ASSERT_EQ(encode(*result), encode(*first)) << story << ": rank " << rank;
      if (dead(rank)) continue;
      for (int other = 0; other < ranks_; other++) {
        if (dead(other)) continue;
        ASSERT_TRUE(result->texts[static_cast<size_t>(other)].has_value())
            << story << ": rank " << other << " is left out by " << rank;
        ASSERT_EQ(*result->texts[static_cast<size_t>(other)], text(other, round)) << story;
      }
    }
  }
  bool dead(int rank) const { return dead_[static_cast<size_t>(rank)]; }
  int decided(uint64_t round) const {
    int count = 0;
    for (const Roll& roll : rolls_) count += roll.result(round) != nullptr ? 1 : 0;
    return count;
  }
  Roll& operator[](int rank) { return rolls_[static_cast<size_t>(rank)]; }

 private:
  static std::string text(int rank, uint64_t round) {
    return std::to_string(rank) + "/" + std::to_string(round);
  }
  void take_part(int rank) {
    const uint64_t round = rounds_[static_cast<size_t>(rank)];
    rolls_[static_cast<size_t>(rank)].contribute(round, text(rank, round));
  }
  /// To the next round, where this one has a result.
  void go_on(int rank, uint64_t rounds) {
    uint64_t& round = rounds_[static_cast<size_t>(rank)];
    while (!dead(rank) && round < rounds &&
           rolls_[static_cast<size_t>(rank)].result(round) != nullptr)
      if (++round < rounds) take_part(rank);
  }
  void collect(int rank) {
    for (Roll::Post& post : rolls_[static_cast<size_t>(rank)].take_posts()) {
      if (dead(rank)) continue;
      if (dead(post.to)) {
        // Nobody listens there any more.
        if (!ended_.contains({post.to, rank})) wires_[{post.to, rank}].push_back(std::nullopt);
        ended_.insert({post.to, rank});
        continue;
      }
      known_.insert({rank, post.to});
      wires_[{rank, post.to}].push_back(std::move(post.message));
    }
  }
  void die(int rank) {
    if (dead(rank)) return;
    collect(rank);
    dead_[static_cast<size_t>(rank)] = true;
    for (int other = 0; other < ranks_; other++) {
      if (!known_.contains({rank, other}) && !known_.contains({other, rank})) continue;
      auto& queue = wires_[{rank, other}];
      queue.resize(random_.below(queue.size() + 1));  // the rest never left the host
      queue.push_back(std::nullopt);
      ended_.insert({rank, other});
    }
  }

  const int ranks_;
  Random random_;
  std::vector<Roll> rolls_;
  std::vector<bool> dead_;
  std::vector<uint64_t> rounds_;  // in which each rank is
  std::map<std::pair<int, int>, std::deque<std::optional<RollMessage>>> wires_;
  std::set<std::pair<int, int>> known_;  // have a connection
  std::set<std::pair<int, int>> ended_;
};

void expect_agreement(World& world, uint64_t rounds, const std::string& story) {
  ASSERT_TRUE(world.live(rounds)) << story << ": it does not end";
  for (uint64_t round = 0; round < rounds; round++) {
    world.check(round, story);
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Roll, AllAgreeWhenNobodyDies) {
  for (int ranks = 1; ranks <= 8; ranks++) {
    World world(ranks, 1);
    expect_agreement(world, 3, std::to_string(ranks));
    EXPECT_EQ(world.decided(2), ranks);
    // A call, a word, a list, an answer, a decision for each and round.
    EXPECT_LE(world.events, 3 * 5 * (ranks - 1));
  }
}

TEST(Roll, OneDeathAtEveryMoment) {
  for (int ranks = 2; ranks <= 5; ranks++)
    for (int victim = 0; victim < ranks; victim++)
      for (int event = 0; event < 12 * ranks; event++)
        for (uint64_t seed = 1; seed <= by_build<uint64_t>(8, 2, 1); seed++) {
          World world(ranks, seed);
          world.kills = {{event, victim}};
          expect_agreement(
              world, 2,
              fmt::format("{} ranks, rank {} dies at {}, seed {}", ranks, victim, event, seed));
          if (HasFatalFailure()) return;
        }
}

TEST(Roll, TwoDeathsAtEveryTwoMoments) {
  const int ranks = 4;
  for (int first = 0; first < ranks; first++)
    for (int second = 0; second < ranks; second++)
      for (int at = 0; at < 30 && first != second; at++)
        for (int then = at + 1; then < 40; then += by_build(1, 4, 8)) {
          const auto seed = static_cast<uint64_t>(at * 100 + then);
          World world(ranks, seed);
          world.kills = {{at, first}, {then, second}};
          expect_agreement(world, 2,
                           fmt::format("rank {} dies at {}, rank {} at {}, seed {}", first, at,
                                       second, then, seed));
          if (HasFatalFailure()) return;
        }
}

TEST(Roll, ManyDeathsAtRandom) {
  int some = 0;
  for (uint64_t seed = 1; seed <= by_build<uint64_t>(10'000, 1000, 200); seed++) {
    Random random(seed);
    const int ranks = 2 + static_cast<int>(random.below(9));
    World world(ranks, seed);
    const uint64_t deaths = random.below(static_cast<uint64_t>(ranks));
    for (uint64_t i = 0; i < deaths; i++)
      world.kills[static_cast<int>(random.below(static_cast<uint64_t>(12 * ranks)))] =
          static_cast<int>(random.below(static_cast<uint64_t>(ranks)));
    expect_agreement(world, 3, fmt::format("seed {} on {} ranks", seed, ranks));
    if (HasFatalFailure()) return;
    some += world.decided(2) < ranks ? 1 : 0;
  }
  EXPECT_GT(some, 50) << "in which a death mattered";
}

TEST(Roll, WhoDoesNotComeIsLeftOutAndTold) {
  World world(3, 1);
  for (const int rank : {0, 1}) world[rank].contribute(0, "here");
  const auto deliver = [&](int from) {
    for (Roll::Post& post : world[from].take_posts()) world[post.to].receive(from, post.message);
  };
  deliver(1);
  EXPECT_TRUE(world[0].collecting(0));
  world[0].give_up(0);
  for (int turns = 0; turns < 4; turns++) {
    deliver(0);
    deliver(1);
  }
  ASSERT_NE(world[1].result(0), nullptr);
  EXPECT_EQ(world[1].result(0)->members(), (std::vector<int>{0, 1}));
  EXPECT_EQ(world[1].result(0)->gone[2], Gone::absent);
  EXPECT_TRUE(world[2].excluded());
}

TEST(Roll, SilenceMustNotCostTheMajority) {
  RollResult result;
  result.texts = {"", std::nullopt, std::nullopt};
  result.gone = {Gone::no, Gone::silent, Gone::silent};
  EXPECT_FALSE(result.majority());
  result.gone = {Gone::no, Gone::silent, Gone::died};
  EXPECT_TRUE(result.majority()) << "one against one: the half with the lowest rank";
  result.texts = {std::nullopt, "", std::nullopt};
  result.gone = {Gone::silent, Gone::no, Gone::died};
  EXPECT_FALSE(result.majority());
}

TEST(RollWire, RoundTripsAndRefusesEveryTruncation) {
  const RollMessage message{RollMessage::Kind::propose, 3, 4, "text"};
  const std::string bytes = encode(message);
  EXPECT_EQ(*parse_roll(bytes), message);
  for (size_t n = 0; n < bytes.size(); n++) EXPECT_FALSE(parse_roll(bytes.substr(0, n)).is_ok());
  EXPECT_FALSE(parse_roll(bytes + "x").is_ok());
  RollResult result;
  result.texts = {"a", std::nullopt};
  result.gone = {Gone::no, Gone::left};
  const std::string list = encode(result);
  EXPECT_EQ(encode(*parse_roll_result(list, 2)), list);
  EXPECT_FALSE(parse_roll_result(list, 3).is_ok());
  for (size_t n = 0; n < list.size(); n++)
    EXPECT_FALSE(parse_roll_result(list.substr(0, n), 2).is_ok());
}

}  // namespace
}  // namespace railccl::runtime
