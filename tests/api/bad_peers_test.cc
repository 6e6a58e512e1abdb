// Shows that ranks that do not fit together, never come or are none of ours, are errors that name
// who and what, on all ranks alike: the other half of bad_input_test.cc.
#include <gmock/gmock.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "api_ranks.h"
#include "runtime/control.h"
#include "runtime/rendezvous_wire.h"
#include "runtime/sockets.h"

namespace railccl::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

float in[64], out[64];

TEST(BadInput, StrangerAtTheRendezvous) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  runtime::UniqueId bytes;
  std::memcpy(bytes.data(), &id, sizeof id);
  const auto doors = runtime::parse_endpoints(runtime::parse_identity(bytes)->place);
  std::vector<UniqueFd> strangers;
  for (const std::string& speech :
       {std::string(), std::string("GET / HTTP/1.1\r\n\r\n"), std::string(4096, '\xff'),
        std::string("\x40\0\0\0\0\0\0\0", 8) + std::string(64, 'x')}) {
    auto socket = runtime::connect_to(doors->front(), {Deadline::after_ms(2000), nullptr});
    ASSERT_TRUE(socket.is_ok()) << socket.status().text();
    ASSERT_EQ(::send(socket->get(), speech.data(), speech.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(speech.size()));
    strangers.push_back(std::move(socket).value());
  }
  on_threads(3, [&](int rank) {
    ncclComm_t comm;
    OK(ncclCommInitRank(&comm, 3, id, rank));
    OK(ncclCommDestroy(comm));
  });
}

TEST(BadInput, RankThatNeverArrives) {
  const Variable timeout("RAILCCL_INIT_TIMEOUT_MS", "400");
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  const auto start = std::chrono::steady_clock::now();
  on_threads(2, [&](int rank) {
    ncclComm_t comm;
    FAILS(ncclCommInitRank(&comm, 4, id, rank == 0 ? 0 : 2), ncclRemoteError,
          "ms ranks 1, 3 of 4 have not arrived");
  });
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(3));
}

TEST(BadInput, RankThatArrivesTwice) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  std::atomic<int> made{0}, refused{0};
  on_threads(3, [&](int i) {
    ncclComm_t comm;
    const ncclResult_t result = ncclCommInitRank(&comm, 2, id, i == 0 ? 0 : 1);
    if (result == ncclSuccess) {
      made++;
      OK(ncclCommDestroy(comm));
    } else {
      refused++;
      // The second may also come when the meeting is over.
      EXPECT_THAT(
          ncclGetLastError(nullptr),
          ::testing::AnyOf(HasSubstr("there is a rank 1 already"), HasSubstr("have met already")));
    }
  });
  EXPECT_EQ(made, 2);
  EXPECT_EQ(refused, 1);
}

TEST(BadInput, RanksThatDisagreeOnTheirNumber) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  on_threads(2, [&](int rank) {
    ncclComm_t comm;
    FAILS(ncclCommInitRank(&comm, rank == 0 ? 3 : 4, id, rank), ncclInvalidUsage, "says");
  });
}

