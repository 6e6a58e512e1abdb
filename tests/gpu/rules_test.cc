// What else holds for buffers of GPUs: failures and aborts let streams go on, pinned memory is
// bounded and given back, and what is not supported is refused in words.
#include <sys/wait.h>
#include <unistd.h>

#include "../api/api_ranks.h"
#include "../runtime/free_port.h"
#include "gpu_parts.h"

// Of NCCL 2.31's interface, whose header has other structs under the names of this one's.
extern "C" ncclResult_t ncclSignal(int peer, int index, int context, unsigned flags,
                                   ncclComm_t comm, cudaStream_t stream);

namespace railccl::test {
namespace {

using Numbers = std::vector<int>;

/// Ends in bounded time, whatever the ranks of its calls do.
void expect_passes(const CudaStream& stream) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (cuStreamQuery(stream.handle()) != 0) {
    ASSERT_LT(std::chrono::steady_clock::now(), until) << "the stream still waits";
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(GpuRules, AbortFreesAStreamThatWaits) {
  for (const size_t count : {size_t{1000}, size_t{6} << 20}) {
    Ranks ranks(2);
    use_device(0);
    CudaStream stream;
    Buffer<int> in(count), out(count);
    for (int i = 0; i < 3; i++)
      OK(ncclAllReduce(in.data(), out.data(), count, ncclInt, ncclSum, ranks.comm(0), stream));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_NE(cuStreamQuery(stream.handle()), 0);
    OK(ncclCommAbort(ranks.take(0)));
    expect_passes(stream);
    OK(ncclCommAbort(ranks.take(1)));
  }
}

TEST(GpuRules, AbortBeforeTheStreamHasComeToTheCall) {
  for (const size_t count : {size_t{1000}, size_t{6} << 20}) {
    Ranks ranks(2);
    use_device(0);
    CudaStream stream;
    Buffer<int> in(count), out(count);
    Gate gate(stream.handle());
    OK(ncclAllReduce(in.data(), out.data(), count, ncclInt, ncclSum, ranks.comm(0), stream));
    OK(ncclCommAbort(ranks.take(0)));
    OK(ncclCommAbort(ranks.take(1)));
    // The stream still copies to the pinned memory of the communicator that is gone.
    gate.open();
    expect_passes(stream);
  }
  // Another one's first call gives back what was kept for that.
  Ranks ranks(1);
  use_device(0);
  CudaStream stream;
  Buffer<int> in(1);
  OK(ncclAllReduce(in.data(), in.data(), 1, ncclInt, ncclSum, ranks.comm(0), stream));
  stream.synchronize();
  if (fake_figures() == nullptr) return;
  fakeCudaFigures_t figures;
  fake_figures()(&figures);
  EXPECT_LE(figures.pinned, size_t{32} << 20);
}

TEST(GpuRules, FailuresAreToldAndLetStreamsGoOn) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    Buffer<int> in(1000), out(1000);
    const size_t count = rank == 0 ? 1000 : 999;
    OK(ncclAllReduce(in.data(), out.data(), count, ncclInt, ncclSum, comm, stream));
    expect_passes(stream);
    ncclResult_t state = ncclSuccess;
    while (state == ncclSuccess) OK(ncclCommGetAsyncError(comm, &state));
    EXPECT_EQ(state, ncclInvalidUsage);
    EXPECT_THAT(ncclGetLastError(comm), ::testing::HasSubstr("999"));
    EXPECT_NE(ncclAllReduce(in.data(), out.data(), 10, ncclInt, ncclSum, comm, stream),
              ncclSuccess);
  });
}

