// Shows that communicators give exact results for all collectives, datatypes and operators over
// shared memory and sockets, with threads as ranks; that they split, serve streams and report what
// they chose.
#include "runtime/communicator.h"

#include <gtest/gtest.h>

#include "ranks.h"

namespace railccl::test {
namespace {

struct Medium {
  const char* name;
  std::vector<std::string> settings;
};

const Medium kMedia[] = {
    {"shm", {}},
    {"tcp", {"NCCL_SHM_DISABLE=1", "NCCL_SOCKET_IFNAME=lo"}},
    {"nccl_net",
     {"NCCL_SHM_DISABLE=1", "NCCL_SOCKET_IFNAME=lo",
      "NCCL_NET_PLUGIN=" RAILCCL_PLUGINS "/libnccl-net-example9.so"}},
};

class Over : public ::testing::TestWithParam<Medium> {
 protected:
  Settings settings() const { return settings_with(GetParam().settings); }
};

TEST_P(Over, AllCollectivesDatatypesAndOperatorsAreExact) {
  for (const int ranks : {1, 2, 3, 4, 7}) {
    with_communicator(ranks, settings(), [&](const CommunicatorPtr& communicator) {
      for (int c = 0; c < kCollectiveCount; c++) {
        const auto collective = static_cast<Collective>(c);
        for (const Datatype datatype : kAllDatatypes) {
          for (int op = 0; op < (reduces(collective) ? kReductionCount : 1); op++) {
            Request request = sum_request(61, collective);
            request.datatype = datatype;
            if (reduces(collective)) request.op = static_cast<Reduction>(op);
            if (rooted(collective)) request.root = (c + op) % ranks;
            expect_exact(*communicator, request);
            if (HasFatalFailure()) return;
          }
        }
      }
      EXPECT_EQ(communicator->last_choice().transport, ranks == 1 ? "self" : GetParam().name);
    });
    if (HasFailure()) return;
  }
}

TEST_P(Over, SizesFromNothingToMegabytesAreExactInAndOutOfPlace) {
  with_communicator(3, settings(), [&](const CommunicatorPtr& communicator) {
    for (int c = 0; c < kCollectiveCount; c++) {
      for (const uint64_t count : {0, 1, 2, 1000, 30011, 400009}) {
        for (const bool in_place : {false, true}) {
          Request request = sum_request(count, static_cast<Collective>(c));
          request.in_place = in_place;
          if (in_place && request.collective == Collective::all_to_all) continue;
          expect_exact(*communicator, request);
          if (HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST_P(Over, RanksMayDifferInBeingInPlace) {
  with_communicator(3, settings(), [&](const CommunicatorPtr& communicator) {
    for (int c = 0; c < kCollectiveCount; c++) {
      Request request = sum_request(5000, static_cast<Collective>(c));
      if (request.collective == Collective::all_to_all) continue;
      request.in_place = communicator->rank() == 1;
      expect_exact(*communicator, request);
    }
  });
}

TEST_P(Over, SplitsGiveCommunicatorsOfTheirOwn) {
  with_communicator(5, settings(), [&](const CommunicatorPtr& communicator) {
    // Odd and even ranks, in reverse order; then one rank stays out.
    const int rank = communicator->rank();
    auto half = communicator->split(rank % 2, -rank, {});
    ASSERT_TRUE(half.is_ok()) << half.status().text();
    ASSERT_NE(*half, nullptr);
    EXPECT_EQ((*half)->size(), rank % 2 == 0 ? 3 : 2);
    EXPECT_EQ((*half)->rank(), ((*half)->size() - 1) - rank / 2);
    expect_exact(**half, sum_request(1234));
    auto most = communicator->split(rank == 3 ? -1 : 7, 0, {});
    ASSERT_TRUE(most.is_ok()) << most.status().text();
    EXPECT_EQ(*most == nullptr, rank == 3);
    if (*most != nullptr) {
      EXPECT_EQ((*most)->size(), 4);
      expect_exact(**most, sum_request(77, Collective::all_gather));
    }
    expect_exact(*communicator, sum_request(99));
  });
}

TEST_P(Over, StreamsRunCallsInOrder) {
  with_communicator(3, settings(), [&](const CommunicatorPtr& communicator) {
    runtime::Stream one, two;
    std::vector<std::unique_ptr<Buffers>> buffers;
    std::vector<Request> requests;
    for (int i = 0; i < 40; i++) {
      requests.push_back(sum_request(1 + 37 * static_cast<uint64_t>(i),
                                     static_cast<Collective>(i % kCollectiveCount)));
      buffers.push_back(
          std::make_unique<Buffers>(requests.back(), communicator->size(), communicator->rank()));
    }
    for (size_t i = 0; i < requests.size(); i++) {
      runtime::Stream* stream = i % 3 == 0 ? nullptr : i % 3 == 1 ? &one : &two;
      const Status status = communicator->start(call_of(requests[i], *buffers[i]), stream);
      ASSERT_TRUE(status.is_ok()) << status.text();
    }
    ASSERT_TRUE(one.synchronize().is_ok());
    ASSERT_TRUE(two.synchronize().is_ok());
    for (size_t i = 0; i < requests.size(); i++) EXPECT_EQ(buffers[i]->first_wrong(), -1) << i;
    EXPECT_TRUE(one.idle() && two.idle());
  });
}

INSTANTIATE_TEST_SUITE_P(Media, Over, ::testing::ValuesIn(kMedia),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(Communicator, NonBlockingOnesReturnAtOnceAndAnswerLater) {
  const Settings settings = settings_with();
  auto id = runtime::make_unique_id(settings);
  ASSERT_TRUE(id.is_ok());
  Config config;
  config.blocking = false;
  // One thread holds all ranks: only possible because nothing blocks.
  std::vector<CommunicatorPtr> ranks;
  for (int r = 0; r < 3; r++) {
    auto joined = Communicator::join(*id, r, 3, config, settings);
    ASSERT_TRUE(joined.is_ok());
    ranks.push_back(*joined);
  }
  const auto settle = [](const CommunicatorPtr& communicator) {
    const Deadline deadline = Deadline::after_ms(20000);
    while (communicator->in_progress() && !deadline.passed()) usleep(200);
    EXPECT_FALSE(communicator->in_progress());
    EXPECT_TRUE(communicator->async_error().is_ok()) << communicator->async_error().text();
  };
  for (const auto& rank : ranks) settle(rank);
  const Request request = sum_request(5000);
  std::vector<std::unique_ptr<Buffers>> buffers;
  for (int r = 0; r < 3; r++) {
    buffers.push_back(std::make_unique<Buffers>(request, 3, r));
    ASSERT_TRUE(
        ranks[static_cast<size_t>(r)]->start(call_of(request, *buffers.back()), nullptr).is_ok());
  }
  for (const auto& rank : ranks) settle(rank);
  for (const auto& each : buffers) EXPECT_EQ(each->first_wrong(), -1);
  std::vector<CommunicatorPtr> parts;
  for (int r = 0; r < 3; r++) {
    auto part = ranks[static_cast<size_t>(r)]->split(0, r, config);
    ASSERT_TRUE(part.is_ok());
    parts.push_back(*part);
  }
  for (const auto& part : parts) settle(part);
  for (const auto& part : parts) EXPECT_EQ(part->size(), 3);
  for (const auto& part : parts) EXPECT_TRUE(part->finalize().is_ok());
  for (const auto& part : parts) settle(part);
}

TEST(Communicator, SettingsThatDifferAreAnErrorEverywhereThatNamesBoth) {
  auto id = runtime::make_unique_id(settings_with());
  ASSERT_TRUE(id.is_ok());
  on_threads(3, [&](int r) {
    auto joined = Communicator::join(*id, r, 3, {},
                                     settings_with({r == 2 ? "NCCL_ALGO=tree" : "NCCL_ALGO=ring"}));
    ASSERT_FALSE(joined.is_ok());
    EXPECT_EQ(joined.status().code(), Code::mismatch);
    EXPECT_NE(joined.status().text().find("NCCL_ALGO=ring"), std::string::npos)
        << joined.status().text();
    EXPECT_NE(joined.status().text().find("NCCL_ALGO=tree"), std::string::npos);
  });
}

TEST(Communicator, TheSettingsPickTheAlgorithm) {
  for (const std::string name : {"ring", "tree", "doubling"}) {
    with_communicator(3, settings_with({"NCCL_ALGO=" + name, "RAILCCL_CHECK_PLANS=1"}),
                      [&](const CommunicatorPtr& communicator) {
                        expect_exact(*communicator, sum_request(1000));
                        EXPECT_EQ(communicator->last_choice().algorithm, name);
                        EXPECT_GT(communicator->last_choice().predicted_s, 0);
                      });
  }
}

}  // namespace
}  // namespace railccl::test
