// Shows that every function of nccl.h and railccl.h does what the header says, through the C
// interface, with threads as ranks and small exact values.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>

#include "api_ranks.h"

namespace railccl::test {
namespace {

using ::testing::HasSubstr;

TEST(Nccl, ARepeatedCallIsCheckedAgainWhereItDiffers) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    std::vector<float> in(8, static_cast<float>(rank + 1)), out(8);
    const auto sum = [&](const void* from, void* to) {
      return ncclAllReduce(from, to, 4, ncclFloat, ncclSum, comm, nullptr);
    };
    OK(sum(in.data(), out.data()));
    OK(sum(in.data() + 4, out.data() + 4));
    EXPECT_EQ(out[7], 3);
    FAILS(sum(in.data(), in.data() + 1), ncclInvalidArgument, "overlap");
    FAILS(sum(in.data(), nullptr), ncclInvalidArgument, "null");
    OK(sum(in.data(), in.data()));
    EXPECT_EQ(in[3], 3);
    FAILS(sum(nullptr, nullptr), ncclInvalidArgument, "null");
    FAILS(ncclAllReduce(in.data(), in.data(), 4, ncclNumTypes, ncclSum, comm, nullptr),
          ncclInvalidArgument, "datatype");
    OK(sum(in.data() + 4, out.data()));
    EXPECT_EQ(out[0], 3);
  });
}

TEST(Nccl, Collectives) {
  constexpr int kRanks = 4;
  constexpr size_t kCount = 1003;
  Ranks ranks(kRanks);
  ranks.each([&](int rank, ncclComm_t comm) {
    const auto value = [](int r, size_t i) { return static_cast<float>(r * 10 + int(i % 7)); };
    std::vector<float> one(kCount), many(kCount * kRanks), out(kCount), all(kCount * kRanks);
    for (size_t i = 0; i < kCount; i++) one[i] = value(rank, i);
    for (size_t i = 0; i < many.size(); i++) many[i] = value(rank, i);
    const auto sum = [&](size_t i) {
      float total = 0;
      for (int r = 0; r < kRanks; r++) total += value(r, i);
      return total;
    };

    OK(ncclAllReduce(one.data(), out.data(), kCount, ncclFloat, ncclSum, comm, nullptr));
    for (size_t i = 0; i < kCount; i++) ASSERT_EQ(out[i], sum(i));
    out = one;
    OK(ncclAllReduce(out.data(), out.data(), kCount, ncclFloat, ncclAvg, comm, nullptr));
    for (size_t i = 0; i < kCount; i++) ASSERT_EQ(out[i], sum(i) / kRanks);
    OK(ncclReduce(one.data(), rank == 2 ? out.data() : nullptr, kCount, ncclFloat, ncclMax, 2, comm,
                  nullptr));
    for (size_t i = 0; rank == 2 && i < kCount; i++) ASSERT_EQ(out[i], value(kRanks - 1, i));
    OK(ncclReduceScatter(many.data(), out.data(), kCount, ncclFloat, ncclSum, comm, nullptr));
    for (size_t i = 0; i < kCount; i++)
      ASSERT_EQ(out[i], sum(static_cast<size_t>(rank) * kCount + i));
    float* const block = all.data() + static_cast<size_t>(rank) * kCount;
    std::copy(one.begin(), one.end(), block);
    OK(ncclAllGather(block, all.data(), kCount, ncclFloat, comm, nullptr));
    for (size_t i = 0; i < all.size(); i++)
      ASSERT_EQ(all[i], value(static_cast<int>(i / kCount), i % kCount));
    out = one;
    OK(ncclBcast(out.data(), kCount, ncclFloat, 1, comm, nullptr));
    for (size_t i = 0; i < kCount; i++) ASSERT_EQ(out[i], value(1, i));
    OK(ncclBroadcast(rank == 3 ? one.data() : nullptr, out.data(), kCount, ncclFloat, 3, comm,
                     nullptr));
    for (size_t i = 0; i < kCount; i++) ASSERT_EQ(out[i], value(3, i));
    OK(ncclAlltoAll(many.data(), all.data(), kCount, ncclFloat, comm, nullptr));
    for (size_t i = 0; i < all.size(); i++)
      ASSERT_EQ(all[i], value(static_cast<int>(i / kCount),
                              static_cast<size_t>(rank) * kCount + i % kCount));
    OK(ncclGather(one.data(), rank == 0 ? all.data() : nullptr, kCount, ncclFloat, 0, comm,
                  nullptr));
    for (size_t i = 0; rank == 0 && i < all.size(); i++)
      ASSERT_EQ(all[i], value(static_cast<int>(i / kCount), i % kCount));
    OK(ncclScatter(rank == 1 ? many.data() : nullptr, out.data(), kCount, ncclFloat, 1, comm,
                   nullptr));
    for (size_t i = 0; i < kCount; i++)
      ASSERT_EQ(out[i], value(1, static_cast<size_t>(rank) * kCount + i));
  });
}

