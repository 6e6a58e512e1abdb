// Shows that well-known programs are served: each test makes the calls of one of them, in its order
// and with its habits, threads being its ranks. Programs that call by ctypes, or whose habits need
// processes, are in clients_test.py.
#include <gmock/gmock.h>

#include <atomic>
#include <chrono>
#include <functional>

#include "api_ranks.h"

namespace railccl::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

bool fine(ncclResult_t result) { return result == ncclSuccess || result == ncclInProgress; }

/// Asks until nothing is in progress any more, as all do who use non-blocking communicators.
ncclResult_t settled(ncclComm_t comm) {
  ncclResult_t state = ncclInProgress;
  const auto limit = steady_clock::now() + std::chrono::seconds(30);
  while (state == ncclInProgress && steady_clock::now() < limit) {
    if (ncclCommGetAsyncError(comm, &state) != ncclSuccess) return ncclInternalError;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return state;
}

#define SETTLES(comm) ASSERT_EQ(settled(comm), ncclSuccess) << ncclGetLastError(comm)

ncclUniqueId fresh_id() {
  ncclUniqueId id{};
  EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess) << ncclGetLastError(nullptr);
  return id;
}

/// What PyTorch sets for a process group.
ncclConfig_t torch_config(const char* name) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.cgaClusterSize = 4;
  config.minCTAs = 1;
  config.maxCTAs = 8;
  config.netName = "Socket";
  config.splitShare = 1;
  config.trafficClass = 0;
  config.commName = name;
  config.collnetEnable = 0;
  config.CTAPolicy = NCCL_CTA_POLICY_ZERO;
  config.shrinkShare = 1;
  config.nvlsCTAs = 16;
  config.nvlinkCentricSched = 1;
  return config;
}

// ProcessGroupNCCL: version, id, non-blocking init polled; segments registered; collectives polled;
// split with and without a color, polled through the parent; barrier by an all-reduce of one float;
// finalize, polled, and destroy.
TEST(Clients, TorchProcessGroup) {
  int version = 0;
  OK(ncclGetVersion(&version));
  EXPECT_GE(version, 22809);
  const ncclUniqueId id = fresh_id();
  on_threads(3, [&](int rank) {
    ncclConfig_t config = torch_config("world");
    ncclComm_t world = nullptr;
    ASSERT_EQ(ncclCommInitRankConfig(&world, 3, id, rank, &config), ncclInProgress);
    ASSERT_NE(world, nullptr);
    SETTLES(world);
    void *segment = nullptr, *handle = nullptr;
    OK(ncclMemAlloc(&segment, 1 << 16));
    OK(ncclCommRegister(world, segment, 1 << 16, &handle));
    auto* const data = static_cast<float*>(segment);
    for (size_t i = 0; i < 100; i++) data[i] = static_cast<float>(rank);
    EXPECT_TRUE(fine(ncclAllReduce(data, data, 100, ncclFloat, ncclSum, world, nullptr)));
    SETTLES(world);
    EXPECT_EQ(data[99], 3);

    ncclConfig_t part_config = torch_config("part");
    ncclComm_t part = reinterpret_cast<ncclComm_t>(16);
    ASSERT_TRUE(
        fine(ncclCommSplit(world, rank == 2 ? NCCL_SPLIT_NOCOLOR : 1, rank, &part, &part_config)));
    SETTLES(world);
    if (rank == 2) {
      EXPECT_EQ(part, nullptr);
    } else {
      SETTLES(part);
      int count = 0;
      OK(ncclCommCount(part, &count));
      EXPECT_EQ(count, 2);
      EXPECT_TRUE(fine(ncclCommFinalize(part)));
      SETTLES(part);
      OK(ncclCommDestroy(part));
    }
    float barrier = 1;
    EXPECT_TRUE(fine(ncclAllReduce(&barrier, &barrier, 1, ncclFloat, ncclSum, world, nullptr)));
    SETTLES(world);
    EXPECT_EQ(barrier, 3);
    OK(ncclCommDeregister(world, handle));
    OK(ncclMemFree(segment));
    EXPECT_TRUE(fine(ncclCommFinalize(world)));
    SETTLES(world);
    OK(ncclCommDestroy(world));
  });
}

