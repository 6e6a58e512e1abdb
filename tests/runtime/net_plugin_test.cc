// Collectives between processes that take themselves for hosts, over network plugins: exact results
// over the oldest and the newest version of the interface, the network that NCCL_NET asks for, and
// a plugin that fails in the middle of them: one error on all ranks, in bounded time. What a plugin
// can do wrong to links is tests/transport/nccl_net_test.cc.
#include <gmock/gmock.h>

#include "base/interfaces.h"
#include "mortal_ranks.h"
#include "summing.h"

namespace railccl::test {
namespace {

/// Settings of rank r, `more` before others: two ranks on each host. Hosts do not meet on loopback.
Settings on_host(int rank, int version, const std::vector<std::string>& more = {}) {
  std::vector<std::string> rows = {
      fmt::format("NCCL_HOSTID=host{}", rank / 2),
      fmt::format("NCCL_NET_PLUGIN={}/libnccl-net-example{}.so", RAILCCL_PLUGINS, version)};
  rows.insert(rows.begin(), more.begin(), more.end());
  return settings_with(rows);
}

bool on_loopback_only() {
  const auto interfaces = usable_interfaces(Settings());
  return !interfaces.is_ok() || interfaces->front().loopback;
}

/// Sums of several sizes, of which each is checked.
void sum_sizes(const CommunicatorPtr& communicator, Slot& slot) {
  for (const uint64_t count : {1, 1000, 300'000, 2'000'000}) {
    std::vector<int32_t> input(count, communicator->rank() + 1), output(count);
    const Status status =
        communicator->start(sum_call(input.data(), output.data(), count), nullptr);
    if (!status.is_ok()) return MortalRanks::note(slot, status.text());
    const int ranks = communicator->size();
    const int32_t sum = ranks * (ranks + 1) / 2;
    if (std::count(output.begin(), output.end(), sum) != static_cast<ptrdiff_t>(count))
      return MortalRanks::note(slot, "wrong sums");
  }
  MortalRanks::note(slot, communicator->last_choice().transport);
}

TEST(NetPlugin, SumsBetweenHostsAreExact) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  for (const int version : {6, 11}) {
    MortalRanks ranks(4);
    ranks.start([&](int r) { return on_host(r, version); }, sum_sizes);
    ranks.expect_all_done({});
    for (int r = 0; r < 4; r++) {
      EXPECT_THAT(ranks[r].text, testing::HasSubstr("nccl_net")) << "rank " << r;
      EXPECT_THAT(ranks[r].text, testing::Not(testing::HasSubstr("tcp"))) << "rank " << r;
    }
  }
}

TEST(NetPlugin, TheNetworkIsTheOneThatNcclNetAsksFor) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  const std::pair<const char*, const char*> cases[] = {
      {"NCCL_NET=Socket", "tcp"},
      {"NCCL_NET=example", "nccl_net"},
      {"NCCL_NET=Other", "NCCL_NET=Other: there is no such network here"}};
  for (const auto& [setting, text] : cases) {
    MortalRanks ranks(3);
    ranks.start([&, wanted = setting](int r) { return on_host(r, 8, {wanted}); }, sum_sizes);
    for (int r = 0; r < 3; r++) {
      ASSERT_TRUE(ranks.wait(r, 30'000)) << setting << ": rank " << r << " hangs";
      EXPECT_THAT(ranks[r].text, testing::HasSubstr(text)) << setting << ": rank " << r;
    }
  }
}

// One rank without the plugin: all take the next network.
TEST(NetPlugin, IsUsedWhereAllRanksHaveIt) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  MortalRanks ranks(3);
  ranks.start(
      [](int r) { return r == 1 ? on_host(r, 7, {"NCCL_NET_PLUGIN=none"}) : on_host(r, 7); },
      sum_sizes);
  ranks.expect_all_done({});
  for (int r = 0; r < 3; r++) EXPECT_THAT(ranks[r].text, testing::HasSubstr("tcp")) << "rank " << r;
}

TEST(NetPlugin, AFailureInACollectiveIsTheSameErrorOnAllRanks) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  setenv("EXAMPLE_NET_FAULT", "test:40", 1);
  setenv("EXAMPLE_NET_DEVICES", "1", 1);
  MortalRanks ranks(3);
  const int64_t start = now_ns();
  ranks.start([](int r) { return on_host(r, 10); }, sum_sizes);
  unsetenv("EXAMPLE_NET_FAULT");
  unsetenv("EXAMPLE_NET_DEVICES");
  for (int r = 0; r < 3; r++) ASSERT_TRUE(ranks.wait(r, 20'000)) << "rank " << r << " hangs";
  EXPECT_LT(now_ns() - start, 15'000'000'000);
  for (int r = 0; r < 3; r++)
    EXPECT_THAT(ranks[r].text, testing::HasSubstr("network plugin Example (v10): test returned 2 "
                                                  "(ncclSystemError)"))
        << "rank " << r;
}

TEST(NetPlugin, RequestsThatAreNeverDoneEndWithTheTimeout) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  setenv("EXAMPLE_NET_FAULT", "never:40", 1);
  MortalRanks ranks(3);
  ranks.start([](int r) { return on_host(r, 6, {"RAILCCL_TIMEOUT_MS=500"}); }, sum_sizes);
  unsetenv("EXAMPLE_NET_FAULT");
  for (int r = 0; r < 3; r++) {
    ASSERT_TRUE(ranks.wait(r, 20'000)) << "rank " << r << " hangs";
    EXPECT_THAT(ranks[r].text, testing::HasSubstr("no progress for")) << "rank " << r;
  }
}

}  // namespace
}  // namespace railccl::test