TEST(GpuRules, InterruptedCallsAreNotRepeated) {
  Ranks ranks(3);
  std::atomic<int> called{0};
  ranks.each([&](int rank, ncclComm_t comm) {
    use_device(rank);
    CudaStream stream;
    Buffer<int> in(1000), out(1000);
    if (rank == 2) {
      while (called < 2) std::this_thread::yield();
      OK(ncclCommAbort(ranks.take(2)));
      return;
    }
    OK(ncclAllReduce(in.data(), out.data(), 1000, ncclInt, ncclSum, comm, stream));
    called++;
    expect_passes(stream);
    // Refused: its buffers are no more for the host than those of one that began.
    EXPECT_NE(ncclAllReduce(in.data(), out.data(), 1000, ncclInt, ncclSum, comm, stream),
              ncclSuccess);
    ncclComm_t after = ranks.take(rank);
    railcclRecovery_t recovery = RAILCCL_RECOVERY_INITIALIZER;
    OK(railcclCommRecover(&after, RAILCCL_RECOVER_CALLS, &recovery));
    EXPECT_EQ(recovery.calls, railcclCallsSpoiled) << recovery.why;
    EXPECT_EQ(recovery.ranks, 2);
    in.set(Numbers(1000, rank + 1));
    OK(ncclAllReduce(in.data(), out.data(), 1000, ncclInt, ncclSum, after, stream));
    stream.synchronize();
    EXPECT_EQ(out.get(), Numbers(1000, 3));
    OK(ncclCommDestroy(after));
  });
}

TEST(GpuRules, PinnedMemoryIsBoundedAndGivenBack) {
  if (fake_figures() == nullptr) GTEST_SKIP() << "a real driver does not tell";
  fakeCudaFigures_t before, figures;
  fake_figures()(&before);
  {
    Ranks ranks(2);
    fake_figures()(&figures);
    EXPECT_EQ(figures.pinned, before.pinned) << "pinned before there was a call";
    ranks.each([&](int rank, ncclComm_t comm) {
      use_device(rank);
      CudaStream stream;
      constexpr size_t kCount = size_t{3} << 20;
      Buffer<int> in(kCount), out(kCount);
      in.set(Numbers(kCount, rank + 1));
      OK(ncclAllReduce(in.data(), out.data(), kCount, ncclInt, ncclSum, comm, stream));
      stream.synchronize();
      EXPECT_EQ(out.get(), Numbers(kCount, 3));
    });
  }
  fake_figures()(&figures);
  EXPECT_LE(figures.pinnedMost - before.pinned, size_t{2} * (32 << 20));
  EXPECT_EQ(figures.pinned, before.pinned);
  EXPECT_EQ(figures.pageableCopies, 0u) << "the driver would make the caller wait for these";
}

TEST(GpuRules, PinsWithTheCommunicatorWhereItsDeviceIsKnown) {
  if (fake_figures() == nullptr) GTEST_SKIP() << "a real driver does not tell";
  use_device(0);
  fakeCudaFigures_t before, made, after;
  fake_figures()(&before);
  ncclUniqueId id;
  ncclComm_t comm = nullptr;
  OK(ncclGetUniqueId(&id));
  OK(ncclCommInitRank(&comm, 1, id, 0));
  fake_figures()(&made);
  EXPECT_GT(made.pinned, before.pinned);
  CudaStream stream;
  Buffer<int> in(100);
  OK(ncclAllReduce(in.data(), in.data(), 100, ncclInt, ncclSum, comm, stream));
  stream.synchronize();
  fake_figures()(&after);
  EXPECT_EQ(after.pinned, made.pinned);
  OK(ncclCommDestroy(comm));
}

TEST(GpuRules, ThreadsWithoutAContextAreUnderstood) {
  use_device(0);
  ncclUniqueId id;
  ncclComm_t known = nullptr;
  OK(ncclGetUniqueId(&id));
  OK(ncclCommInitRank(&known, 1, id, 0));
  Ranks ranks(1);  // made by a thread that has none
  Buffer<int> in(100), out(100);
  in.set(Numbers(100, 7));
  std::thread([&] {
    int value = 3;
    for (const ncclComm_t comm : {known, ranks.comm(0)})
      OK(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, comm, nullptr));
    OK(ncclAllReduce(in.data(), out.data(), 100, ncclInt, ncclSum, known, nullptr));
    FAILS(ncclAllReduce(in.data(), out.data(), 100, ncclInt, ncclSum, ranks.comm(0), nullptr),
          ncclInvalidUsage, "no CUDA context is current");
  }).join();
  CU(cuStreamSynchronize(nullptr));
  EXPECT_EQ(out.get(), Numbers(100, 7));
  OK(ncclCommDestroy(known));
}