// While a split goes on in the background, the parent is what can be asked.
TEST(Clients, TorchSeesASplitInProgressAtTheParent) {
  ncclConfig_t config = torch_config("world");
  Ranks ranks(2, &config);
  ranks.each([](int, ncclComm_t comm) { SETTLES(comm); });
  ncclComm_t early = nullptr, late = nullptr;
  ASSERT_EQ(ncclCommSplit(ranks.comm(0), NCCL_SPLIT_NOCOLOR, 0, &early, nullptr), ncclInProgress);
  ncclResult_t state = ncclSuccess;
  OK(ncclCommGetAsyncError(ranks.comm(0), &state));
  EXPECT_EQ(state, ncclInProgress) << "rank 1 has not called yet";
  ASSERT_TRUE(fine(ncclCommSplit(ranks.comm(1), 0, 0, &late, nullptr)));
  SETTLES(ranks.comm(0));
  SETTLES(late);
  OK(ncclCommDestroy(late));
}

// A batch of sends and receives whose peers have no communicator yet: the open groups are closed,
// the communicator is made, and the groups are opened again.
TEST(Clients, TorchMakesACommunicatorInsideABatch) {
  const ncclUniqueId id = fresh_id();
  on_threads(2, [&](int rank) {
    constexpr int kDepth = 2;
    for (int i = 0; i < kDepth; i++) OK(ncclGroupStart());
    for (int i = 0; i < kDepth; i++) OK(ncclGroupEnd());
    ncclComm_t comm = nullptr;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    OK(ncclCommInitRankConfig(&comm, 2, id, rank, &config));
    for (int i = 0; i < kDepth; i++) OK(ncclGroupStart());
    int mine = rank + 5, theirs = -1;
    OK(ncclSend(&mine, 1, ncclInt, 1 - rank, comm, nullptr));
    OK(ncclRecv(&theirs, 1, ncclInt, 1 - rank, comm, nullptr));
    for (int i = 0; i < kDepth; i++) OK(ncclGroupEnd());
    EXPECT_EQ(theirs, 6 - rank);
    OK(ncclCommDestroy(comm));
  });
}

// all_to_all with uneven splits: some are empty, and then their pointers are whatever they are.
TEST(Clients, TorchAllToAllWithEmptyPieces) {
  Ranks ranks(3);
  ranks.each([](int rank, ncclComm_t comm) {
    int out[3] = {10 * rank, 10 * rank + 1, 10 * rank + 2}, in[3] = {-1, -1, -1};
    const auto sends = [](int from, int to) { return to >= from; };
    OK(ncclGroupStart());
    for (int r = 0; r < 3; r++) {
      OK(ncclSend(sends(rank, r) ? &out[r] : nullptr, sends(rank, r) ? 1 : 0, ncclInt, r, comm,
                  nullptr));
      OK(ncclRecv(sends(r, rank) ? &in[r] : nullptr, sends(r, rank) ? 1 : 0, ncclInt, r, comm,
                  nullptr));
    }
    OK(ncclGroupEnd());
    for (int r = 0; r < 3; r++) EXPECT_EQ(in[r], sends(r, rank) ? 10 * r + rank : -1);
  });
}

// FSDP's gradient division: the operator is gone before the group ends in which it is used.
TEST(Clients, TorchDestroysAnOperatorBeforeItsGroupEnds) {
  Ranks ranks(2);
  ranks.each([](int rank, ncclComm_t comm) {
    float factor = 0.5f, data[2] = {4.0f * static_cast<float>(rank + 1), 8.0f}, out = 0;
    ncclRedOp_t op, reused;
    OK(ncclGroupStart());
    OK(ncclRedOpCreatePreMulSum(&op, &factor, ncclFloat, ncclScalarHostImmediate, comm));
    OK(ncclReduceScatter(data, &out, 1, ncclFloat, op, comm, nullptr));
    OK(ncclRedOpDestroy(op, comm));
    factor = 100.0f;
    OK(ncclRedOpCreatePreMulSum(&reused, &factor, ncclFloat, ncclScalarHostImmediate, comm));
    OK(ncclGroupEnd());
    EXPECT_EQ(out, rank == 0 ? 6.0f : 8.0f);
    OK(ncclRedOpDestroy(reused, comm));
  });
}

