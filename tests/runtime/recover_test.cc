// Shows on real processes that are killed and stopped: every survivor gets the same verdict, which
// names who and where; the survivors regroup whoever dies meanwhile; and interrupted collectives
// end with the same result on all of them, or with all of them being told.
#include <gmock/gmock.h>

#include "runtime/replay.h"
#include "summing.h"

namespace railccl::test {
namespace {

using runtime::CallsFate;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

const char* const kMedia[] = {"NCCL_SHM_DISABLE=0", "NCCL_SHM_DISABLE=1"};

/// One small sum; its text where it fails.
std::string try_sum(Communicator& communicator) {
  std::vector<int32_t> data(10, 1);
  const Status status = communicator.start(sum_call(data.data(), data.data(), 10), nullptr);
  if (!status.is_ok()) return status.text();
  return data[9] == communicator.size() ? "" : fmt::format("{} is the sum", data[9]);
}

void wait_for_failure(Communicator& communicator) {
  const Deadline deadline = Deadline::after_ms(20000);
  while (communicator.async_error().is_ok() && !deadline.passed()) usleep(500);
}

// ---- Verdicts -----------------------------------------------------------------------------------

/// What ranks 0, 1 and 3 read of the failure of a sum of 100,000, while rank 2 does `what`.
std::vector<std::string> verdicts_when(const Settings& settings, int stop_signal,
                                       const std::function<void(Communicator&)>& what) {
  MortalRanks ranks(4);
  ranks.start(settings, [&](const CommunicatorPtr& communicator, Slot& slot) {
    if (const std::string text = try_sum(*communicator); !text.empty())
      return MortalRanks::note(slot, text);
    usleep(50'000);
    if (communicator->rank() == 2) return what(*communicator);
    std::vector<int32_t> data(100'000, 1);
    const Status status =
        communicator->start(sum_call(data.data(), data.data(), data.size()), nullptr);
    MortalRanks::note(slot, status.text());
    // Later calls say the same.
    if (try_sum(*communicator) != status.text()) MortalRanks::note(slot, try_sum(*communicator));
  });
  if (stop_signal == SIGSTOP) {
    usleep(1'000'000);
    EXPECT_EQ(waitpid(ranks.process(2), nullptr, WNOHANG), 0);
  }
  std::vector<std::string> texts;
  for (const int r : {0, 1, 3}) {
    EXPECT_TRUE(ranks.wait(r, 20000)) << "rank " << r << " hangs";
    texts.emplace_back(ranks[r].text);
  }
  return texts;
}

TEST(Verdict, AKilledRankIsNamedAlikeOnAllWithTheOperation) {
  for (const char* medium : kMedia) {
    const auto texts = verdicts_when(settings_with({medium}), SIGKILL, [](Communicator&) {
      usleep(200'000);  // on a busy machine some may still not be there
      raise(SIGKILL);
    });
    for (const std::string& text : texts) {
      EXPECT_EQ(text, texts[0]);
      EXPECT_THAT(text, ::testing::MatchesRegex(
                            "rank 2 \\(.*, pid [0-9]+\\) died; all_reduce\\(count=100000, int32, "
                            "sum\\) as operation 1: .* in it \\(rank [013]: .*"))
          << medium;
    }
  }
}

TEST(Verdict, AStoppedRankIsNamedAlikeOnAll) {
  const Settings settings =
      settings_with({"RAILCCL_TIMEOUT_MS=400", "RAILCCL_SILENT_MS=500", "RAILCCL_STALL_MS=100"});
  const auto texts = verdicts_when(settings, SIGSTOP, [](Communicator&) { raise(SIGSTOP); });
  for (const std::string& text : texts) {
    EXPECT_EQ(text, texts[0]);
    EXPECT_THAT(text,
                AllOf(HasSubstr("rank 2 ("), HasSubstr("does not answer (stopped, or cut off)"),
                      HasSubstr("all_reduce(count=100000, int32, sum) as operation 1")));
  }
}

TEST(Verdict, ARankThatNeverCallsIsNamedAlikeOnAll) {
  const Settings settings = settings_with({"RAILCCL_TIMEOUT_MS=400", "RAILCCL_STALL_MS=100"});
  const auto texts = verdicts_when(settings, 0, [](Communicator& communicator) {
    wait_for_failure(communicator);
    usleep(300'000);
  });
  for (const std::string& text : texts) {
    EXPECT_EQ(text, texts[0]);
    EXPECT_THAT(text, AllOf(HasSubstr("no progress for"), HasSubstr("in it (rank"),
                            HasSubstr("rank 2 has not entered it")));
  }
}

// ---- Regrouping ---------------------------------------------------------------------------------

TEST(Recover, RanksThatRevokedGoOnTogether) {
  with_communicator(4, settings_with(), [](const CommunicatorPtr& communicator) {
    ASSERT_EQ(try_sum(*communicator), "");
    if (communicator->rank() == 1) communicator->abort("enough");
    if (communicator->rank() == 3) return wait_for_failure(*communicator);  // does not come along
    auto shrunk = communicator->shrink({0, 1, 2}, communicator->config(), true);
    ASSERT_TRUE(shrunk.is_ok()) << shrunk.status().text();
    EXPECT_EQ((*shrunk)->size(), 3);
    EXPECT_EQ((*shrunk)->rank(), communicator->rank());
    EXPECT_EQ(try_sum(**shrunk), "");
  });
}

TEST(Recover, RanksThatWantDifferentThingsAreTold) {
  with_communicator(3, settings_with(), [](const CommunicatorPtr& communicator) {
    const std::vector<int> wanted =
        communicator->rank() == 2 ? std::vector<int>{1, 2} : std::vector<int>{0, 1, 2};
    auto shrunk = communicator->shrink(wanted, communicator->config(), true);
    ASSERT_FALSE(shrunk.is_ok());
    if (communicator->rank() == 0) {
      EXPECT_THAT(shrunk.status().text(), HasSubstr("have gone on without rank 0"));
      return;
    }
    EXPECT_EQ(shrunk.status().code(), Code::mismatch) << shrunk.status().text();
    EXPECT_THAT(shrunk.status().text(), HasSubstr("shrink to 1,2"));
  });
}

TEST(Recover, ShrinkAfterADeathNeedsTheRightList) {
  MortalRanks ranks(4);
  ranks.start(settings_with(), [](const CommunicatorPtr& communicator, Slot& slot) {
    if (communicator->rank() == 1) {
      usleep(50'000);
      raise(SIGKILL);
    }
    wait_for_failure(*communicator);
    auto wrong = communicator->shrink({0, 1, 3}, communicator->config(), true);
    if (wrong.is_ok()) return MortalRanks::note(slot, "shrank without rank 1");
    MortalRanks::note(slot, wrong.status().text());
    if (communicator->rank() == 2) return;
    auto right = communicator->shrink({0, 3}, communicator->config(), true);
    if (!right.is_ok()) return MortalRanks::note(slot, right.status().text());
    slot.values[0] = try_sum(**right).empty() ? (*right)->size() : -1;
    slot.values[1] = communicator->lost() == std::vector<int>{1, 2} ? 1 : 0;
  });
  ranks.expect_all_done({1});
  // Rank 2 is not among those that the first list has.
  EXPECT_THAT(ranks[2].text, HasSubstr("is not among those that stay"));
  for (const int r : {0, 3}) {
    EXPECT_THAT(ranks[r].text, HasSubstr("rank 1 is gone, too")) << r;
    EXPECT_EQ(ranks[r].values[0], 2) << ranks[r].text;
  }
}

// ---- Interrupted calls --------------------------------------------------------------------------

/// `deaths` of `n` ranks are killed while they sum; the others must get the same sums.
void kill_while_summing(uint64_t seed, int n, int deaths, const char* medium) {
  Random random(seed);
  const size_t count = random.chance(0.5) ? 10 : 60'000;
  const int sums = 60;
  std::vector<int> dead;
  while (static_cast<int>(dead.size()) < deaths) {
    const int victim = static_cast<int>(random.below(static_cast<uint64_t>(n)));
    if (std::count(dead.begin(), dead.end(), victim) == 0) dead.push_back(victim);
  }
  MortalRanks ranks(n);
  std::vector<std::pair<int, int>> when;  // rank, before which of its sums
  for (const int victim : dead) when.emplace_back(victim, 1 + static_cast<int>(random.below(50)));
  const uint64_t delay_us = random.below(3000);
  ranks.start(settings_with({medium, "RAILCCL_INIT_TIMEOUT_MS=15000"}),
              [&](const CommunicatorPtr& communicator, Slot& slot) {
                for (const auto& [victim, at] : when)
                  if (victim == communicator->rank())
                    std::thread([&slot, at = at, delay_us] {
                      while (slot.values[at] == 0) usleep(20);
                      usleep(static_cast<useconds_t>(delay_us));
                      raise(SIGKILL);
                    }).detach();
                sum_on_and_on(communicator, slot, sums, count);
                if (std::string(slot.text).empty()) return;
                usleep(100'000);  // those that die shall do so, not leave
              });
  const std::string story =
      fmt::format("seed {}: {} of {} ranks die, {} numbers, {}", seed, deaths, n, count, medium);
  int alive = -1;
  for (int r = 0; r < n; r++) {
    ASSERT_TRUE(ranks.wait(r, 20000)) << story << ": rank " << r << " hangs: " << ranks[r].text;
    if (std::count(dead.begin(), dead.end(), r) > 0 && !ranks[r].done) continue;
    ASSERT_TRUE(ranks[r].done) << story << ": rank " << r;
    ASSERT_STREQ(ranks[r].text, "") << story << ": rank " << r;
    if (alive < 0) alive = r;
    for (int i = 0; i < sums; i++)
      ASSERT_EQ(ranks[r].values[i], ranks[alive].values[i])
          << story << ": sum " << i << " of ranks " << alive << " and " << r;
    // A rank that lives is in all sums.
    for (int i = 0; i < sums; i++)
      ASSERT_NE(ranks[r].values[i] & (1 << r), 0) << story << ": sum " << i << " of rank " << r;
  }
}

TEST(Recover, KilledRanksLeaveTheSameSumsToAllOthers) {
  for (uint64_t seed = 1; seed <= by_build<uint64_t>(6, 4, 2); seed++)
    for (const char* medium : kMedia) {
      kill_while_summing(seed, 4, 1 + static_cast<int>(seed % 3), medium);
      if (HasFatalFailure()) return;
    }
}

TEST(Recover, WithoutProtectionEveryRankIsToldOfTornAndSpoiledCalls) {
  MortalRanks ranks(3);
  ranks.start(settings_with(), [](const CommunicatorPtr& communicator, Slot& slot) {
    if (const std::string text = try_sum(*communicator); !text.empty())
      return MortalRanks::note(slot, text);
    usleep(50'000);
    if (communicator->rank() == 0) raise(SIGKILL);
    std::vector<int32_t> data(1000, 1);
    if (communicator->start(sum_call(data.data(), data.data(), 1000), nullptr).is_ok())
      return MortalRanks::note(slot, "a sum without rank 0");
    auto recovery = communicator->recover(communicator->config(), true);
    if (!recovery.is_ok()) return MortalRanks::note(slot, recovery.status().text());
    slot.values[0] = static_cast<int64_t>(recovery->fate);
    MortalRanks::note(slot, recovery->why);
    slot.values[1] = try_sum(*recovery->communicator).empty() ? recovery->communicator->size() : -1;
  });
  ranks.expect_all_done({0});
  for (const int r : {1, 2}) {
    EXPECT_EQ(ranks[r].values[0], static_cast<int64_t>(CallsFate::spoiled)) << ranks[r].text;
    EXPECT_THAT(ranks[r].text,
                ContainsRegex("collective 1 of rank [12] has overwritten its input"));
    EXPECT_EQ(ranks[r].values[1], 2);
  }
}

// ---- The rule -----------------------------------------------------------------------------------

using runtime::Interrupted;
using runtime::rule;
using runtime::Tally;

constexpr Interrupted kFine{true, true, -1};

TEST(ReplayRule, WhatNobodyFinishedIsRepeatedByAll) {
  const auto ruling =
      rule({{0, {5, true, {kFine, kFine}}}, {2, {5, false, {kFine}}}, {3, {5, false, {}}}});
  EXPECT_EQ(ruling.outcome, CallsFate::finished);
  EXPECT_FALSE(ruling.keeps({5, true, {kFine, kFine}}));
}

TEST(ReplayRule, WhatSomeFinishedIsKeptWhereItIsComplete) {
  const Tally behind{5, true, {kFine, kFine}};
  const auto ruling = rule({{0, {6, false, {kFine}}}, {1, behind}});
  EXPECT_EQ(ruling.outcome, CallsFate::finished);
  EXPECT_TRUE(ruling.keeps(behind));
  EXPECT_FALSE(ruling.keeps({6, false, {kFine}}));
}

TEST(ReplayRule, WhatSomeFinishedAndOthersLackIsTorn) {
  const auto ruling = rule({{0, {9, false, {}}}, {1, {5, false, {kFine}}}, {4, {9, false, {}}}});
  EXPECT_EQ(ruling.outcome, CallsFate::torn);
  EXPECT_EQ(ruling.from, 5u);
  EXPECT_EQ(ruling.until, 9u);
  EXPECT_THAT(ruling.why, HasSubstr("rank 1 not"));
}

TEST(ReplayRule, OneSpoiledCallSpoilsAll) {
  const Interrupted spoiled{false, true, -1}, blocks{true, false, -1}, rooted{true, true, 3};
  for (const Interrupted& call : {spoiled, blocks, rooted})
    EXPECT_EQ(rule({{0, {5, false, {kFine}}}, {1, {5, false, {call}}}}).outcome,
              CallsFate::spoiled);
  EXPECT_EQ(rule({{0, {5, false, {kFine}}}, {3, {5, false, {rooted}}}}).outcome,
            CallsFate::finished)
      << "its root lives";
  EXPECT_EQ(rule({{0, {6, false, {}}}, {1, {5, true, {spoiled}}}}).outcome, CallsFate::finished)
      << "what is kept need not be repeated";
}

TEST(ReplayRule, TalliesRoundTripAndRefuseEveryTruncation) {
  const Tally tally{7, true, {kFine, {false, true, 2}}};
  const std::string bytes = encode(tally);
  Tally parsed;
  ASSERT_TRUE(parse_tally(bytes, &parsed));
  EXPECT_EQ(encode(parsed), bytes);
  for (size_t n = 0; n < bytes.size(); n++) {
    Tally other;
    EXPECT_FALSE(parse_tally(bytes.substr(0, n), &other));
  }
}

}  // namespace
}  // namespace railccl::test