TEST(GpuRules, AllocatesWhereACudaContextIsCurrent) {
  void* memory = nullptr;
  CU(cuInit(0));
  CU(cuCtxSetCurrent(nullptr));
  OK(ncclMemAlloc(&memory, 100));
  static_cast<char*>(memory)[99] = 1;  // of the host: no context is current
  OK(ncclMemFree(memory));
  use_device(0);
  OK(ncclMemAlloc(&memory, 4000));
  Ranks ranks(1);
  CudaStream stream;
  Numbers values(1000, 5);
  CU(cuMemcpy(reinterpret_cast<uintptr_t>(memory), reinterpret_cast<uintptr_t>(values.data()),
              4000));
  void* handle = nullptr;
  OK(ncclCommRegister(ranks.comm(0), memory, 4000, &handle));
  OK(ncclAllReduce(memory, memory, 1000, ncclInt, ncclSum, ranks.comm(0), stream));
  stream.synchronize();
  OK(ncclCommDeregister(ranks.comm(0), handle));
  CU(cuCtxSetCurrent(nullptr));
  OK(ncclMemFree(memory));
  FAILS(ncclMemFree(memory), ncclInvalidArgument, "ncclMemAlloc");
}

TEST(GpuRules, WhatIsNotSupportedIsRefused) {
  Ranks ranks(1);
  const ncclComm_t comm = ranks.comm(0);
  use_device(0);
  CudaStream stream;
  Buffer<int> in(4096), out(10);
  ncclWindow_t window = nullptr;
  FAILS(ncclCommWindowRegister(comm, in.data(), 4096, &window, 0), ncclInvalidUsage,
        "memory of a GPU");
  FAILS(ncclSignal(0, 0, 0, 0, comm, stream), ncclInvalidUsage, "streams of CUDA");
  cudaStream_t ours = nullptr;
  OK(railcclStreamCreate(&ours));
  FAILS(ncclAllReduce(in.data(), out.data(), 10, ncclInt, ncclSum, comm, ours), ncclInvalidArgument,
        "orders work of the host only");
  OK(railcclStreamDestroy(ours));
  CU(cuStreamBeginCapture_v2(stream.handle(), 0));
  FAILS(ncclAllReduce(in.data(), out.data(), 10, ncclInt, ncclSum, comm, stream), ncclInvalidUsage,
        "graph");
  void* graph = nullptr;
  CU(cuStreamEndCapture(stream.handle(), &graph));
  Ranks others(1);  // whose first call it is
  CU(cuStreamBeginCapture_v2(stream.handle(), 0));
  FAILS(ncclAllReduce(in.data(), out.data(), 10, ncclInt, ncclSum, others.comm(0), stream),
        ncclInvalidUsage, "graph");
  CU(cuStreamEndCapture(stream.handle(), &graph));
  // The communicator is unharmed, and nothing was left in the graph.
  OK(ncclAllReduce(in.data(), out.data(), 10, ncclInt, ncclSum, comm, stream));
  stream.synchronize();
  if (fake_figures() == nullptr) return;
  fakeCudaFigures_t figures;
  fake_figures()(&figures);
  EXPECT_EQ(figures.callsWhileCapturing, 0u);
}

TEST(GpuRules, CommunicatorsAndMemoryAreMadeWhileSomebodyCaptures) {
  use_device(0);
  CudaStream captured, stream;
  Buffer<int> in(10);
  in.set(Numbers(10, 2));
  CU(cuStreamBeginCapture_v2(captured.handle(), 0));
  fakeCudaFigures_t before{}, after{};
  if (fake_figures() != nullptr) fake_figures()(&before);
  ncclUniqueId id;
  ncclComm_t comm = nullptr;
  OK(ncclGetUniqueId(&id));
  OK(ncclCommInitRank(&comm, 1, id, 0));
  if (fake_figures() != nullptr) {
    fake_figures()(&after);
    EXPECT_GT(after.pinned, before.pinned);
  }
  void* memory = nullptr;
  OK(ncclMemAlloc(&memory, 100));
  OK(ncclAllReduce(in.data(), in.data(), 10, ncclInt, ncclSum, comm, stream));
  stream.synchronize();
  OK(ncclMemFree(memory));
  OK(ncclCommDestroy(comm));
  void* graph = nullptr;
  CU(cuStreamEndCapture(captured.handle(), &graph));
  EXPECT_EQ(in.get(), Numbers(10, 2));
}