/// Runs `body`, and fails when that takes longer than aborts may.
void within_seconds(int seconds, const std::function<void()>& body) {
  const auto start = steady_clock::now();
  body();
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(seconds));
}

// The watchdog aborts all communicators in one group, from its own thread: one that hangs in a
// collective whose peer never comes, and one whose peer never came to the meeting.
TEST(Clients, TorchWatchdogAbortsInAGroup) {
  ncclConfig_t config = torch_config("hung");
  Ranks ranks(2, &config);
  ranks.each([](int, ncclComm_t comm) { SETTLES(comm); });
  const ncclComm_t hung = ranks.take(0);
  ncclComm_t half = nullptr;
  const ncclUniqueId id = fresh_id();
  ASSERT_EQ(ncclCommInitRankConfig(&half, 2, id, 0, &config), ncclInProgress);
  float value = 1;
  ASSERT_TRUE(fine(ncclAllReduce(&value, &value, 1, ncclFloat, ncclSum, hung, nullptr)));
  std::atomic<bool> waiting{true};
  std::thread main_thread([&] {
    while (waiting) {  // as work.wait() does
      ncclResult_t state = ncclInProgress;
      if (ncclCommGetAsyncError(hung, &state) != ncclSuccess || state != ncclInProgress) break;
      std::this_thread::sleep_for(milliseconds(1));
    }
  });
  std::this_thread::sleep_for(milliseconds(50));
  std::thread watchdog([&] {
    within_seconds(10, [&] {
      OK(ncclGroupStart());
      OK(ncclCommAbort(hung));
      OK(ncclCommAbort(half));
      OK(ncclGroupEnd());
    });
  });
  watchdog.join();
  main_thread.join();
  waiting = false;
  EXPECT_NE(ncclGetLastError(hung), nullptr) << "also of a handle that is gone";
}

/// What another thread sees of a handle while a call writes it, as a watchdog of a client may look:
/// a race, and meant to be one.
__attribute__((noinline, no_sanitize("thread"))) bool shows(const ncclComm_t* handle) {
  return *const_cast<const ncclComm_t volatile*>(handle) != nullptr;
}

// Another thread must not get hold of a communicator that a blocking call still makes: it could
// only abort it under that call's feet.
TEST(Clients, ABlockingInitShowsNothingBeforeItsEnd) {
  const ncclUniqueId id = fresh_id();
  ncclComm_t first = nullptr, second = nullptr;
  std::thread waits([&] { OK(ncclCommInitRank(&first, 2, id, 0)); });
  std::this_thread::sleep_for(milliseconds(50));
  EXPECT_FALSE(shows(&first));
  OK(ncclCommInitRank(&second, 2, id, 1));
  waits.join();
  ASSERT_NE(first, nullptr);
  on_threads(2, [&](int rank) { OK(ncclCommDestroy(rank == 0 ? first : second)); });
}

