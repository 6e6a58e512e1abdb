// Shows that bad input is an error that names what is wrong, never a crash, a hang or wrong data:
// one test per row of docs/errors.md, which must list exactly these tests and those of
// bad_peers_test.cc.
#include <gmock/gmock.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <limits>
#include <set>
#include <string>
#include <thread>

#include "api_ranks.h"

namespace railccl::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

float in[64], out[64];

TEST(BadInput, NullCommunicator) {
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, ncclSum, nullptr, nullptr), ncclInvalidArgument,
        "ncclAllReduce: the communicator is null");
  int count;
  FAILS(ncclCommCount(nullptr, &count), ncclInvalidArgument, "the communicator is null");
  ncclComm_t part;
  FAILS(ncclCommSplit(nullptr, 0, 0, &part, nullptr), ncclInvalidArgument, "is null");
  FAILS(ncclCommFinalize(nullptr), ncclInvalidArgument, "is null");
}

TEST(BadInput, StaleCommunicator) {
  Ranks ranks(1);
  const ncclComm_t stale = ranks.take(0);
  OK(ncclCommDestroy(stale));
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, ncclSum, stale, nullptr), ncclInvalidArgument,
        "not valid: destroyed, aborted or never made");
  FAILS(ncclCommDestroy(stale), ncclInvalidArgument, "not valid");
  FAILS(ncclCommAbort(stale), ncclInvalidArgument, "not valid");
}

TEST(BadInput, GarbageCommunicator) {
  alignas(64) char memory[4096] = {};
  FAILS(
      ncclAllReduce(in, out, 1, ncclFloat, ncclSum, reinterpret_cast<ncclComm_t>(memory), nullptr),
      ncclInvalidArgument, "not valid");
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, ncclSum, reinterpret_cast<ncclComm_t>(memory + 1),
                      nullptr),
        ncclInvalidArgument, "garbage");
}

TEST(BadInput, NullBuffers) {
  Ranks ranks(1);
  const ncclComm_t comm = ranks.comm(0);
  FAILS(ncclAllReduce(nullptr, out, 1, ncclFloat, ncclSum, comm, nullptr), ncclInvalidArgument,
        "sendbuff is null");
  FAILS(ncclAllReduce(in, nullptr, 1, ncclFloat, ncclSum, comm, nullptr), ncclInvalidArgument,
        "recvbuff is null");
  FAILS(ncclBcast(nullptr, 1, ncclFloat, 0, comm, nullptr), ncclInvalidArgument, "is null");
  FAILS(ncclSend(nullptr, 1, ncclFloat, 0, comm, nullptr), ncclInvalidArgument, "sendbuff");
  FAILS(ncclRecv(nullptr, 1, ncclFloat, 0, comm, nullptr), ncclInvalidArgument, "recvbuff");
  OK(ncclAllReduce(nullptr, nullptr, 0, ncclFloat, ncclSum, comm, nullptr));
}

TEST(BadInput, NullResults) {
  Ranks ranks(1);
  const ncclComm_t comm = ranks.comm(0);
  ncclUniqueId id{};
  FAILS(ncclGetVersion(nullptr), ncclInvalidArgument, "version is null");
  FAILS(ncclGetUniqueId(nullptr), ncclInvalidArgument, "uniqueId is null");
  FAILS(ncclCommInitRank(nullptr, 1, id, 0), ncclInvalidArgument, "comm is null");
  FAILS(ncclCommInitAll(nullptr, 1, nullptr), ncclInvalidArgument, "comm is null");
  FAILS(ncclCommCount(comm, nullptr), ncclInvalidArgument, "count is null");
  FAILS(ncclCommUserRank(comm, nullptr), ncclInvalidArgument, "rank is null");
  FAILS(ncclCommCuDevice(comm, nullptr), ncclInvalidArgument, "device is null");
  FAILS(ncclCommGetAsyncError(comm, nullptr), ncclInvalidArgument, "asyncError is null");
  FAILS(ncclCommSplit(comm, 0, 0, nullptr, nullptr), ncclInvalidArgument, "newcomm is null");
  FAILS(ncclMemAlloc(nullptr, 1), ncclInvalidArgument, "ptr is null");
  FAILS(ncclGroupStart() == ncclSuccess ? ncclGroupSimulateEnd(nullptr) : ncclSuccess,
        ncclInvalidArgument, "simInfo is null");
  FAILS(railcclStreamCreate(nullptr), ncclInvalidArgument, "stream is null");
  FAILS(railcclCommLastChoice(comm, nullptr), ncclInvalidArgument, "choice is null");
  FAILS(railcclCommMeeting(comm, nullptr), ncclInvalidArgument, "meeting is null");
  FAILS(railcclCommPaths(comm, nullptr, 10, nullptr), ncclInvalidArgument, "text is null");
  char text[1];
  FAILS(railcclCommPaths(comm, text, 0, nullptr), ncclInvalidArgument, "size is 0");
}

