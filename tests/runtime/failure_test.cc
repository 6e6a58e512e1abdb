// Shows that what goes wrong ends in bounded time, everywhere, with a reason: ranks that call
// different things, aborts while waiting, ranks that come late or never, processes that are killed.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "ranks.h"

namespace railccl::test {
namespace {

using runtime::group_end;
using runtime::group_start;

struct Difference {
  const char* name;
  std::function<void(Request*)> change;  // what rank 1 calls instead
  std::string theirs;  // must be named, as must "all_reduce(count=1000, float, sum"
  uint64_t count = 1000;
};

void PrintTo(const Difference& difference, std::ostream* out) { *out << difference.name; }

class Differ : public ::testing::TestWithParam<Difference> {};

TEST_P(Differ, EveryRankGetsAnErrorThatNamesBothCalls) {
  for (const char* medium : {"NCCL_SHM_DISABLE=0", "NCCL_SHM_DISABLE=1"}) {
    with_communicator(
        3, settings_with({medium, "RAILCCL_STALL_MS=50"}),
        [&](const CommunicatorPtr& communicator) {
          const int ranks = communicator->size(), rank = communicator->rank();
          expect_exact(*communicator, sum_request(10));
          usleep(50'000);  // a failure of the next call must not find a rank still in this one
          Request request = sum_request(GetParam().count);
          if (rank == 1) GetParam().change(&request);
          Buffers buffers(request, ranks, rank);
          const int64_t start = now_ns();
          Status status = communicator->start(call_of(request, buffers), nullptr);
          // A rank whose part needs nothing from the others may be done early: the next call says.
          for (int i = 0; i < 3 && status.is_ok(); i++) {
            Buffers more(sum_request(5), ranks, rank);
            status = communicator->start(call_of(sum_request(5), more), nullptr);
          }
          ASSERT_FALSE(status.is_ok()) << "rank " << rank;
          EXPECT_EQ(status.code(), Code::mismatch) << status.text();
          EXPECT_NE(status.text().find("all_reduce(count=1000, float, sum)"), std::string::npos)
              << status.text();
          EXPECT_NE(status.text().find(GetParam().theirs), std::string::npos) << status.text();
          EXPECT_LT(now_ns() - start, 10'000'000'000);
          // From now on every call fails at once.
          const int64_t again = now_ns();
          Buffers more(sum_request(5), ranks, rank);
          EXPECT_FALSE(communicator->start(call_of(sum_request(5), more), nullptr).is_ok());
          EXPECT_FALSE(communicator->async_error().is_ok());
          EXPECT_LT(now_ns() - again, 1'000'000'000);
        });
  }
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, Differ,
    ::testing::Values(Difference{"Count", [](Request* r) { r->count = 1001; }, "count=1001"},
                      Difference{"Datatype", [](Request* r) { r->datatype = Datatype::int32; },
                                 "int32"},
                      Difference{"Operator", [](Request* r) { r->op = Reduction::max; }, "max"},
                      Difference{"Collective",
                                 [](Request* r) {
                                   r->collective = Collective::all_gather;
                                   r->op = Reduction::none;
                                 },
                                 "all_gather("},
                      Difference{"Rooted",
                                 [](Request* r) {
                                   r->collective = Collective::reduce;
                                   r->root = 1;
                                 },
                                 "reduce("}),
    [](const auto& row) { return row.param.name; });

TEST(Failure, DifferentRootsAreNamed) {
  with_communicator(3, settings_with({"RAILCCL_STALL_MS=50"}),
                    [&](const CommunicatorPtr& communicator) {
                      Request request = sum_request(1000, Collective::broadcast);
                      request.root = communicator->rank() == 2 ? 1 : 0;
                      Buffers buffers(request, 3, communicator->rank());
                      Status status = communicator->start(call_of(request, buffers), nullptr);
                      for (int i = 0; i < 3 && status.is_ok(); i++) {
                        Buffers more(sum_request(5), 3, communicator->rank());
                        status = communicator->start(call_of(sum_request(5), more), nullptr);
                      }
                      ASSERT_FALSE(status.is_ok());
                      // Ranks 0 and 1 agree and may be one call further when it comes out: then
                      // theirs is named by that call. The odd one out is named in any case.
                      EXPECT_NE(status.text().find("root=1"), std::string::npos) << status.text();
                    });
}

TEST(Failure, ASendAndAReceiveThatDoNotFitAreNamed) {
  with_communicator(2, settings_with(), [&](const CommunicatorPtr& communicator) {
    int32_t data[8] = {};
    Status status = communicator->rank() == 0 ? communicator->start(send_of(1, data, 4), nullptr)
                                              : communicator->start(recv_of(0, data, 8), nullptr);
    if (communicator->rank() == 0 && status.is_ok()) {  // the send was done: wait for the verdict
      const Deadline deadline = Deadline::after_ms(5000);
      while (communicator->async_error().is_ok() && !deadline.passed()) usleep(1000);
      status = communicator->async_error();
    }
    EXPECT_EQ(status.code(), Code::mismatch);
    EXPECT_NE(status.text().find("send(count=4, int32)"), std::string::npos) << status.text();
    EXPECT_NE(status.text().find("recv(count=8, int32)"), std::string::npos) << status.text();
  });
}

TEST(Failure, AbortEndsAWaitWithinASecond) {
  for (const char* medium : {"NCCL_SHM_DISABLE=0", "NCCL_SHM_DISABLE=1"}) {
    with_communicator(2, settings_with({medium}), [&](const CommunicatorPtr& communicator) {
      expect_exact(*communicator, sum_request(10));
      if (communicator->rank() == 1) {  // never makes the call
        const Deadline deadline = Deadline::after_ms(10000);
        while (communicator->async_error().is_ok() && !deadline.passed()) usleep(1000);
        EXPECT_EQ(communicator->async_error().code(), Code::aborted);
        return;
      }
      std::atomic<int64_t> aborted_at{0};
      std::thread other([&] {
        usleep(300'000);
        aborted_at = now_ns();
        communicator->abort("the test says so");
      });
      Buffers buffers(sum_request(1000), 2, 0);
      const Status status = communicator->start(call_of(sum_request(1000), buffers), nullptr);
      const int64_t ended = now_ns();
      other.join();
      EXPECT_EQ(status.code(), Code::aborted) << status.text();
      EXPECT_NE(status.text().find("the test says so"), std::string::npos) << status.text();
      EXPECT_LT(ended - aborted_at, 1'000'000'000);
    });
  }
}

TEST(Failure, AbortEndsAJoinThatWaits) {
  const Settings settings = settings_with();
  auto id = runtime::make_unique_id(settings);
  ASSERT_TRUE(id.is_ok());
  Config config;
  config.blocking = false;
  auto joined = Communicator::join(*id, 0, 2, config, settings);
  ASSERT_TRUE(joined.is_ok());
  usleep(50'000);
  EXPECT_TRUE((*joined)->in_progress());
  (*joined)->abort("enough");
  const Deadline deadline = Deadline::after_ms(1000);
  while ((*joined)->in_progress() && !deadline.passed()) usleep(1000);
  EXPECT_FALSE((*joined)->in_progress());
  EXPECT_EQ((*joined)->async_error().code(), Code::aborted);
}

TEST(Failure, ALateRankIsWaitedForAndStallsAreNoFailure) {
  with_communicator(3, settings_with({"RAILCCL_STALL_MS=20"}),
                    [&](const CommunicatorPtr& communicator) {
                      if (communicator->rank() == 1) usleep(400'000);
                      expect_exact(*communicator, sum_request(1000));
                    });
}

TEST(Failure, AnAbsentRankIsATimeoutThatNamesIt) {
  with_communicator(
      3, settings_with({"RAILCCL_STALL_MS=50", "RAILCCL_TIMEOUT_MS=600"}),
      [&](const CommunicatorPtr& communicator) {
        if (communicator->rank() == 2) {
          const Deadline deadline = Deadline::after_ms(10000);
          while (communicator->async_error().is_ok() && !deadline.passed()) usleep(1000);
          EXPECT_FALSE(communicator->async_error().is_ok());
          return;
        }
        Buffers buffers(sum_request(100), 3, communicator->rank());
        const Status status = communicator->start(call_of(sum_request(100), buffers), nullptr);
        EXPECT_EQ(status.code(), Code::timeout) << status.text();
        EXPECT_NE(status.text().find("all_reduce(count=100"), std::string::npos) << status.text();
        EXPECT_NE(status.text().find("rank 2"), std::string::npos) << status.text();
      });
}

TEST(Failure, FinalizeRefusesLaterCalls) {
  with_communicator(2, settings_with(), [&](const CommunicatorPtr& communicator) {
    expect_exact(*communicator, sum_request(10));
    EXPECT_TRUE(communicator->finalize().is_ok());
    EXPECT_TRUE(communicator->finalize().is_ok());
    Buffers buffers(sum_request(10), 2, communicator->rank());
    EXPECT_EQ(communicator->start(call_of(sum_request(10), buffers), nullptr).code(),
              Code::invalid_usage);
  });
}

TEST(Failure, AKilledProcessIsNoticedByAllOthers) {
  for (const std::string medium : {"NCCL_SHM_DISABLE=0", "NCCL_SHM_DISABLE=1"}) {
    const Settings settings = settings_with({medium, "RAILCCL_INIT_TIMEOUT_MS=20000"});
    auto id = runtime::unique_id_at("127.0.0.1", free_port(), "kill");
    ASSERT_TRUE(id.is_ok()) << id.status().text();
    std::vector<pid_t> children;
    for (int r = 0; r < 3; r++) {
      const pid_t child = fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        auto joined = Communicator::join(*id, r, 3, {}, settings);
        if (!joined.is_ok()) _exit(10);
        Buffers first(sum_request(1000), 3, r);
        if (!(*joined)->start(call_of(sum_request(1000), first), nullptr).is_ok()) _exit(11);
        usleep(100'000);  // everyone is through with the first call
        if (r == 2) raise(SIGKILL);
        Buffers second(sum_request(100000), 3, r);
        const Status status = (*joined)->start(call_of(sum_request(100000), second), nullptr);
        if (status.is_ok()) _exit(12);
        _exit(status.text().find("rank 2") == std::string::npos ? 13 : 0);
      }
      children.push_back(child);
    }
    const Deadline deadline = Deadline::after_ms(30000);
    for (size_t r = 0; r < children.size(); r++) {
      int state = 0;
      pid_t got = 0;
      while ((got = waitpid(children[r], &state, WNOHANG)) == 0 && !deadline.passed()) usleep(2000);
      if (got == 0) {
        kill(children[r], SIGKILL);
        waitpid(children[r], &state, 0);
        ADD_FAILURE() << "rank " << r << " still waits";
      } else if (r < 2) {
        EXPECT_TRUE(WIFEXITED(state)) << "rank " << r;
        EXPECT_EQ(WEXITSTATUS(state), 0) << "rank " << r;
      }
    }
  }
}

}  // namespace
}  // namespace railccl::test