// XLA: all ranks of a process made in one group, non-blocking; the group's end says that it goes
// on. Cliques of cliques are split off, in a group, too. Several ids.
TEST(Clients, XlaMakesCliquesInGroups) {
  constexpr int kRanks = 4;
  ncclUniqueId ids[2] = {fresh_id(), fresh_id()};
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  config.splitShare = 1;
  ncclComm_t comms[kRanks] = {};
  OK(ncclGroupStart());
  for (int r = 0; r < kRanks; r++)
    ASSERT_TRUE(fine(ncclCommInitRankScalable(&comms[r], kRanks, r, 2, ids, &config)));
  EXPECT_EQ(ncclGroupEnd(), ncclInProgress);
  for (ncclComm_t comm : comms) {
    ASSERT_NE(comm, nullptr);
    SETTLES(comm);
  }
  ncclComm_t halves[kRanks] = {};
  OK(ncclGroupStart());
  for (int r = 0; r < kRanks; r++)
    ASSERT_TRUE(fine(ncclCommSplit(comms[r], r / 2, r, &halves[r], &config)));
  ASSERT_TRUE(fine(ncclGroupEnd()));
  for (ncclComm_t half : halves) SETTLES(half);
  int sums[kRanks] = {1, 2, 3, 4};
  OK(ncclGroupStart());
  for (int r = 0; r < kRanks; r++)
    ASSERT_TRUE(fine(ncclAllReduce(&sums[r], &sums[r], 1, ncclInt, ncclSum, halves[r], nullptr)));
  ASSERT_TRUE(fine(ncclGroupEnd()));
  for (ncclComm_t half : halves) SETTLES(half);
  EXPECT_THAT(sums, ::testing::ElementsAre(3, 3, 7, 7));
  for (int r = 0; r < kRanks; r++) {
    OK(ncclCommAbort(halves[r]));  // XLA cancels by abort, also what is well
    OK(ncclCommDestroy(comms[r]));
  }
}

// nccl-tests: one thread drives all ranks, registers their buffers, and makes every collective in a
// group, with an operator of its own among the operators.
TEST(Clients, NcclTests) {
  constexpr int kRanks = 2;
  constexpr size_t kCount = 256;
  const ncclUniqueId id = fresh_id();
  ncclComm_t comms[kRanks] = {};
  OK(ncclGroupStart());
  for (int r = 0; r < kRanks; r++) OK(ncclCommInitRank(&comms[r], kRanks, id, r));
  OK(ncclGroupEnd());
  std::vector<float> in[kRanks], out[kRanks];
  void* handles[kRanks][2] = {};
  for (int r = 0; r < kRanks; r++) {
    in[r].assign(kCount, static_cast<float>(r + 1));
    out[r].assign(kCount, 0);
    OK(ncclCommRegister(comms[r], in[r].data(), kCount * sizeof(float), &handles[r][0]));
    OK(ncclCommRegister(comms[r], out[r].data(), kCount * sizeof(float), &handles[r][1]));
  }
  OK(ncclGroupStart());
  for (int r = 0; r < kRanks; r++)
    OK(ncclAllReduce(in[r].data(), out[r].data(), kCount, ncclFloat, ncclAvg, comms[r], nullptr));
  OK(ncclGroupEnd());
  EXPECT_EQ(out[1][kCount - 1], 1.5f);
  OK(ncclGroupStart());
  for (int r = 0; r < kRanks; r++) {
    float scalar = 2.0f;
    ncclRedOp_t op;
    OK(ncclRedOpCreatePreMulSum(&op, &scalar, ncclFloat, ncclScalarHostImmediate, comms[r]));
    OK(ncclAllReduce(in[r].data(), out[r].data(), kCount, ncclFloat, op, comms[r], nullptr));
    OK(ncclRedOpDestroy(op, comms[r]));
  }
  OK(ncclGroupEnd());
  EXPECT_EQ(out[0][0], 6.0f);
  for (int r = 0; r < kRanks; r++) {
    for (void* handle : handles[r]) OK(ncclCommDeregister(comms[r], handle));
    OK(ncclCommDestroy(comms[r]));
  }
}

// Texts are asked for at any time, by anyone, of anything.
TEST(Clients, ErrorTextsAreNeverNull) {
  for (const int code : {-1, 0, 3, 8, 9, 1000})
    EXPECT_NE(ncclGetErrorString(static_cast<ncclResult_t>(code)), nullptr) << code;
  std::thread([] {
    EXPECT_STREQ(ncclGetLastError(nullptr), "") << "nothing has failed in this thread";
  }).join();
}

}  // namespace
}  // namespace railccl::test