TEST(BadInput, CountOverflow) {
  Ranks ranks(2);
  const size_t most = std::numeric_limits<size_t>::max();
  for (const size_t count : {most, most / 2, most / 4, most / 16})
    FAILS(ncclAllGather(in, out, count, ncclDouble, ranks.comm(0), nullptr), ncclInvalidArgument,
          "is too large");
}

TEST(BadInput, Datatype) {
  Ranks ranks(1);
  FAILS(ncclAllReduce(in, out, 1, ncclNumTypes, ncclSum, ranks.comm(0), nullptr),
        ncclInvalidArgument, "12 is no datatype");
}

TEST(BadInput, Operator) {
  Ranks ranks(1);
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, ncclNumOps, ranks.comm(0), nullptr),
        ncclInvalidArgument, "5 is no reduction operator of this communicator");
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, ncclMaxRedOp, ranks.comm(0), nullptr),
        ncclInvalidArgument, "is no reduction operator");
  FAILS(ncclRedOpDestroy(ncclSum, ranks.comm(0)), ncclInvalidArgument, "built in");
}

TEST(BadInput, MadeOperatorMisused) {
  Ranks ranks(1);
  const ncclComm_t comm = ranks.comm(0);
  ncclRedOp_t op;
  float factor = 2;
  FAILS(ncclRedOpCreatePreMulSum(&op, nullptr, ncclFloat, ncclScalarHostImmediate, comm),
        ncclInvalidArgument, "scalar is null");
  OK(ncclRedOpCreatePreMulSum(&op, &factor, ncclFloat, ncclScalarHostImmediate, comm));
  FAILS(ncclAllReduce(in, out, 1, ncclDouble, op, comm, nullptr), ncclInvalidArgument,
        "was made for float, but the call has double");
  OK(ncclRedOpDestroy(op, comm));
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, op, comm, nullptr), ncclInvalidArgument,
        "made elsewhere, or destroyed");
  FAILS(ncclRedOpDestroy(op, comm), ncclInvalidArgument, "is no reduction operator");
}

TEST(BadInput, Root) {
  Ranks ranks(1);
  for (const int root : {-1, 1, 1 << 30})
    FAILS(ncclBroadcast(in, out, 1, ncclFloat, root, ranks.comm(0), nullptr), ncclInvalidArgument,
          "is no rank");
}

TEST(BadInput, Peer) {
  Ranks ranks(1);
  for (const int peer : {-1, 1})
    FAILS(ncclSend(in, 1, ncclFloat, peer, ranks.comm(0), nullptr), ncclInvalidArgument,
          "is no rank");
  FAILS(ncclSend(in, 1, ncclFloat, 0, ranks.comm(0), nullptr), ncclInvalidUsage, "itself");
}

TEST(BadInput, OverlappingBuffers) {
  Ranks ranks(2);
  FAILS(ncclAllReduce(in, in + 1, 8, ncclFloat, ncclSum, ranks.comm(0), nullptr),
        ncclInvalidArgument, "overlap, but not as an in-place all_reduce has them");
  FAILS(ncclAllGather(in, in, 8, ncclFloat, ranks.comm(1), nullptr), ncclInvalidArgument,
        "overlap");
  FAILS(ncclAlltoAll(in, in, 8, ncclFloat, ranks.comm(0), nullptr), ncclInvalidArgument, "overlap");
}

TEST(BadInput, ForeignStream) {
  Ranks ranks(1);
  int not_a_stream = 0;
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, ncclSum, ranks.comm(0),
                      reinterpret_cast<cudaStream_t>(&not_a_stream)),
        ncclInvalidArgument, "was not made by railcclStreamCreate");
  FAILS(railcclStreamSynchronize(reinterpret_cast<cudaStream_t>(&not_a_stream)),
        ncclInvalidArgument, "was not made by railcclStreamCreate");
}

