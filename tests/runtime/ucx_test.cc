// Collectives between processes over UCX: exact results where
// NCCL_NET=UCX asks for it, one error on all ranks where one of them lacks it, and a rank that is
// killed in the middle of them ends the others' calls in time. What UCX does to links is
// tests/transport/ucx_test.cc; every collective and datatype is tests/bench.
#include <gmock/gmock.h>

#include "summing.h"
#include "transport/registry.h"

namespace railccl::test {
namespace {

using testing::HasSubstr;

/// On loopback, where everything between ranks goes by the network.
Settings with_network(const std::string& network) {
  return settings_with({"NCCL_SOCKET_IFNAME==lo", "NCCL_SHM_DISABLE=1", "NCCL_NET=" + network});
}

class UcxNetwork : public testing::Test {
 protected:
  void SetUp() override {
    const auto& kinds = transport::all();
    if (std::none_of(kinds.begin(), kinds.end(),
                     [](const auto* kind) { return std::string_view(kind->name) == "ucx"; }))
      GTEST_SKIP() << "built without UCX";
    setenv("UCX_TLS", "tcp", 1);
  }
  void TearDown() override { unsetenv("UCX_TLS"); }
};

TEST_F(UcxNetwork, SumsAreExact) {
  MortalRanks ranks(4);
  ranks.start(with_network("UCX"), [](const CommunicatorPtr& communicator, Slot& slot) {
    for (const uint64_t count : {1, 1000, 300'000, 1'000'000}) {
      std::vector<int32_t> input(count, communicator->rank() + 1), output(count);
      const Status status =
          communicator->start(sum_call(input.data(), output.data(), count), nullptr);
      if (!status.is_ok()) return MortalRanks::note(slot, status.text());
      if (std::count(output.begin(), output.end(), 10) != static_cast<ptrdiff_t>(count))
        return MortalRanks::note(slot, "wrong sums");
    }
    MortalRanks::note(slot, communicator->last_choice().transport);
  });
  ranks.expect_all_done({});
  for (int r = 0; r < 4; r++) EXPECT_STREQ(ranks[r].text, "ucx") << "rank " << r;
}

TEST_F(UcxNetwork, OneRankWithoutItIsAnErrorOfAll) {
  MortalRanks ranks(3);
  setenv("UCX_TLS", "no_such_transport", 1);
  ranks.start([](int r) { return with_network(r == 1 ? "UCX" : "Socket"); },
              [](const CommunicatorPtr&, Slot&) {});
  for (int r = 0; r < 3; r++) {
    ASSERT_TRUE(ranks.wait(r, 20'000)) << "rank " << r << " hangs";
    EXPECT_FALSE(ranks[r].done);
    EXPECT_THAT(ranks[r].text, HasSubstr("NCCL_NET=UCX: there is no such network here: ucx: lo: "
                                         "UCX: ucp_init: "))
        << "rank " << r;
  }
}

TEST_F(UcxNetwork, ARankThatIsKilledEndsTheOthersInTime) {
  MortalRanks ranks(3);
  ranks.start(with_network("UCX"), [](const CommunicatorPtr& communicator, Slot& slot) {
    std::vector<int32_t> data(100'000, 1);
    for (int64_t i = 0;; i++) {
      const int64_t start = now_ns();
      const Status status =
          communicator->start(sum_call(data.data(), data.data(), data.size()), nullptr);
      slot.values[0] = i;
      if (status.is_ok()) continue;
      slot.recovery_ns = now_ns() - start;
      return MortalRanks::note(slot, status.text());
    }
  });
  const Deadline deadline = Deadline::after_ms(20'000);
  while (ranks[1].values[0] < 10 && !deadline.passed()) usleep(1000);
  ranks.end(1, SIGKILL);
  for (const int r : {0, 2}) {
    ASSERT_TRUE(ranks.wait(r, 20'000)) << "rank " << r << " hangs";
    EXPECT_THAT(ranks[r].text, HasSubstr("rank 1")) << "rank " << r;
    EXPECT_LT(ranks[r].recovery_ns, 2'000'000'000) << "rank " << r;
  }
}

}  // namespace
}  // namespace railccl::test