/// Both ranks' calls must fail with a text that names both.
template <typename First, typename Second>
void expect_mismatch(const First& first, const Second& second, const char* a, const char* b) {
  Ranks ranks(2);
  ranks.each([&](int rank, ncclComm_t comm) {
    const auto start = std::chrono::steady_clock::now();
    const ncclResult_t result = rank == 0 ? first(comm) : second(comm);
    // A rank that was done before the other noticed learns it from the communicator.
    ncclResult_t state = result;
    while (state == ncclSuccess &&
           std::chrono::steady_clock::now() - start < std::chrono::seconds(5)) {
      ASSERT_EQ(ncclCommGetAsyncError(comm, &state), ncclSuccess);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_NE(state, ncclSuccess) << "rank " << rank;
    EXPECT_THAT(std::string(ncclGetLastError(comm)), AllOf(HasSubstr(a), HasSubstr(b)))
        << "rank " << rank;
  });
}

TEST(BadInput, MismatchedCount) {
  expect_mismatch(
      [](ncclComm_t c) { return ncclAllReduce(in, out, 8, ncclFloat, ncclSum, c, nullptr); },
      [](ncclComm_t c) {
        float mine[64] = {}, result[64];
        return ncclAllReduce(mine, result, 9, ncclFloat, ncclSum, c, nullptr);
      },
      "count=8", "count=9");
}

TEST(BadInput, MismatchedDatatype) {
  expect_mismatch(
      [](ncclComm_t c) { return ncclAllReduce(in, out, 8, ncclFloat, ncclSum, c, nullptr); },
      [](ncclComm_t c) {
        double mine[8] = {}, result[8];
        return ncclAllReduce(mine, result, 8, ncclDouble, ncclSum, c, nullptr);
      },
      "float", "double");
}

TEST(BadInput, MismatchedOperator) {
  expect_mismatch(
      [](ncclComm_t c) { return ncclAllReduce(in, out, 8, ncclFloat, ncclSum, c, nullptr); },
      [](ncclComm_t c) {
        float mine[64] = {}, result[64];
        return ncclAllReduce(mine, result, 8, ncclFloat, ncclMax, c, nullptr);
      },
      "sum", "max");
}

TEST(BadInput, MismatchedRoot) {
  expect_mismatch(
      [](ncclComm_t c) { return ncclReduce(in, out, 8, ncclFloat, ncclSum, 0, c, nullptr); },
      [](ncclComm_t c) {
        float mine[64] = {}, result[64];
        return ncclReduce(mine, result, 8, ncclFloat, ncclSum, 1, c, nullptr);
      },
      "root=0", "root=1");
}

TEST(BadInput, MismatchedCollective) {
  expect_mismatch(
      [](ncclComm_t c) { return ncclAllReduce(in, out, 8, ncclFloat, ncclSum, c, nullptr); },
      [](ncclComm_t c) {
        float mine[64] = {}, result[64];
        return ncclAllGather(mine, result, 8, ncclFloat, c, nullptr);
      },
      "all_reduce", "all_gather");
}

TEST(BadInput, MismatchedOrder) {
  expect_mismatch(
      [](ncclComm_t c) {
        const ncclResult_t first = ncclAllReduce(in, out, 8, ncclFloat, ncclSum, c, nullptr);
        return first != ncclSuccess ? first : ncclBcast(in, 8, ncclFloat, 0, c, nullptr);
      },
      [](ncclComm_t c) {
        float mine[64] = {}, result[64];
        const ncclResult_t first = ncclBcast(mine, 8, ncclFloat, 0, c, nullptr);
        return first != ncclSuccess
                   ? first
                   : ncclAllReduce(mine, result, 8, ncclFloat, ncclSum, c, nullptr);
      },
      "all_reduce", "broadcast");
}

TEST(BadInput, MismatchedSendAndReceive) {
  expect_mismatch([](ncclComm_t c) { return ncclSend(in, 8, ncclFloat, 1, c, nullptr); },
                  [](ncclComm_t c) {
                    float mine[64];
                    return ncclRecv(mine, 9, ncclFloat, 0, c, nullptr);
                  },
                  "count=8", "count=9");
}

/// A control tree of two in which rank 1 is only a socket.
struct Tree {
  std::shared_ptr<runtime::Control> control;
  std::vector<runtime::Neighbour> other;
};
Tree control_tree() {
  Settings settings;
  const auto id = runtime::make_unique_id(settings);
  Tree tree;
  on_threads(2, [&](int rank) {
    auto meeting = runtime::Meeting::join(*id, rank, 2, settings, nullptr);
    ASSERT_TRUE(meeting.is_ok()) << meeting.status().text();
    if (rank == 1)
      tree.other = (*meeting)->take_neighbours();
    else
      tree.control = *runtime::Control::start(std::move(meeting).value(), settings, nullptr);
  });
  return tree;
}

std::string verdict_after(const std::string& bytes, bool close) {
  Tree tree = control_tree();
  EXPECT_EQ(::send(tree.other[0].socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
  if (close) tree.other.clear();
  const Deadline deadline = Deadline::after_ms(3000);
  while (!tree.control->failed() && !deadline.passed())
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const std::string text = tree.control->verdict().text();
  tree.control->leave();
  return text;
}

TEST(BadInput, TruncatedControlMessage) {
  EXPECT_THAT(verdict_after(std::string("\x40\0\0\0\0\0\0\0half", 12), true),
              HasSubstr("rank 1 vanished"));
  EXPECT_THAT(verdict_after(std::string("\x04\0\0\0\0\0\0\0half", 12), false),
              AllOf(HasSubstr("rank 1 sent nonsense"), HasSubstr("malformed control message")));
}

TEST(BadInput, OversizedControlMessage) {
  EXPECT_THAT(verdict_after(std::string(8, '\x7f'), false),
              AllOf(HasSubstr("rank 1 sent nonsense"), HasSubstr("are allowed")));
}

}  // namespace
}  // namespace railccl::test
