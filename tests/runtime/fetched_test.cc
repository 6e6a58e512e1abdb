// Fetched buffers: collectives in which the system copies out of other processes' memory. Shown,
// with processes and threads of them: exact results of every collective, type and operator that is
// served so, in and out of place; beside open buffers; every rank's own factor; and that all ranks
// go the ordinary way together where one of them may not fetch.
#include <gmock/gmock.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>

#include "processes.h"
#include "transport/memory_file.h"

namespace railccl::test {
namespace {

using ::testing::HasSubstr;
using transport::MemoryFile;

const std::vector<std::string> kFetched = {"RAILCCL_OPEN_SIZE=0", "NCCL_ALGO=fetched"};

bool is_fetched(Collective collective) {
  return algorithms::find(collective, "fetched") != nullptr;
}

/// Random calls of every collective, the same on all ranks.
void expect_all_fetched(Communicator& communicator, int rounds) {
  Random random(5);
  for (int round = 0; round < rounds; round++)
    for (int c = 0; c < kCollectiveCount; c++) {
      const auto collective = static_cast<Collective>(c);
      const Request request =
          random_request(random, collective, communicator.size(), round % 2 == 0 ? 400000 : 3000);
      if (!is_fetched(collective) || request.count == 0) continue;
      expect_exact(communicator, request);
      if (testing::Test::HasFailure()) return;
      ASSERT_EQ(communicator.last_choice().algorithm, "fetched") << plan::text_of(request);
    }
}

TEST(Fetched, EveryCollectiveThatIsServedSo) {
  RAILCCL_SKIP_FORKS();
  EXPECT_TRUE(is_fetched(Collective::all_gather));
  for (const int ranks : {2, 3, 5}) {
    with_processes(ranks, 1, settings_with(kFetched), [](const CommunicatorPtr& communicator) {
      expect_all_fetched(*communicator, 6);
    });
    if (HasFailure()) return;
  }
}

TEST(Fetched, ThreadsOfSeveralProcesses) {
  RAILCCL_SKIP_FORKS();
  with_processes(2, 2, settings_with(kFetched),
                 [](const CommunicatorPtr& communicator) { expect_all_fetched(*communicator, 6); });
}

TEST(Fetched, ThePlansThatRunAreProven) {
  RAILCCL_SKIP_FORKS();
  with_processes(3, 1, settings_with({"RAILCCL_OPEN_SIZE=0", "RAILCCL_CHECK_PLANS=1"}),
                 [](const CommunicatorPtr& communicator) {
                   for (int c = 0; c < kCollectiveCount; c++)
                     expect_exact(*communicator, sum_request(500000, static_cast<Collective>(c)));
                 });
}

TEST(Fetched, AlsoBesideOpenBuffers) {
  RAILCCL_SKIP_FORKS();
  with_processes(3, 1, settings_with(kFetched), [](const CommunicatorPtr& communicator) {
    constexpr size_t kCount = 100000;
    const int rank = communicator->rank();
    auto memory = MemoryFile::create(4 * kCount * sizeof(float));
    ASSERT_TRUE(memory.is_ok()) << memory.status().text();
    std::vector<float> ordinary(4 * kCount);
    for (const bool open : {rank == 1, rank != 1, true, false}) {
      float* const input = open ? reinterpret_cast<float*>((*memory)->data()) : ordinary.data();
      float* const output = input + kCount;
      std::fill_n(input, kCount, static_cast<float>(rank + 1));
      Call call;
      call.request = sum_request(kCount, Collective::all_gather);
      call.input = input;
      call.output = output;
      const Status status = communicator->start(call, nullptr);
      ASSERT_TRUE(status.is_ok()) << status.text();
      EXPECT_EQ(communicator->last_choice().algorithm, "fetched");
      for (size_t i = 0; i < 3 * kCount; i++)
        ASSERT_EQ(output[i], static_cast<float>(1 + i / kCount)) << i;
    }
    MemoryFile::release((*memory)->data());
  });
}

/// Makes process_vm_readv() fail in this process from here on.
void forbid_fetching() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {std::size(program), program};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter), 0);
}

TEST(Fetched, WhereOneRankMayNotAllGoTheOrdinaryWay) {
  RAILCCL_SKIP_FORKS();
  with_processes(3, 1, settings_with({"RAILCCL_OPEN_SIZE=0"}),
                 [](const CommunicatorPtr& communicator) {
                   if (communicator->rank() == 2) forbid_fetching();
                   for (const uint64_t count : {100, 30000, 1000000}) {
                     expect_exact(*communicator, sum_request(count, Collective::all_gather));
                     EXPECT_NE(communicator->last_choice().algorithm, "fetched");
                   }
                 });
}

}  // namespace
}  // namespace railccl::test