TEST(Nccl, GroupOfSendsAndReceives) {
  Ranks ranks(3);
  ranks.each([](int rank, ncclComm_t comm) {
    const int next = (rank + 1) % 3, before = (rank + 2) % 3;
    int64_t out[2] = {rank, rank * 100}, in[2] = {-1, -1}, mine = -1;
    OK(ncclGroupStart());
    OK(ncclRecv(in, 2, ncclInt64, before, comm, nullptr));
    OK(ncclSend(out, 2, ncclInt64, next, comm, nullptr));
    OK(ncclSend(out, 1, ncclInt64, rank, comm, nullptr));
    OK(ncclRecv(&mine, 1, ncclInt64, rank, comm, nullptr));
    OK(ncclGroupEnd());
    EXPECT_EQ(in[0], before);
    EXPECT_EQ(in[1], before * 100);
    EXPECT_EQ(mine, rank);
  });
}

TEST(Nccl, OneThreadDrivesAllRanks) {
  ncclComm_t comms[4];
  const int devices[4] = {3, 1, 0, 2};
  OK(ncclCommInitAll(comms, 4, devices));
  int values[4], count = 0, rank = -1, device = 0;
  OK(ncclGroupStart());
  for (int r = 0; r < 4; r++) {
    OK(ncclCommCount(comms[r], &count));
    OK(ncclCommUserRank(comms[r], &rank));
    OK(ncclCommCuDevice(comms[r], &device));
    EXPECT_EQ(count, 4);
    EXPECT_EQ(rank, r);
    EXPECT_EQ(device, -1);
    values[r] = r + 1;
    OK(ncclAllReduce(&values[r], &values[r], 1, ncclInt, ncclProd, comms[r], nullptr));
  }
  OK(ncclGroupEnd());
  for (const int value : values) EXPECT_EQ(value, 24);

  // Splitting and window registration are collective, too: they run at the group's end.
  ncclComm_t halves[4];
  OK(ncclGroupStart());
  for (int r = 0; r < 4; r++) OK(ncclCommSplit(comms[r], r % 2, -r, &halves[r], nullptr));
  OK(ncclGroupEnd());
  for (int r = 0; r < 4; r++) {
    OK(ncclCommCount(halves[r], &count));
    OK(ncclCommUserRank(halves[r], &rank));
    EXPECT_EQ(count, 2);
    EXPECT_EQ(rank, r < 2 ? 1 : 0) << "ordered by key";
  }
  void* memory[4];
  ncclWindow_t windows[4];
  for (auto& piece : memory) OK(ncclMemAlloc(&piece, 10000));
  OK(ncclGroupStart());
  for (int r = 0; r < 4; r++)
    OK(ncclCommWindowRegister(comms[r], memory[r], 10000, &windows[r], NCCL_WIN_COLL_SYMMETRIC));
  OK(ncclGroupEnd());
  for (int r = 0; r < 4; r++) {
    OK(ncclCommWindowDeregister(comms[r], windows[r]));
    OK(ncclMemFree(memory[r]));
    OK(ncclCommDestroy(halves[r]));
  }
  for (ncclComm_t comm : comms) OK(ncclCommDestroy(comm));
}

TEST(Nccl, GroupedInitialisation) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comms[3];
  OK(ncclGroupStart());
  for (int rank = 0; rank < 3; rank++) OK(ncclCommInitRank(&comms[rank], 3, id, rank));
  int count = 0;
  EXPECT_EQ(ncclCommCount(comms[0], &count), ncclInvalidUsage) << "not made yet";
  OK(ncclGroupEnd());
  OK(ncclCommCount(comms[0], &count));
  EXPECT_EQ(count, 3);
  for (ncclComm_t comm : comms) OK(ncclCommDestroy(comm));
}

