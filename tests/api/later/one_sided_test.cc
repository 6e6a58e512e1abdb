// Shows one-sided communication: puts and signals of one rank are all that is needed for another to
// have the data, in order, alone and in groups and on streams. Between processes: clients_test.py.
#include <gmock/gmock.h>

#include <chrono>
#include <limits>
#include <numeric>

#include "api/api_ranks.h"

namespace railccl::test {
namespace {

constexpr size_t kCount = 5000;

/// A window of kCount ints per rank on memory from ncclMemAlloc.
struct Shared {
  explicit Shared(ncclComm_t of) : comm(of) {
    void* start = nullptr;
    EXPECT_EQ(ncclMemAlloc(&start, kCount * sizeof(int)), ncclSuccess);
    data = static_cast<int*>(start);
    EXPECT_EQ(
        ncclCommWindowRegister(comm, data, kCount * sizeof(int), &window, NCCL_WIN_COLL_SYMMETRIC),
        ncclSuccess)
        << ncclGetLastError(nullptr);
  }
  ~Shared() {
    EXPECT_EQ(ncclCommWindowDeregister(comm, window), ncclSuccess);
    EXPECT_EQ(ncclMemFree(data), ncclSuccess);
  }
  ncclComm_t comm;
  int* data = nullptr;
  ncclWindow_t window = nullptr;
};

ncclResult_t wait_for(int count, int peer, ncclComm_t comm, cudaStream_t stream = nullptr) {
  ncclWaitSignalDesc_t one{count, peer, 0, 0};
  return ncclWaitSignal(1, &one, comm, stream);
}

/// Each rank writes its half of the pattern of the next one, and waits for its own; again and
/// again.
void pass_around(int rank, int ranks, ncclComm_t comm) {
  Shared shared(comm);
  const int next = (rank + 1) % ranks, before = (rank + ranks - 1) % ranks;
  std::vector<int> mine(kCount);
  for (int round = 0; round < 20; round++) {
    std::iota(mine.begin(), mine.end(), round * 1000 + rank);
    const size_t half = kCount / 2;
    OK(ncclPutSignal(mine.data(), half, ncclInt, next, shared.window, 0, 0, 0, 0, comm, nullptr));
    OK(ncclPutSignal(mine.data() + half, kCount - half, ncclInt, next, shared.window,
                     half * sizeof(int), 0, 0, 0, comm, nullptr));
    OK(wait_for(2, before, comm));
    for (size_t i = 0; i < kCount; i++)
      ASSERT_EQ(shared.data[i], round * 1000 + before + static_cast<int>(i)) << round << " " << i;
    OK(ncclSignal(before, 0, 0, 0, comm, nullptr));  // it may be written again
    OK(wait_for(1, next, comm));
  }
}

TEST(OneSided, PutsOfThreads) {
  Ranks ranks(3);
  ranks.each([](int rank, ncclComm_t comm) { pass_around(rank, 3, comm); });
}

TEST(OneSided, GroupsPutFirstAndWaitLast) {
  Ranks ranks(2);
  ranks.each([](int rank, ncclComm_t comm) {
    Shared shared(comm);
    const int peer = 1 - rank;
    const int mine = 41 + rank;
    int sum = 1;
    ncclWaitSignalDesc_t both[] = {{1, peer, 0, 0}, {1, rank, 0, 0}};
    OK(ncclGroupStart());
    OK(ncclWaitSignal(2, both, comm, nullptr));
    OK(ncclPutSignal(&mine, 1, ncclInt, peer, shared.window, 8, 0, 0, 0, comm, nullptr));
    OK(ncclPutSignal(&mine, 1, ncclInt, rank, shared.window, 4, 0, 0, 0, comm, nullptr));
    OK(ncclAllReduce(&sum, &sum, 1, ncclInt, ncclSum, comm, nullptr));
    OK(ncclGroupEnd());
    EXPECT_EQ(shared.data[2], 41 + peer);
    EXPECT_EQ(shared.data[1], mine);
    EXPECT_EQ(sum, 2);
  });
}

TEST(OneSided, StreamsKeepTheOrder) {
  Ranks ranks(2);
  ranks.each([](int rank, ncclComm_t comm) {
    Shared shared(comm);
    cudaStream_t stream;
    OK(railcclStreamCreate(&stream));
    int sum = rank + 1, got = -1;
    // What is put is what the all-reduce before it gives.
    OK(ncclAllReduce(&sum, &sum, 1, ncclInt, ncclSum, comm, stream));
    OK(ncclPutSignal(&sum, 1, ncclInt, 1 - rank, shared.window, 0, 0, 0, 0, comm, stream));
    OK(wait_for(1, 1 - rank, comm, stream));
    OK(ncclBroadcast(shared.data, &got, 1, ncclInt, 0, comm, stream));
    OK(railcclStreamSynchronize(stream));
    EXPECT_EQ(got, 3);
    OK(railcclStreamDestroy(stream));
  });
}

TEST(OneSided, ContextsAndSignalsAreCountedApart) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.numRmaCtx = 2;
  config.numRmaSig = 3;
  Ranks ranks(2, &config);
  ranks.each([](int rank, ncclComm_t comm) {
    Shared shared(comm);
    const int peer = 1 - rank;
    for (int context = 0; context < 2; context++)
      for (int signal = 0; signal < 3; signal++)
        for (int i = 0; i <= context + signal; i++)
          OK(ncclSignal(peer, signal, context, 0, comm, nullptr));
    std::vector<ncclWaitSignalDesc_t> all;
    for (int context = 0; context < 2; context++)
      for (int signal = 0; signal < 3; signal++)
        all.push_back({context + signal + 1, peer, signal, context});
    OK(ncclWaitSignal(static_cast<int>(all.size()), all.data(), comm, nullptr));
    FAILS(ncclSignal(peer, 3, 0, 0, comm, nullptr), ncclInvalidArgument, "sigIdx is 3");
    FAILS(ncclSignal(peer, 0, 2, 0, comm, nullptr), ncclInvalidArgument, "ctx is 2");
  });
}

TEST(OneSided, OfNonBlockingCommunicators) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  Ranks ranks(2, &config);
  ranks.each([](int rank, ncclComm_t comm) {
    const auto settle = [&] {
      ncclResult_t state = ncclInProgress;
      while (state == ncclInProgress) {
        ASSERT_EQ(ncclCommGetAsyncError(comm, &state), ncclSuccess);
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      ASSERT_EQ(state, ncclSuccess) << ncclGetLastError(comm);
    };
    settle();
    Shared shared(comm);
    settle();
    const int mine = rank + 7;
    const auto fine = [](ncclResult_t result) {
      return result == ncclSuccess || result == ncclInProgress;
    };
    EXPECT_TRUE(
        fine(ncclPutSignal(&mine, 1, ncclInt, 1 - rank, shared.window, 0, 0, 0, 0, comm, nullptr)));
    EXPECT_TRUE(fine(wait_for(1, 1 - rank, comm)));
    settle();
    EXPECT_EQ(shared.data[0], 8 - rank);
  });
}

TEST(OneSided, WrongCallsAreNamed) {
  Ranks ranks(2);
  int value = 0;
  FAILS(ncclSignal(1, 0, 0, 0, ranks.comm(0), nullptr), ncclInvalidUsage, "registered window");
  ranks.each([&value](int, ncclComm_t comm) {
    Shared shared(comm);
    void* own = nullptr;
    OK(ncclWinGetUserPtr(comm, shared.window, &own));
    EXPECT_EQ(own, shared.data);
    FAILS(ncclWinGetUserPtr(comm, nullptr, &own), ncclInvalidArgument, "is no window");
    const auto put = [&](size_t count, int peer, size_t offset, unsigned flags) {
      return ncclPutSignal(&value, count, ncclInt, peer, shared.window, offset, 0, 0, flags, comm,
                           nullptr);
    };
    FAILS(put(1, 2, 0, 0), ncclInvalidArgument, "peer 2 of 2");
    FAILS(put(1, 0, kCount * sizeof(int) - 3, 0), ncclInvalidArgument, "outside of the window");
    FAILS(put(1, 0, 0, 1), ncclInvalidArgument, "flags is 0x1");
    FAILS(put(std::numeric_limits<size_t>::max() / 2, 0, 0, 0), ncclInvalidArgument, "too large");
    FAILS(wait_for(-1, 0, comm), ncclInvalidArgument, "opCnt is -1");
    ncclWaitSignalDesc_t none{1, 0, 0, 0};
    FAILS(ncclWaitSignal(-1, &none, comm, nullptr), ncclInvalidArgument, "nDesc is -1");
    FAILS(ncclWaitSignal(1, nullptr, comm, nullptr), ncclInvalidArgument, "signalDescs is null");
  });
}

TEST(OneSided, AWaitEndsByTimeoutAndByAbort) {
  {
    Variable timeout("RAILCCL_TIMEOUT_MS", "300");
    Ranks ranks(2);
    ranks.each([](int, ncclComm_t comm) { Shared shared(comm); });
    FAILS(wait_for(1, 1, ranks.comm(0)), ncclRemoteError, "rank 1 has not sent the signals");
  }
  Ranks ranks(2);
  ranks.each([](int, ncclComm_t comm) { Shared shared(comm); });
  const ncclComm_t zero = ranks.take(0);
  std::thread waiting([zero] { EXPECT_EQ(wait_for(1, 1, zero), ncclRemoteError); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  OK(ncclCommAbort(zero));
  waiting.join();
}

}  // namespace
}  // namespace railccl::test