TEST(BadInput, RankOrNumberOfRanks) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm;
  FAILS(ncclCommInitRank(&comm, 0, id, 0), ncclInvalidArgument, "nranks is 0");
  FAILS(ncclCommInitRank(&comm, 2, id, 2), ncclInvalidArgument, "rank is 2");
  FAILS(ncclCommInitRank(&comm, 2, id, -1), ncclInvalidArgument, "rank is -1");
  FAILS(ncclCommInitAll(&comm, 0, nullptr), ncclInvalidArgument, "ndev is 0");
  const int twice[] = {1, 1};
  ncclComm_t comms[2];
  FAILS(ncclCommInitAll(comms, 2, twice), ncclInvalidArgument, "given twice");
  FAILS(ncclCommInitRankScalable(&comm, 2, 0, 3, &id, nullptr), ncclInvalidArgument, "nId is 3");
}

TEST(BadInput, Config) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm;
  ncclConfig_t config;
  std::memset(&config, 0x55, sizeof config);
  FAILS(ncclCommInitRankConfig(&comm, 1, id, 0, &config), ncclInvalidArgument,
        "config was not set to its initializer");
  config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 2;
  FAILS(ncclCommInitRankConfig(&comm, 1, id, 0, &config), ncclInvalidArgument,
        "config.blocking is 2");
  config = NCCL_CONFIG_INITIALIZER;
  config.minCTAs = 8;
  config.maxCTAs = 4;
  FAILS(ncclCommInitRankConfig(&comm, 1, id, 0, &config), ncclInvalidArgument,
        "config.minCTAs (8) is above config.maxCTAs (4)");
  ncclSimInfo_t info = NCCL_SIM_INFO_INITIALIZER;
  info.magic = 1;
  OK(ncclGroupStart());
  FAILS(ncclGroupSimulateEnd(&info), ncclInvalidArgument, "simInfo was not set");
}

TEST(BadInput, GarbageUniqueId) {
  ncclUniqueId id;
  std::memset(&id, 'x', sizeof id);
  ncclComm_t comm = reinterpret_cast<ncclComm_t>(8);
  FAILS(ncclCommInitRank(&comm, 2, id, 0), ncclInvalidArgument, "not a unique id");
  EXPECT_EQ(comm, nullptr);
  OK(ncclGetUniqueId(&id));
  id.internal[127] = 1;
  FAILS(ncclCommInitRank(&comm, 2, id, 0), ncclInvalidArgument, "damaged unique id");
}

TEST(BadInput, UsedUniqueId) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm, again;
  OK(ncclCommInitRank(&comm, 1, id, 0));
  FAILS(ncclCommInitRank(&again, 1, id, 0), ncclRemoteError, "have met already");
  OK(ncclCommDestroy(comm));
}

TEST(BadInput, UniqueIdOfAnotherMeeting) {
  const int port = 24683;
  ncclUniqueId right, wrong;
  OK(railcclGetUniqueIdAt("127.0.0.1", port, "right", &right));
  OK(railcclGetUniqueIdAt("127.0.0.1", port, "wrong", &wrong));
  std::thread zero([&] {
    ncclComm_t comm;
    OK(ncclCommInitRank(&comm, 2, right, 0));
    OK(ncclCommDestroy(comm));
  });
  ncclComm_t comm;
  FAILS(ncclCommInitRank(&comm, 2, wrong, 1), ncclInvalidArgument, "belongs to another meeting");
  OK(ncclCommInitRank(&comm, 2, right, 1));
  zero.join();
  OK(ncclCommDestroy(comm));
}

TEST(BadInput, MeetingPlace) {
  ncclUniqueId id;
  FAILS(railcclGetUniqueIdAt(nullptr, 1, "", &id), ncclInvalidArgument, "host is null");
  FAILS(railcclGetUniqueIdAt("host", 65536, "", &id), ncclInvalidArgument, "port is 65536");
  FAILS(railcclGetUniqueIdAt(std::string(200, 'x').c_str(), 1, "", &id), ncclInvalidArgument,
        "longer than a unique id can hold");
}