TEST(Nccl, ScalableInitialisation) {
  ncclUniqueId ids[2];
  for (ncclUniqueId& id : ids) OK(ncclGetUniqueId(&id));
  on_threads(3, [&](int rank) {
    ncclComm_t comm;
    OK(ncclCommInitRankScalable(&comm, 3, rank, 2, ids, nullptr));
    OK(ncclCommDestroy(comm));
  });
}

TEST(Nccl, SplitWithoutColorAndWithOtherOptions) {
  Ranks ranks(3);
  ranks.each([](int rank, ncclComm_t comm) {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.commName = "part";
    config.maxCTAs = 2;
    ncclComm_t part = reinterpret_cast<ncclComm_t>(8);
    OK(ncclCommSplit(comm, rank == 1 ? NCCL_SPLIT_NOCOLOR : 5, 0, &part, &config));
    if (rank == 1) {
      EXPECT_EQ(part, nullptr);
      return;
    }
    int sum = rank;
    OK(ncclAllReduce(&sum, &sum, 1, ncclInt, ncclSum, part, nullptr));
    EXPECT_EQ(sum, 2);
    OK(ncclCommFinalize(part));
    OK(ncclCommDestroy(part));
  });
}

TEST(Nccl, ShrinkWithoutTheExcluded) {
  Ranks ranks(4);
  ranks.each([](int rank, ncclComm_t comm) {
    if (rank == 1) return;
    int excluded[] = {1};
    ncclComm_t rest;
    OK(ncclCommShrink(comm, excluded, 1, &rest, nullptr, NCCL_SHRINK_DEFAULT));
    int sum = rank, new_rank = -1;
    OK(ncclAllReduce(&sum, &sum, 1, ncclInt, ncclSum, rest, nullptr));
    EXPECT_EQ(sum, 5);
    OK(ncclCommUserRank(rest, &new_rank));
    EXPECT_EQ(new_rank, rank == 0 ? 0 : rank - 1);
    OK(ncclCommDestroy(rest));
  });
}

TEST(Nccl, StreamsRunInOrder) {
  Ranks ranks(2);
  ranks.each([](int, ncclComm_t comm) {
    cudaStream_t stream;
    OK(railcclStreamCreate(&stream));
    int value = 1;
    for (int i = 0; i < 10; i++)
      OK(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, comm, stream));
    OK(railcclStreamSynchronize(stream));
    EXPECT_EQ(value, 1024);
    OK(railcclStreamQuery(stream));
    OK(railcclStreamDestroy(stream));
  });
}

TEST(Nccl, MadeOperators) {
  Ranks ranks(2);
  ranks.each([](int rank, ncclComm_t comm) {
    ncclRedOp_t immediate, later;
    float factor = rank == 0 ? 2.0f : 3.0f;
    OK(ncclRedOpCreatePreMulSum(&immediate, &factor, ncclFloat, ncclScalarHostImmediate, comm));
    OK(ncclRedOpCreatePreMulSum(&later, &factor, ncclFloat, ncclScalarDevice, comm));
    EXPECT_GE(immediate, ncclNumOps);
    EXPECT_NE(immediate, later);
    factor = 10;
    float in = 1.0f, out = 0;
    OK(ncclAllReduce(&in, &out, 1, ncclFloat, immediate, comm, nullptr));
    EXPECT_EQ(out, 5.0f);
    OK(ncclAllReduce(&in, &out, 1, ncclFloat, later, comm, nullptr));
    EXPECT_EQ(out, 20.0f);
    OK(ncclRedOpDestroy(immediate, comm));
    OK(ncclRedOpDestroy(later, comm));
    int64_t whole = int64_t{1} << 40, result = 0, three = 3;
    OK(ncclRedOpCreatePreMulSum(&immediate, &whole, ncclInt64, ncclScalarHostImmediate, comm));
    OK(ncclAllReduce(&three, &result, 1, ncclInt64, immediate, comm, nullptr));
    EXPECT_EQ(result, int64_t{6} << 40);
    uint16_t half = 0x4000, in_half = 0x3c00, out_half = 0;  // 2.0 and 1.0
    ncclRedOp_t halves;
    OK(ncclRedOpCreatePreMulSum(&halves, &half, ncclHalf, ncclScalarHostImmediate, comm));
    OK(ncclAllReduce(&in_half, &out_half, 1, ncclHalf, halves, comm, nullptr));
    EXPECT_EQ(out_half, 0x4400) << "4.0";
  });
}

