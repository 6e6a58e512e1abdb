// The fault campaign: processes that sum in place, of which some are killed, stopped for good or
// paused at random moments. Those that live must never hang, never have another sum than the
// others, and be told who it was; a pause alone must not be noticed at all. Every run has a seed,
// which a failure prints: CAMPAIGN_SEED=1234 repeats it, CAMPAIGN_RUNS=200 makes as many runs.
#include <gmock/gmock.h>

#include <cstdlib>
#include <set>

#include "runtime/summing.h"

namespace railccl::test {
namespace {

enum class Fault { kill, stop, pause };

struct Victim {
  int rank = 0;
  Fault fault = Fault::kill;
  int at = 0;            // once it has so many sums
  int64_t delay_us = 0;  // after that
  int64_t pause_us = 0;  // how long a pause lasts
  bool done = false;
};

const char* name_of(Fault fault) {
  return fault == Fault::kill ? "killed" : fault == Fault::stop ? "stopped" : "paused";
}

constexpr int kSums = 60;
// What is silent for so long is taken for dead, and no pause is as long.
constexpr int64_t kSilentMs = 1000, kTimeoutMs = 1500, kPauseUsMax = 400'000;
// From the last fault until the survivors are done with everything.
constexpr int64_t kBoundMs = kTimeoutMs + kSilentMs + 5000;

struct Tally {
  int runs = 0, false_alarms = 0, survivors = 0, told_rightly = 0;
};

uint64_t from_environment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

void strike(MortalRanks* ranks, std::vector<Victim>* victims) {
  const Deadline deadline = Deadline::after_ms(20000);
  for (size_t done = 0; done < victims->size() && !deadline.passed(); usleep(50))
    for (Victim& victim : *victims) {
      if (victim.done || (*ranks)[victim.rank].values[victim.at] == 0) continue;
      usleep(static_cast<useconds_t>(victim.delay_us));
      ranks->end(victim.rank, victim.fault == Fault::kill ? SIGKILL : SIGSTOP);
      if (victim.fault == Fault::pause) {
        usleep(static_cast<useconds_t>(victim.pause_us));
        ranks->end(victim.rank, SIGCONT);
      }
      victim.done = true;
      done++;
    }
}

void run(uint64_t seed, Tally* tally) {
  Random random(seed);
  const int n = 3 + static_cast<int>(random.below(4));
  const size_t count = random.chance(0.5) ? 10 : 30'000;
  const std::string medium = random.chance(0.5) ? "NCCL_SHM_DISABLE=0" : "NCCL_SHM_DISABLE=1";
  std::vector<Victim> victims;
  std::set<int> gone, struck;
  std::string story = fmt::format("seed {}: {} ranks, {} numbers, {}", seed, n, count, medium);
  const uint64_t most = 1 + random.below(2);
  for (uint64_t i = 0; i < most; i++) {
    Victim victim;
    victim.rank = static_cast<int>(random.below(static_cast<uint64_t>(n)));
    victim.fault = static_cast<Fault>(random.below(3));
    victim.at = 1 + static_cast<int>(random.below(40));
    victim.delay_us = static_cast<int64_t>(random.below(2000));
    victim.pause_us = static_cast<int64_t>(random.below(kPauseUsMax));
    if (!struck.insert(victim.rank).second) continue;
    // Two silent ones out of three would be the majority.
    if (victim.fault == Fault::stop && 2 * static_cast<int>(gone.size() + 1) >= n) continue;
    if (victim.fault != Fault::pause) gone.insert(victim.rank);
    story += fmt::format(", rank {} {} at {}", victim.rank, name_of(victim.fault), victim.at);
    victims.push_back(victim);
  }
  MortalRanks ranks(n);
  ranks.start(settings_with({medium, "RAILCCL_INIT_TIMEOUT_MS=20000", "RAILCCL_STALL_MS=100",
                             fmt::format("RAILCCL_TIMEOUT_MS={}", kTimeoutMs),
                             fmt::format("RAILCCL_SILENT_MS={}", kSilentMs)}),
              [&](const CommunicatorPtr& communicator, Slot& slot) {
                const bool mortal = gone.contains(communicator->rank());
                sum_on_and_on(communicator, slot, kSums, count);
                // What is late for its end waits for it.
                if (mortal) pause();
              });
  strike(&ranks, &victims);
  tally->runs++;
  int first = -1;
  for (int r = 0; r < n; r++) {
    if (gone.contains(r)) continue;
    ASSERT_TRUE(ranks.wait(r, kBoundMs)) << story << ": rank " << r << " hangs";
    ASSERT_TRUE(ranks[r].done && ranks[r].text[0] == 0)
        << story << ": rank " << r << ": " << ranks[r].text;
    if (first < 0) first = r;
    for (int i = 0; i < kSums; i++)
      ASSERT_EQ(ranks[r].values[i], ranks[first].values[i])
          << story << ": sum " << i << " of ranks " << first << " and " << r;
    const std::string verdict = ranks[r].verdict;
    if (gone.empty() && !verdict.empty()) {
      tally->false_alarms++;
      ADD_FAILURE() << story << ": a false alarm: " << verdict;
    }
    if (verdict.empty()) continue;
    tally->survivors++;
    const bool right = std::any_of(gone.begin(), gone.end(), [&](int rank) {
      return verdict.starts_with(fmt::format("rank {} (", rank));
    });
    tally->told_rightly += right ? 1 : 0;
    EXPECT_TRUE(right) << story << ": rank " << r << " was told: " << verdict;
  }
}

TEST(Campaign, SurvivorsGoOnAlikeAndKnowWhoItWas) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer does not allow threads in a forked child";
#endif
  const uint64_t runs = from_environment("CAMPAIGN_RUNS", by_build<uint64_t>(4, 2, 0));
  const uint64_t seed = from_environment("CAMPAIGN_SEED", by_build<uint64_t>(1, 1001, 0));
  Tally tally;
  for (uint64_t i = 0; i < runs; i++) {
    run(seed + i, &tally);
    if (HasFatalFailure()) return;
  }
  std::printf("%d runs, %d survivors were told, %d of them rightly, %d false alarms\n", tally.runs,
              tally.survivors, tally.told_rightly, tally.false_alarms);
}

}  // namespace
}  // namespace railccl::test