TEST(BadInput, Groups) {
  FAILS(ncclGroupEnd(), ncclInvalidUsage, "was not started");
  Ranks ranks(1);
  float result = 7, value = 1;
  OK(ncclGroupStart());
  OK(ncclAllReduce(&value, &result, 1, ncclFloat, ncclSum, ranks.comm(0), nullptr));
  FAILS(ncclBcast(&value, 1, ncclFloat, 5, ranks.comm(0), nullptr), ncclInvalidArgument, "root 5");
  FAILS(ncclGroupEnd(), ncclInvalidArgument, "the group did not run");
  EXPECT_EQ(result, 7) << "nothing of a refused group runs";
  OK(ncclAllReduce(&value, &result, 1, ncclFloat, ncclSum, ranks.comm(0), nullptr));
}

TEST(BadInput, CallAfterFinalize) {
  Ranks ranks(1);
  OK(ncclCommFinalize(ranks.comm(0)));
  FAILS(ncclAllReduce(in, out, 1, ncclFloat, ncclSum, ranks.comm(0), nullptr), ncclInvalidUsage,
        "was finalized");
  FAILS(ncclCommFinalize(ranks.comm(0)), ncclInvalidUsage, "was finalized before");
}

TEST(BadInput, SplitAndShrink) {
  Ranks ranks(2);
  ncclComm_t part;
  FAILS(ncclCommSplit(ranks.comm(0), -5, 0, &part, nullptr), ncclInvalidArgument, "color is -5");
  int excluded[] = {1, 1};
  FAILS(ncclCommShrink(ranks.comm(0), excluded, 0, &part, nullptr, 0), ncclInvalidArgument,
        "excludeRanksCount is 0");
  FAILS(ncclCommShrink(ranks.comm(0), excluded, 2, &part, nullptr, 0), ncclInvalidArgument,
        "excludeRanksCount is 2");
  FAILS(ncclCommShrink(ranks.comm(1), excluded, 1, &part, nullptr, 0), ncclInvalidUsage,
        "must not call");
  FAILS(ncclCommShrink(ranks.comm(0), excluded, 1, &part, nullptr, 8), ncclInvalidArgument,
        "shrinkFlags");
  FAILS(ncclCommRevoke(ranks.comm(0), 1), ncclInvalidArgument, "revokeFlags");
}

TEST(BadInput, Recovery) {
  Ranks ranks(1);
  ncclComm_t comm = ranks.comm(0), none = nullptr;
  railcclRecovery_t recovery = RAILCCL_RECOVERY_INITIALIZER, garbage = {};
  FAILS(railcclCommRecover(nullptr, 0, &recovery), ncclInvalidArgument, "comm is null");
  FAILS(railcclCommRecover(&none, 0, &recovery), ncclInvalidArgument, "the communicator is null");
  FAILS(railcclCommRecover(&comm, 4, &recovery), ncclInvalidArgument, "flags is 0x4");
  FAILS(railcclCommRecover(&comm, 0, &garbage), ncclInvalidArgument, "initializer");
  FAILS(railcclCommRecover(&comm, 0, &recovery), ncclInvalidUsage, "nobody to recover with");
  EXPECT_EQ(comm, ranks.comm(0)) << "untouched";
  OK(ncclGroupStart());
  FAILS(railcclCommRecover(&comm, 0, &recovery), ncclInvalidUsage, "group");
  OK(ncclGroupEnd());
  int lost = 0, count = -1;
  FAILS(railcclCommLost(comm, &lost, -1, &count), ncclInvalidArgument, "size is -1");
  FAILS(railcclCommLost(comm, nullptr, 1, &count), ncclInvalidArgument, "ranks is null");
  FAILS(railcclCommLost(comm, &lost, 1, nullptr), ncclInvalidArgument, "count is null");
  OK(railcclCommLost(comm, nullptr, 0, &count));
  EXPECT_EQ(count, 0);
}

TEST(BadInput, MemoryGivenBackWrongly) {
  Ranks ranks(1);
  FAILS(ncclMemFree(in), ncclInvalidArgument, "does not come from ncclMemAlloc");
  FAILS(ncclCommDeregister(ranks.comm(0), in), ncclInvalidArgument, "is no registration");
  void* handle;
  FAILS(ncclCommRegister(ranks.comm(0), nullptr, 1, &handle), ncclInvalidArgument, "buff is null");
  FAILS(ncclCommRegister(ranks.comm(0), in, 0, &handle), ncclInvalidArgument, "size is 0");
  OK(ncclCommRegister(ranks.comm(0), in, sizeof in, &handle));
  OK(ncclCommDeregister(ranks.comm(0), handle));
  FAILS(ncclCommDeregister(ranks.comm(0), handle), ncclInvalidArgument, "was given back");
  void* memory;
  FAILS(ncclMemAlloc(&memory, std::numeric_limits<size_t>::max()), ncclInvalidArgument,
        "more than any memory");
}