TEST(Nccl, NonBlocking) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  Ranks ranks(3, &config);
  ranks.each([](int rank, ncclComm_t comm) {
    const auto settle = [](ncclComm_t which) {
      ncclResult_t state = ncclInProgress;
      while (state == ncclInProgress) {
        ASSERT_EQ(ncclCommGetAsyncError(which, &state), ncclSuccess);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ASSERT_EQ(state, ncclSuccess) << ncclGetLastError(which);
    };
    const auto fine = [](ncclResult_t result) {
      return result == ncclSuccess || result == ncclInProgress;
    };
    settle(comm);
    int value = rank, other = rank;
    EXPECT_TRUE(fine(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, comm, nullptr)));
    settle(comm);
    EXPECT_EQ(value, 3);
    OK(ncclGroupStart());
    OK(ncclAllReduce(&other, &other, 1, ncclInt, ncclMax, comm, nullptr));
    EXPECT_TRUE(fine(ncclGroupEnd()));
    settle(comm);
    EXPECT_EQ(other, 2);
    ncclComm_t part;
    EXPECT_TRUE(fine(ncclCommSplit(comm, rank / 2, 0, &part, nullptr)));
    settle(part);
    EXPECT_TRUE(fine(ncclCommFinalize(part)));
    settle(part);
    OK(ncclCommDestroy(part));
  });
}

TEST(Nccl, AbortFromAnotherThreadEndsAWait) {
  Ranks ranks(2);
  const auto start = std::chrono::steady_clock::now();
  const ncclComm_t zero = ranks.take(0);
  std::thread waiting([zero] {
    int value = 0;
    EXPECT_EQ(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, zero, nullptr), ncclRemoteError);
    EXPECT_THAT(ncclGetLastError(nullptr), HasSubstr("abort"));
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  OK(ncclCommAbort(zero));
  waiting.join();
  ncclResult_t state = ncclSuccess;
  while (state == ncclSuccess &&
         std::chrono::steady_clock::now() - start < std::chrono::seconds(5)) {
    OK(ncclCommGetAsyncError(ranks.comm(1), &state));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(state, ncclRemoteError) << "the other rank learns of it";
  EXPECT_THAT(ncclGetLastError(ranks.comm(1)), HasSubstr("abort"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST(Nccl, RevokeKeepsTheHandle) {
  Ranks ranks(2);
  OK(ncclCommRevoke(ranks.comm(0), NCCL_REVOKE_DEFAULT));
  ncclResult_t state = ncclRemoteError;
  OK(ncclCommGetAsyncError(ranks.comm(0), &state));
  EXPECT_EQ(state, ncclSuccess);
  int value = 0;
  EXPECT_EQ(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, ranks.comm(0), nullptr),
            ncclRemoteError);
}

TEST(Nccl, RevokedRanksShrinkOrRecover) {
  for (const bool shrink : {true, false}) {
    Ranks ranks(3);
    ranks.each([&](int rank, ncclComm_t comm) {
      if (rank == 1) {
        OK(ncclCommRevoke(comm, NCCL_REVOKE_DEFAULT));
      }
      if (shrink) {
        int excluded = 0;
        if (rank == 0) return;  // has not to take part
        ncclComm_t rest = nullptr;
        OK(ncclCommShrink(comm, &excluded, 1, &rest, nullptr, NCCL_SHRINK_ABORT));
        int count = 0, value = 1;
        OK(ncclCommCount(rest, &count));
        EXPECT_EQ(count, 2);
        OK(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, rest, nullptr));
        EXPECT_EQ(value, 2);
        OK(ncclCommDestroy(rest));
        return;
      }
      railcclRecovery_t recovery = RAILCCL_RECOVERY_INITIALIZER;
      ncclComm_t mine = ranks.take(rank);
      OK(railcclCommRecover(&mine, RAILCCL_RECOVER_CALLS, &recovery));
      EXPECT_EQ(recovery.ranks, 3);
      EXPECT_EQ(recovery.rank, rank);
      EXPECT_EQ(recovery.calls, railcclCallsNone);
      int value = 1;
      OK(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, mine, nullptr));
      EXPECT_EQ(value, 3);
      OK(ncclCommDestroy(mine));
    });
  }
}

TEST(Nccl, RegistrationsAndMemory) {
  Ranks ranks(1);
  void *memory = nullptr, *handle = nullptr;
  OK(ncclMemAlloc(&memory, 5));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % NCCL_WIN_REQUIRED_ALIGNMENT, 0u);
  std::memset(memory, 1, 5);
  OK(ncclCommRegister(ranks.comm(0), memory, 5, &handle));
  OK(ncclCommDeregister(ranks.comm(0), handle));
  OK(ncclMemFree(memory));
  OK(ncclMemFree(nullptr));
}

TEST(Nccl, SimulatedGroupRunsNothing) {
  Ranks ranks(1);
  int in = 1, out = 7;
  ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
  OK(ncclGroupStart());
  OK(ncclAllReduce(&in, &out, 1, ncclInt, ncclSum, ranks.comm(0), nullptr));
  OK(ncclGroupSimulateEnd(&info));
  EXPECT_GE(info.estimatedTime, 0);
  EXPECT_EQ(out, 7);
  OK(ncclAllReduce(&in, &out, 1, ncclInt, ncclSum, ranks.comm(0), nullptr));
  EXPECT_EQ(out, 1) << "outside a group again";
}

TEST(Nccl, OlderConfigsAreShorter) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.size = offsetof(ncclConfig_t, netName);  // a layout that ended there
  config.trafficClass = 12345;                    // must not be looked at
  Ranks ranks(1, &config);
  int count = 0;
  OK(ncclCommCount(ranks.comm(0), &count));
}