TEST(GpuRules, DriversThatCannotServeSayWhy) {
  if (fake_set() == nullptr) GTEST_SKIP() << "a real driver is what it is";
  Ranks ranks(1);
  const ncclComm_t comm = ranks.comm(0);
  use_device(0);
  CudaStream stream;
  Buffer<int> in(10);
  const auto reduce = [&] {
    return ncclAllReduce(in.data(), in.data(), 10, ncclInt, ncclSum, comm, stream);
  };
  fake_set()(11080, 1);
  FAILS(reduce(), ncclInvalidUsage, "supports CUDA 11.8, and 12.0 is needed");
  fake_set()(12040, 0);
  FAILS(reduce(), ncclInvalidUsage, "finds no device");
  fake_set()(12040, 1);
  CU(cuCtxSetCurrent(nullptr));
  FAILS(ncclAllReduce(in.data(), in.data(), 10, ncclInt, ncclSum, comm, nullptr), ncclInvalidUsage,
        "no CUDA context is current");
  use_device(0);
  OK(reduce());
  stream.synchronize();
  fake_set()(12040, 2);
}

TEST(GpuRules, AStreamOfAnotherDeviceIsRefusedByTheDriver) {
  int devices = 0;
  use_device(0);
  CU(cuDeviceGetCount(&devices));
  if (devices < 2) GTEST_SKIP() << "needs two devices";
  ncclUniqueId id;
  ncclComm_t comm = nullptr;
  OK(ncclGetUniqueId(&id));
  OK(ncclCommInitRank(&comm, 1, id, 0));
  Buffer<int> in(10);
  in.set(Numbers(10, 4));
  {
    use_device(1);
    CudaStream wrong;
    FAILS(ncclAllReduce(in.data(), in.data(), 10, ncclInt, ncclSum, comm, wrong),
          ncclUnhandledCudaError, "CUDA driver, cuStreamIsCapturing");
  }
  use_device(0);
  CudaStream right;
  OK(ncclAllReduce(in.data(), in.data(), 10, ncclInt, ncclSum, comm, right));
  right.synchronize();
  EXPECT_EQ(in.get(), Numbers(10, 4));
  OK(ncclCommDestroy(comm));
}

TEST(GpuRules, HostBuffersAreAsEver) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    int value = rank + 1;
    OK(ncclAllReduce(&value, &value, 1, ncclInt, ncclSum, comm, nullptr));
    EXPECT_EQ(value, 3);  // on return
  });
}

constexpr char kRank[] = "GPU_TEST_RANK", kPort[] = "GPU_TEST_PORT";
constexpr int kProcesses = 3;

/// Run by the next test, in processes of their own: a driver does not survive a fork.
TEST(GpuRules, OneProcess) {
  if (std::getenv(kRank) == nullptr) GTEST_SKIP() << "run by RanksInProcesses";
  const int rank = std::stoi(std::getenv(kRank));
  use_device(rank);
  ncclUniqueId id;
  OK(railcclGetUniqueIdAt("127.0.0.1", std::stoi(std::getenv(kPort)), "gpu", &id));
  ncclComm_t comm = nullptr;
  OK(ncclCommInitRank(&comm, kProcesses, id, rank));
  CudaStream stream;
  for (const size_t count : {size_t{1}, size_t{100'000}, size_t{3} << 20}) {
    Buffer<int> in(count), out(count);
    in.set(Numbers(count, rank + 1));
    OK(ncclAllReduce(in.data(), out.data(), count, ncclInt, ncclSum, comm, stream));
    stream.synchronize();
    EXPECT_EQ(out.get(), Numbers(count, 6));
  }
  OK(ncclCommDestroy(comm));
}

TEST(GpuRules, RanksInProcesses) {
  const std::string port = std::to_string(free_port());
  std::vector<pid_t> children;
  for (int rank = 0; rank < kProcesses; rank++) {
    const std::string number = std::to_string(rank);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::setenv(kRank, number.c_str(), 1);
      ::setenv(kPort, port.c_str(), 1);
      ::execl("/proc/self/exe", "test_gpu", "--gtest_filter=GpuRules.OneProcess", nullptr);
      ::_exit(127);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "see the child's output above";
  }
}

}  // namespace
}  // namespace railccl::test