TEST(BadInput, WindowsThatDiffer) {
  Ranks ranks(2);
  ranks.each([](int rank, ncclComm_t comm) {
    void* memory;
    OK(ncclMemAlloc(&memory, 16384));
    ncclWindow_t window;
    FAILS(ncclCommWindowRegister(comm, static_cast<char*>(memory) + 8, 64, &window, 0),
          ncclInvalidArgument, "not aligned");
    FAILS(ncclCommWindowRegister(comm, memory, rank == 0 ? 4096 : 8192, &window, 0),
          ncclInvalidUsage, "rank 0 registers a window of 4096 bytes");
    EXPECT_EQ(window, nullptr);
    OK(ncclCommWindowRegister(comm, memory, 4096, &window, 0));
    OK(ncclCommWindowDeregister(comm, window));
    FAILS(ncclCommWindowDeregister(comm, window), ncclInvalidArgument, "is no window");
    OK(ncclMemFree(memory));
  });
}

TEST(BadInput, MalformedEnvironment) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm;
  for (const auto& [name, value] : {std::pair{"NCCL_MAX_NCHANNELS", "eight"},
                                    {"NCCL_MIN_NCHANNELS", "65"},
                                    {"RAILCCL_CHUNK_SIZE", "4X"},
                                    {"NCCL_SHM_DISABLE", "maybe"},
                                    {"RAILCCL_TIMEOUT_MS", "-1"}}) {
    const Variable variable(name, value);
    FAILS(ncclCommInitRank(&comm, 1, id, 0), ncclInvalidArgument, std::string(name) + "=" + value);
    FAILS(railcclCheckEnvironment(), ncclInvalidArgument, name);
  }
  const Variable variable("NCCL_COMM_ID", "nonsense");
  FAILS(ncclGetUniqueId(&id), ncclInvalidArgument, "NCCL_COMM_ID");
}

TEST(BadInput, UnknownAlgorithm) {
  const Variable variable("NCCL_ALGO", "teleport");
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm;
  FAILS(ncclCommInitRank(&comm, 1, id, 0), ncclInvalidArgument, "teleport");
}

TEST(BadInput, UnusableInterface) {
  const Variable variable("NCCL_SOCKET_IFNAME", "=nosuch0");
  ncclUniqueId id;
  FAILS(ncclGetUniqueId(&id), ncclInvalidArgument, "nosuch0");
}

TEST(BadInput, MalformedTopologyFile) {
  const std::string path = ::testing::TempDir() + "bad_input_" + std::to_string(::getpid());
  std::ofstream(path) << "railccl topology 1\nhost teapot\n";
  {
    const Variable variable("RAILCCL_TOPO_FILE", path);
    ncclUniqueId id;
    OK(ncclGetUniqueId(&id));
    ncclComm_t comm;
    FAILS(ncclCommInitRank(&comm, 1, id, 0), ncclInvalidArgument, path);
  }
  std::remove(path.c_str());
}

TEST(BadInput, MissingTopologyFile) {
  const Variable variable("RAILCCL_TOPO_FILE", "/no/such/file");
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm;
  FAILS(ncclCommInitRank(&comm, 1, id, 0), ncclSystemError, "/no/such/file");
}

TEST(ErrorsPage, ListsExactlyTheTestsOfBadInput) {
  std::ifstream page(RAILCCL_ERRORS_PAGE);
  ASSERT_TRUE(page) << RAILCCL_ERRORS_PAGE;
  const std::string text((std::istreambuf_iterator<char>(page)), {});
  std::set<std::string> listed, existing;
  const std::string mark = "`BadInput.";
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    const size_t begin = at + mark.size();
    const std::string name = text.substr(begin, text.find('`', begin) - begin);
    EXPECT_TRUE(listed.insert(name).second) << name << " is listed twice";
  }
  const auto* unit = ::testing::UnitTest::GetInstance();
  for (int suite = 0; suite < unit->total_test_suite_count(); suite++) {
    const auto* of = unit->GetTestSuite(suite);
    if (std::string(of->name()) != "BadInput") continue;
    for (int test = 0; test < of->total_test_count(); test++)
      existing.insert(of->GetTestInfo(test)->name());
  }
  EXPECT_EQ(listed, existing);
}

}  // namespace
}  // namespace railccl::test