TEST(Nccl, ErrorStrings) {
  for (int result = 0; result < ncclNumResults; result++)
    EXPECT_NE(std::strlen(ncclGetErrorString(static_cast<ncclResult_t>(result))), 0u);
  EXPECT_STREQ(ncclGetErrorString(ncclNumResults), "unknown result code");
}

TEST(Railccl, VersionSettingsAndChoice) {
  int major = -1, minor = -1, patch = -1, count = 0;
  OK(railcclGetVersion(&major, &minor, &patch));
  EXPECT_GE(major * 10000 + minor * 100 + patch, 1);
  const railcclSetting_t* settings = nullptr;
  OK(railcclGetSettings(&settings, &count));
  ASSERT_GT(count, 10);
  EXPECT_STREQ(settings[0].name, "NCCL_ALGO");
  OK(railcclCheckEnvironment());
  const char *value = "", *file = "";
  OK(railcclGetSetting("NCCL_NOBODY_SETS_THIS", &value, &file));
  EXPECT_EQ(value, nullptr);
  EXPECT_EQ(railcclGetSetting(nullptr, &value, &file), ncclInvalidArgument);
  Ranks ranks(2);
  ranks.each([](int, ncclComm_t comm) {
    railcclChoice_t choice = RAILCCL_CHOICE_INITIALIZER;
    OK(railcclCommLastChoice(comm, &choice));
    EXPECT_STREQ(choice.algorithm, "") << "nothing ran yet";
    std::vector<float> data(1000);
    OK(ncclAllReduce(data.data(), data.data(), data.size(), ncclFloat, ncclSum, comm, nullptr));
    OK(railcclCommLastChoice(comm, &choice));
    EXPECT_STRNE(choice.algorithm, "");
    EXPECT_STRNE(choice.transport, "");
    EXPECT_GE(choice.channels, 1);
    EXPECT_GT(choice.predictedUs, 0);
    EXPECT_GT(choice.boundUs, 0);
    EXPECT_LE(choice.boundUs, choice.predictedUs);
    railcclMeeting_t meeting = RAILCCL_MEETING_INITIALIZER;
    OK(railcclCommMeeting(comm, &meeting));
    EXPECT_GT(meeting.seconds, 0);
    EXPECT_GT(meeting.messagesSent, 1u);
    EXPECT_GT(meeting.messagesReceived, 1u);
    meeting.size = 1;
    EXPECT_EQ(railcclCommMeeting(comm, &meeting), ncclInvalidArgument);
  });
}

TEST(Railccl, UniqueIdAtAKnownPlace) {
  on_threads(3, [&](int rank) {
    ncclUniqueId id;
    OK(railcclGetUniqueIdAt("127.0.0.1", 24681, "secret", &id));
    ncclComm_t comm;
    OK(ncclCommInitRank(&comm, 3, id, rank));
    OK(ncclCommDestroy(comm));
  });
}

}  // namespace
}  // namespace railccl::test
