// Shows that groups run everything together: sends and receives in rings and all-to-alls, several
// collectives, several communicators driven by one thread, nesting, streams; and that a refused
// call keeps the whole group from running.
#include <gtest/gtest.h>

#include <numeric>

#include "ranks.h"

namespace railccl::test {
namespace {

using runtime::group_end;
using runtime::group_start;
using runtime::Stream;

TEST(Group, ARingOfSendsAndReceivesDoesNotDeadlock) {
  for (const char* medium : {"NCCL_SHM_DISABLE=0", "NCCL_SHM_DISABLE=1"}) {
    with_communicator(4, settings_with({medium}), [&](const CommunicatorPtr& communicator) {
      const int ranks = communicator->size(), rank = communicator->rank();
      // Far more than any buffer on the way holds.
      std::vector<int32_t> mine(1'000'000, rank), theirs(mine.size(), -1);
      for (int round = 0; round < 3; round++) {
        group_start();
        ASSERT_TRUE(
            communicator->start(send_of((rank + 1) % ranks, mine.data(), mine.size()), nullptr)
                .is_ok());
        ASSERT_TRUE(
            communicator
                ->start(recv_of((rank + ranks - 1) % ranks, theirs.data(), theirs.size()), nullptr)
                .is_ok());
        const Status status = group_end();
        ASSERT_TRUE(status.is_ok()) << status.text();
        EXPECT_EQ(theirs, std::vector<int32_t>(theirs.size(), (rank + ranks - 1) % ranks));
      }
    });
  }
}

TEST(Group, TransfersOfAPairKeepTheirOrderAndReachThemselves) {
  with_communicator(3, settings_with(), [&](const CommunicatorPtr& communicator) {
    const int ranks = communicator->size(), rank = communicator->rank();
    constexpr int kEach = 20;
    std::vector<int32_t> out(static_cast<size_t>(ranks) * kEach), in(out.size(), -1);
    group_start();
    for (int i = 0; i < kEach; i++)
      for (int peer = 0; peer < ranks; peer++) {
        const size_t at = static_cast<size_t>(peer * kEach + i);
        out[at] = rank * 1000 + i;
        ASSERT_TRUE(communicator->start(send_of(peer, &out[at], 1), nullptr).is_ok());
        ASSERT_TRUE(communicator->start(recv_of(peer, &in[at], 1), nullptr).is_ok());
      }
    ASSERT_TRUE(group_end().is_ok());
    for (int peer = 0; peer < ranks; peer++)
      for (int i = 0; i < kEach; i++)
        EXPECT_EQ(in[static_cast<size_t>(peer * kEach + i)], peer * 1000 + i);
  });
}

TEST(Group, OneThreadDrivesAllRanks) {
  const Settings settings = settings_with();
  std::vector<CommunicatorPtr> ranks(4);
  with_communicator(4, settings, [&](const CommunicatorPtr& communicator) {
    ranks[static_cast<size_t>(communicator->rank())] = communicator;
  });
  for (int c = 0; c < kCollectiveCount; c++) {
    const Request request = sum_request(20000, static_cast<Collective>(c));
    std::vector<std::unique_ptr<Buffers>> buffers;
    group_start();
    for (const auto& rank : ranks) {
      buffers.push_back(std::make_unique<Buffers>(request, 4, rank->rank()));
      group_start();  // nested: only the outermost end runs anything
      ASSERT_TRUE(rank->start(call_of(request, *buffers.back()), nullptr).is_ok());
      ASSERT_TRUE(group_end().is_ok());
    }
    const Status status = group_end();
    ASSERT_TRUE(status.is_ok()) << status.text();
    for (const auto& each : buffers) EXPECT_EQ(each->first_wrong(), -1) << plan::text_of(request);
  }
  for (const auto& rank : ranks) EXPECT_TRUE(rank->finalize().is_ok());
}

TEST(Group, CollectivesAndTransfersMix) {
  with_communicator(3, settings_with(), [&](const CommunicatorPtr& communicator) {
    const int rank = communicator->rank();
    const Request first = sum_request(3000), second = sum_request(500, Collective::all_gather);
    Buffers one(first, 3, rank), two(second, 3, rank);
    int32_t out = rank, in = -1;
    group_start();
    ASSERT_TRUE(communicator->start(call_of(first, one), nullptr).is_ok());
    ASSERT_TRUE(communicator->start(send_of((rank + 1) % 3, &out, 1), nullptr).is_ok());
    ASSERT_TRUE(communicator->start(call_of(second, two), nullptr).is_ok());
    ASSERT_TRUE(communicator->start(recv_of((rank + 2) % 3, &in, 1), nullptr).is_ok());
    ASSERT_TRUE(group_end().is_ok());
    EXPECT_EQ(one.first_wrong(), -1);
    EXPECT_EQ(two.first_wrong(), -1);
    EXPECT_EQ(in, (rank + 2) % 3);
  });
}

TEST(Group, RanksOnDifferentStreamsOfOneThreadMeet) {
  const Settings settings = settings_with();
  std::vector<CommunicatorPtr> ranks(3), others(3);
  with_communicator(3, settings, [&](const CommunicatorPtr& communicator) {
    ranks[static_cast<size_t>(communicator->rank())] = communicator;
    others[static_cast<size_t>(communicator->rank())] =
        communicator->split(0, -communicator->rank(), {}).value();
  });
  Stream streams[3];
  const Request request = sum_request(5000);
  std::vector<std::unique_ptr<Buffers>> buffers;
  for (int round = 0; round < 20; round++) {
    group_start();
    for (size_t r = 0; r < 3; r++) {
      // The second communicator orders its ranks the other way round, and uses another stream.
      for (const auto& communicator : {ranks[r], others[r]}) {
        buffers.push_back(std::make_unique<Buffers>(request, 3, communicator->rank()));
        Stream& stream = streams[communicator == ranks[r] ? r : (r + 1) % 3];
        ASSERT_TRUE(communicator->start(call_of(request, *buffers.back()), &stream).is_ok());
      }
    }
    ASSERT_TRUE(group_end().is_ok());
  }
  for (Stream& stream : streams) {
    const Status status = stream.synchronize();
    EXPECT_TRUE(status.is_ok()) << status.text();
  }
  for (const auto& each : buffers) EXPECT_EQ(each->first_wrong(), -1);
}

TEST(Group, OneCommunicatorOnTwoStreamsIsAJointItem) {
  with_communicator(2, settings_with(), [&](const CommunicatorPtr& communicator) {
    Stream one, two;
    const Request request = sum_request(700);
    std::vector<std::unique_ptr<Buffers>> buffers;
    for (int round = 0; round < 10; round++) {
      group_start();
      for (Stream* stream : {&one, &two}) {
        buffers.push_back(std::make_unique<Buffers>(request, 2, communicator->rank()));
        ASSERT_TRUE(communicator->start(call_of(request, *buffers.back()), stream).is_ok());
      }
      ASSERT_TRUE(group_end().is_ok());
    }
    EXPECT_TRUE(one.synchronize().is_ok());
    EXPECT_TRUE(two.synchronize().is_ok());
    for (const auto& each : buffers) EXPECT_EQ(each->first_wrong(), -1);
  });
}

TEST(Group, ARefusedCallKeepsTheGroupFromRunning) {
  with_communicator(2, settings_with(), [&](const CommunicatorPtr& communicator) {
    const Request request = sum_request(10);
    Buffers buffers(request, 2, communicator->rank());
    Call wrong = call_of(request, buffers);
    wrong.request.collective = Collective::broadcast;
    wrong.request.root = 9;
    group_start();
    EXPECT_TRUE(communicator->start(call_of(request, buffers), nullptr).is_ok());
    EXPECT_EQ(communicator->start(wrong, nullptr).code(), Code::invalid_argument);
    EXPECT_EQ(group_end().code(), Code::invalid_argument);
    EXPECT_EQ(buffers.output[0], std::byte{0xee});
    expect_exact(*communicator, request);  // and does no harm to later calls
  });
  EXPECT_EQ(group_end().code(), Code::invalid_usage);
}

}  // namespace
}  // namespace railccl::test
