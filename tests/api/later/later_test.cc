// Shows what NCCL added between 2.28.9 and 2.31.2, as a program built for 2.31.2 uses it: layouts
// and numbers at compile time, options of every size, growing, shrinking, suspending, parameters,
// options of single calls, and the host's side of the device API.
#include <gmock/gmock.h>

#include <chrono>
#include <cstring>
#include <set>

#include "api/api_ranks.h"
#include "railccl/nccl_device_host.h"

namespace railccl::test {
namespace {

static_assert(NCCL_VERSION_CODE == 23102 && NCCL_MINOR == 31 && NCCL_PATCH == 2);
static_assert(ncclTimeout == 8 && ncclNumResults == 9 && NCCL_WIN_STRICT_ORDERING == 2);
static_assert(sizeof(ncclConfig_t) == 112 && offsetof(ncclConfig_t, nvlinkCentricSched) == 76);
static_assert(offsetof(ncclConfig_t, graphUsageMode) == 80);
static_assert(offsetof(ncclConfig_t, numRmaCtx) == 84);
static_assert(offsetof(ncclConfig_t, maxP2pPeers) == 88);
static_assert(offsetof(ncclConfig_t, graphStreamOrdering) == 92);
static_assert(offsetof(ncclConfig_t, launchOrderImplicit) == 96);
static_assert(offsetof(ncclConfig_t, numRmaSig) == 100);
static_assert(offsetof(ncclConfig_t, rmaEagerInit) == 104);
static_assert(offsetof(ncclConfig_t, hostCftMode) == 108);
static_assert(sizeof(ncclCollConfig_t) == 64 && offsetof(ncclCollConfig_t, ext) == 16);
static_assert(offsetof(ncclCollConfig_t, minCTAs) == 24);
static_assert(offsetof(ncclCollConfig_t, cgaClusterSize) == 36);
static_assert(offsetof(ncclCollConfig_t, algSelection) == 40);
static_assert(offsetof(ncclCollConfig_t, forceAlgSelection) == 48);
static_assert(offsetof(ncclCollConfig_t, CTAPolicy) == 52);
static_assert(offsetof(ncclCollConfig_t, userProfilerTag) == 56);
static_assert(sizeof(ncclConfigExt_t) == 24 && offsetof(ncclConfigExt_t, val) == 16);
static_assert(sizeof(ncclWaitSignalDesc_t) == 16 && offsetof(ncclWaitSignalDesc_t, ctx) == 12);
static_assert(ncclStatGpuMemSuspend == 0 && ncclStatGpuMemSuspended == 1 &&
              ncclStatGpuMemPersist == 2 && ncclStatGpuMemTotal == 3 && NCCL_SUSPEND_MEM == 1);
static_assert(sizeof(ncclTeam_t) == 12 && sizeof(ncclMultimemHandle_t) == 8);
static_assert(sizeof(ncclCommProperties_t) == 56 && offsetof(ncclCommProperties_t, ginType) == 36);
static_assert(offsetof(ncclCommProperties_t, nLsaTeams) == 40);
static_assert(offsetof(ncclCommProperties_t, hostRmaSupport) == 44);
static_assert(offsetof(ncclCommProperties_t, railedGinType) == 48);

/// Waits until a non-blocking communicator has come to rest.
void settle(ncclComm_t comm) {
  ncclResult_t state = ncclInProgress;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (state == ncclInProgress && std::chrono::steady_clock::now() < limit) {
    ASSERT_EQ(ncclCommGetAsyncError(comm, &state), ncclSuccess) << ncclGetLastError(nullptr);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_EQ(state, ncclSuccess) << ncclGetLastError(comm);
}

bool fine(ncclResult_t result) { return result == ncclSuccess || result == ncclInProgress; }

// ---- Options from older and newer programs ------------------------------------------------------

/// A release of NCCL, the size of its options, and how many bytes of them are fields.
struct Release {
  const char* name;
  unsigned version;
  size_t size;
  size_t used;
};

class Options : public ::testing::TestWithParam<Release> {};

// What lies behind the fields of a release is padding or memory of somebody else: whatever is
// there, it must not be taken for an option. All fields that there are get a value that is allowed.
TEST_P(Options, OfEverySizeAreTaken) {
  const Release& release = GetParam();
  std::vector<std::byte> bytes(std::max(release.size, sizeof(ncclConfig_t)) + 64, std::byte{0x5a});
  ncclConfig_t full = NCCL_CONFIG_INITIALIZER;
  full.size = release.size;
  full.version = release.version;
  full.blocking = 0;
  full.cgaClusterSize = 2;
  full.minCTAs = 1;
  full.maxCTAs = 4;
  full.netName = "Socket";
  full.splitShare = 1;
  full.trafficClass = 3;
  full.commName = "sized";
  full.collnetEnable = 0;
  full.CTAPolicy = NCCL_CTA_POLICY_EFFICIENCY;
  full.shrinkShare = 1;
  full.nvlsCTAs = 4;
  full.nChannelsPerNetPeer = 2;
  full.nvlinkCentricSched = 1;
  full.graphUsageMode = 1;
  full.numRmaCtx = 2;
  full.maxP2pPeers = 8;
  full.graphStreamOrdering = 0;
  full.launchOrderImplicit = 1;
  full.numRmaSig = 2;
  full.rmaEagerInit = 1;
  full.hostCftMode = 2;
  std::memcpy(bytes.data(), &full, std::min(release.used, sizeof full));
  auto* const config = reinterpret_cast<ncclConfig_t*>(bytes.data());
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm = nullptr;
  ASSERT_EQ(ncclCommInitRankConfig(&comm, 1, id, 0, config), ncclInProgress)
      << "blocking is the oldest field: " << ncclGetLastError(nullptr);
  settle(comm);
  OK(ncclCommDestroy(comm));
}

INSTANTIATE_TEST_SUITE_P(
    Releases, Options,
    ::testing::Values(Release{"v2_14", 21403, 24, 20}, Release{"v2_17", 21701, 40, 40},
                      Release{"v2_18", 21803, 48, 44}, Release{"v2_26", 22602, 48, 48},
                      Release{"v2_27", 22703, 72, 72}, Release{"v2_28", 22809, 80, 80},
                      Release{"v2_29", 22902, 88, 88}, Release{"v2_30_3", 23003, 96, 92},
                      Release{"v2_30_7", 23007, 96, 96}, Release{"v2_31", 23102, 112, 112},
                      Release{"later", 23203, 120, 112}),
    [](const auto& release) { return release.param.name; });

TEST(Options, GarbageIsRefused) {
  ncclUniqueId id;
  OK(ncclGetUniqueId(&id));
  ncclComm_t comm = nullptr;
  const auto init = [&](const ncclConfig_t& config) {
    ncclConfig_t copy = config;
    return ncclCommInitRankConfig(&comm, 1, id, 0, &copy);
  };
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.magic = 1;
  FAILS(init(config), ncclInvalidArgument, "initializer");
  config = NCCL_CONFIG_INITIALIZER;
  config.size = 16;
  FAILS(init(config), ncclInvalidArgument, "size 16");
  config = NCCL_CONFIG_INITIALIZER;
  config.version = 7;
  FAILS(init(config), ncclInvalidArgument, "config.version is 7");
  config = NCCL_CONFIG_INITIALIZER;
  config.numRmaCtx = 0;
  FAILS(init(config), ncclInvalidArgument, "config.numRmaCtx is 0");
  EXPECT_EQ(comm, nullptr);
}

// ---- Growing and shrinking ----------------------------------------------------------------------

void sum_over_all(ncclComm_t comm, int ranks, int rank) {
  int count = 0, mine = -1, sum = rank;
  OK(ncclCommCount(comm, &count));
  OK(ncclCommUserRank(comm, &mine));
  EXPECT_EQ(count, ranks);
  EXPECT_EQ(mine, rank);
  EXPECT_TRUE(fine(ncclAllReduce(&sum, &sum, 1, ncclInt, ncclSum, comm, nullptr)));
  settle(comm);
  EXPECT_EQ(sum, ranks * (ranks - 1) / 2);
}

/// Ranks 0 and 1 take 2 and 3 in; rank 1 has the id.
void grow_from_two_to_four(int blocking) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = blocking;
  Ranks ranks(2, &config);
  ranks.each([](int, ncclComm_t comm) { settle(comm); });
  ncclUniqueId id;
  OK(ncclCommGetUniqueId(ranks.comm(1), &id));
  on_threads(4, [&](int rank) {
    ncclConfig_t own = config;
    ncclComm_t grown = nullptr;
    const ncclResult_t result =
        rank < 2 ? ncclCommGrow(ranks.comm(rank), 4, rank == 1 ? &id : nullptr, -1, &grown, nullptr)
                 : ncclCommGrow(nullptr, 4, &id, rank, &grown, &own);
    ASSERT_TRUE(fine(result)) << ncclGetLastError(nullptr);
    ASSERT_NE(grown, nullptr);
    settle(grown);
    sum_over_all(grown, 4, rank);
    OK(ncclCommDestroy(grown));
    if (rank < 2) {
      settle(ranks.comm(rank));
      sum_over_all(ranks.comm(rank), 2, rank);
    }
  });
}

TEST(Grow, NewcomersJoin) { grow_from_two_to_four(1); }
TEST(Grow, NonBlocking) { grow_from_two_to_four(0); }

TEST(Grow, WrongCallsAreNamed) {
  Ranks ranks(2);
  ncclUniqueId id;
  OK(ncclCommGetUniqueId(ranks.comm(0), &id));
  ncclComm_t grown;
  FAILS(ncclCommGrow(nullptr, 3, nullptr, 2, &grown, nullptr), ncclInvalidArgument, "uniqueId");
  FAILS(ncclCommGrow(nullptr, 3, &id, 3, &grown, nullptr), ncclInvalidArgument, "rank is 3");
  FAILS(ncclCommGrow(ranks.comm(0), 3, &id, 0, &grown, nullptr), ncclInvalidArgument, "gives -1");
  FAILS(ncclCommGrow(ranks.comm(0), 2, &id, -1, &grown, nullptr), ncclInvalidArgument,
        "nRanks is 2");
  ranks.each([](int, ncclComm_t comm) {
    ncclComm_t none;
    FAILS(ncclCommGrow(comm, 3, nullptr, -1, &none, nullptr), ncclInvalidUsage,
          "0 ranks gave the unique id");
    EXPECT_EQ(none, nullptr);
  });
}

TEST(Shrink, OfANonBlockingCommunicator) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  Ranks ranks(3, &config);
  ranks.each([](int rank, ncclComm_t comm) {
    settle(comm);
    if (rank == 1) return;
    int excluded[] = {1};
    ncclComm_t rest = nullptr;
    EXPECT_EQ(ncclCommShrink(comm, excluded, 1, &rest, nullptr, NCCL_SHRINK_DEFAULT),
              ncclInProgress);
    settle(rest);
    sum_over_all(rest, 2, rank / 2);
    OK(ncclCommDestroy(rest));
  });
}

// ---- Memory -------------------------------------------------------------------------------------

uint64_t stat_of(ncclComm_t comm, ncclCommMemStat_t stat) {
  uint64_t value = 12345;
  EXPECT_EQ(ncclCommMemStats(comm, stat, &value), ncclSuccess) << ncclGetLastError(nullptr);
  return value;
}

TEST(Suspend, GivesMemoryBackAndRefusesCallsUntilResumed) {
  Variable no_sharing("NCCL_SHM_DISABLE", "1");  // scratch that no peer looks into
  Variable algo("NCCL_ALGO", "doubling");        // which needs some
  Ranks ranks(2);
  ranks.each([](int rank, ncclComm_t comm) {
    std::vector<float> data(1 << 16, static_cast<float>(rank + 1)), out(data.size());
    const auto sum = [&] {
      return ncclAllReduce(data.data(), out.data(), data.size(), ncclFloat, ncclSum, comm, nullptr);
    };
    OK(sum());
    const uint64_t before = stat_of(comm, ncclStatGpuMemSuspend);
    EXPECT_GT(before, 0u);
    EXPECT_EQ(stat_of(comm, ncclStatGpuMemTotal), before + stat_of(comm, ncclStatGpuMemPersist));
    EXPECT_EQ(stat_of(comm, ncclStatGpuMemSuspended), 0u);
    FAILS(ncclCommResume(comm), ncclInvalidUsage, "not suspended");
    FAILS(ncclCommSuspend(comm, 4), ncclInvalidArgument, "flags is 0x4");
    OK(ncclCommSuspend(comm, NCCL_SUSPEND_MEM));
    EXPECT_EQ(stat_of(comm, ncclStatGpuMemSuspended), 1u);
    EXPECT_EQ(stat_of(comm, ncclStatGpuMemSuspend), 0u);
    FAILS(sum(), ncclInvalidUsage, "suspended");
    FAILS(ncclCommSuspend(comm, NCCL_SUSPEND_MEM), ncclInvalidUsage, "suspended");
    ncclResult_t state = ncclInProgress;
    OK(ncclCommGetAsyncError(comm, &state));
    EXPECT_EQ(state, ncclSuccess);
    OK(ncclCommResume(comm));
    OK(sum());
    EXPECT_EQ(out[7], 3);
    EXPECT_EQ(stat_of(comm, ncclStatGpuMemSuspend), before);
    OK(ncclCommSuspend(comm, NCCL_SUSPEND_MEM));  // and is destroyed as it is
  });
  // As C programs may call it.
  using Stats = ncclResult_t (*)(ncclComm_t, int, uint64_t*);
  const auto from_c = reinterpret_cast<Stats>(reinterpret_cast<void*>(&ncclCommMemStats));
  uint64_t value;
  FAILS(from_c(ranks.comm(0), 9, &value), ncclInvalidArgument, "9 is no statistic");
}

// ---- Parameters ---------------------------------------------------------------------------------

TEST(Param, ValuesByHandleAndByName) {
  Variable timeout("RAILCCL_TIMEOUT_MS", "4321");
  Variable algo("NCCL_ALGO", "ring");
  ncclParamHandle_t number = nullptr, text = nullptr;
  OK(ncclParamBind(&number, "RAILCCL_TIMEOUT_MS"));
  OK(ncclParamBind(&text, "NCCL_ALGO"));
  int8_t small = 0;
  int16_t i16 = 0;
  int32_t i32 = 0;
  int64_t i64 = 0;
  uint8_t u8 = 0;
  uint16_t u16 = 0;
  uint32_t u32 = 0;
  uint64_t u64 = 0;
  FAILS(ncclParamGetI8(number, &small), ncclInvalidArgument, "is 4321, which 8 bits cannot hold");
  FAILS(ncclParamGetU8(number, &u8), ncclInvalidArgument, "8 bits without a sign");
  OK(ncclParamGetI16(number, &i16));
  OK(ncclParamGetI32(number, &i32));
  OK(ncclParamGetI64(number, &i64));
  OK(ncclParamGetU16(number, &u16));
  OK(ncclParamGetU32(number, &u32));
  OK(ncclParamGetU64(number, &u64));
  EXPECT_EQ(std::set<int64_t>({i16, i32, i64, u16, int64_t{u32}, static_cast<int64_t>(u64)}),
            std::set<int64_t>{4321});
  FAILS(ncclParamGetI64(text, &i64), ncclInvalidArgument, "NCCL_ALGO is a text");
  const char* value = nullptr;
  OK(ncclParamGetStr(number, &value));
  EXPECT_STREQ(value, "4321");
  int length = 0;
  OK(ncclParamGetParameter("NCCL_ALGO", &value, &length));
  EXPECT_STREQ(value, "ring");
  EXPECT_EQ(length, 4);
  char bytes[8] = {};
  OK(ncclParamGet(text, bytes, sizeof bytes, &length));
  EXPECT_EQ(std::string(bytes, static_cast<size_t>(length)), "ring");
  FAILS(ncclParamGet(text, bytes, 3, &length), ncclInvalidArgument, "takes 4 bytes");
  OK(ncclParamGet(number, &i64, sizeof i64, nullptr));
  EXPECT_EQ(i64, 4321);
  FAILS(ncclParamBind(&number, "NCCL_NO_SUCH_THING"), ncclInvalidArgument, "NCCL_NO_SUCH_THING");
  FAILS(ncclParamGetI64(reinterpret_cast<ncclParamHandle_t>(&i64), &i64), ncclInvalidArgument,
        "ncclParamBind");
  const char** keys = nullptr;
  OK(ncclParamGetAllParameterKeys(&keys, &length));
  EXPECT_THAT(std::vector<std::string>(keys, keys + length), ::testing::Contains("NCCL_ALGO"));
}

TEST(Param, DumpNamesAllOfThem) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  ncclParamDumpAll();
  const std::string text =
      ::testing::internal::GetCapturedStdout() + ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, ::testing::HasSubstr("RAILCCL_TIMEOUT_MS=1800000"));
}

TEST(Version, IsWhatTheEnvironmentSays) {
  int version = 0;
  OK(ncclGetVersion(&version));
  EXPECT_EQ(version, 22809);
  Variable later("RAILCCL_NCCL_VERSION", "23102");
  OK(ncclGetVersion(&version));
  EXPECT_EQ(version, 23102);
  Variable wrong("RAILCCL_NCCL_VERSION", "two");
  FAILS(ncclGetVersion(&version), ncclInvalidArgument, "RAILCCL_NCCL_VERSION=two");
}

// ---- Options of single calls --------------------------------------------------------------------

TEST(Configured, CollectivesGiveWhatThePlainOnesGive) {
  Ranks ranks(2);
  ranks.each([](int rank, ncclComm_t comm) {
    ncclCollConfig_t config = NCCL_COLLCONFIG_INITIALIZER;
    config.maxCTAs = 2;
    config.algSelection = "RING_SIMPLE";
    config.forceAlgSelection = 0;
    config.userProfilerTag = 7;
    const int mine[2] = {rank + 1, rank + 11};
    int out[2] = {}, all[4] = {};
    OK(ncclAllReduceConfig(mine, out, 2, ncclInt, ncclSum, comm, nullptr, &config));
    EXPECT_THAT(out, ::testing::ElementsAre(3, 23));
    OK(ncclReduceConfig(mine, out, 2, ncclInt, ncclMax, 1, comm, nullptr, &config));
    if (rank == 1) {
      EXPECT_THAT(out, ::testing::ElementsAre(2, 12));
    }
    OK(ncclBroadcastConfig(mine, out, 2, ncclInt, 1, comm, nullptr, nullptr));
    EXPECT_THAT(out, ::testing::ElementsAre(2, 12));
    OK(ncclAllGatherConfig(mine, all, 2, ncclInt, comm, nullptr, &config));
    EXPECT_THAT(all, ::testing::ElementsAre(1, 11, 2, 12));
    OK(ncclReduceScatterConfig(mine, out, 1, ncclInt, ncclSum, comm, nullptr, &config));
    EXPECT_EQ(out[0], rank == 0 ? 3 : 23);
    OK(ncclAlltoAllConfig(mine, out, 1, ncclInt, comm, nullptr, &config));
    EXPECT_THAT(out, ::testing::ElementsAre(rank == 0 ? 1 : 11, rank == 0 ? 2 : 12));
    OK(ncclGatherConfig(mine, all, 2, ncclInt, 0, comm, nullptr, &config));
    if (rank == 0) {
      EXPECT_THAT(all, ::testing::ElementsAre(1, 11, 2, 12));
    }
    OK(ncclScatterConfig(mine, out, 1, ncclInt, 0, comm, nullptr, &config));
    EXPECT_EQ(out[0], rank == 0 ? 1 : 11);
  });
}

TEST(Configured, WhatCannotBeIsRefused) {
  Ranks ranks(1);
  int value = 1;
  const auto sum = [&](const ncclCollConfig_t& config) {
    return ncclAllReduceConfig(&value, &value, 1, ncclInt, ncclSum, ranks.comm(0), nullptr,
                               &config);
  };
  ncclCollConfig_t config = NCCL_COLLCONFIG_INITIALIZER;
  OK(sum(config));
  config.algSelection = "nvls";
  FAILS(sum(config), ncclInvalidUsage, "demands \"nvls\"");
  config = NCCL_COLLCONFIG_INITIALIZER;
  config.forceAlgSelection = 2;
  FAILS(sum(config), ncclInvalidArgument, "forceAlgSelection is 2");
  config = NCCL_COLLCONFIG_INITIALIZER;
  config.size = 63;
  FAILS(sum(config), ncclInvalidArgument, "size 63");
  config = NCCL_COLLCONFIG_INITIALIZER;
  config.magic = 0;
  FAILS(sum(config), ncclInvalidArgument, "initializer");
  config = NCCL_COLLCONFIG_INITIALIZER;
  config.minCTAs = 3;
  config.maxCTAs = 2;
  FAILS(sum(config), ncclInvalidArgument, "minCTAs (3)");
  config = NCCL_COLLCONFIG_INITIALIZER;
  config.CTAPolicy = 9;
  OK(ncclGroupStart());
  FAILS(sum(config), ncclInvalidArgument, "CTAPolicy is 9");
  FAILS(ncclGroupEnd(), ncclInvalidArgument, "did not run");
}

// ---- The device API's side on the host ----------------------------------------------------------

TEST(Device, TeamsAreComputedAndDeviceThingsRefused) {
  Ranks ranks(3);
  const ncclTeam_t world = ncclTeamWorld(ranks.comm(1));
  EXPECT_EQ(world.nRanks, 3);
  EXPECT_EQ(world.rank, 1);
  EXPECT_EQ(world.stride, 1);
  const ncclTeam_t near = ncclTeamLsa(ranks.comm(1)), rail = ncclTeamRail(ranks.comm(1));
  EXPECT_EQ(near.nRanks, 1);
  EXPECT_EQ(near.rank, 0);
  EXPECT_EQ(rail.nRanks, 3);
  EXPECT_EQ(ncclTeamRankToWorld(ranks.comm(1), rail, 2), 2);
  EXPECT_EQ(ncclTeamRankToWorld(ranks.comm(1), near, 0), 1);
  EXPECT_EQ(ncclTeamRankToLsa(ranks.comm(1), world, 1), 0);
  EXPECT_EQ(ncclTeamWorld(nullptr).nRanks, 0);
  EXPECT_EQ(ncclTeamRankToWorld(nullptr, world, 0), -1);
  EXPECT_EQ(ncclLLA2ACalcSlots(3, 9), 6);
  FAILS(ncclDevCommCreate(ranks.comm(0), nullptr, nullptr), ncclInvalidUsage, "host memory");
  FAILS(ncclDevCommDestroy(ranks.comm(0), nullptr), ncclInvalidUsage, "host memory");
  FAILS(ncclGinBarrierCreateRequirement(ranks.comm(0), world, 1, nullptr, nullptr),
        ncclInvalidUsage, "barrier");
  FAILS(ncclLsaBarrierCreateRequirement(world, 1, nullptr, nullptr), ncclInvalidUsage, "barrier");
  FAILS(ncclLLA2ACreateRequirement(1, 1, nullptr, nullptr), ncclInvalidUsage, "all-to-all");
  void* pointer;
  FAILS(ncclGetLsaDevicePointer(nullptr, 0, 0, &pointer), ncclInvalidUsage, "device pointer");
  FAILS(ncclGetLsaMultimemDevicePointer(nullptr, 0, &pointer), ncclInvalidUsage, "device pointer");
  FAILS(ncclGetMultimemDevicePointer(nullptr, 0, {nullptr}, &pointer), ncclInvalidUsage,
        "device pointer");
  FAILS(ncclGetPeerDevicePointer(nullptr, 0, 0, &pointer), ncclInvalidUsage, "device pointer");
}

TEST(Device, PropertiesForBothSizesOfTheStruct) {
  Ranks ranks(2);
  ncclCommProperties_t properties = NCCL_COMM_PROPERTIES_INITIALIZER;
  OK(ncclCommQueryProperties(ranks.comm(1), &properties));
  EXPECT_EQ(properties.rank, 1);
  EXPECT_EQ(properties.nRanks, 2);
  EXPECT_EQ(properties.cudaDev, -1);
  EXPECT_FALSE(properties.deviceApiSupport);
  EXPECT_EQ(properties.nLsaTeams, 2);
  EXPECT_TRUE(properties.hostRmaSupport);
  properties = NCCL_COMM_PROPERTIES_INITIALIZER;
  properties.size = 40;  // 2.29's
  properties.nLsaTeams = 77;
  OK(ncclCommQueryProperties(ranks.comm(0), &properties));
  EXPECT_EQ(properties.nRanks, 2);
  EXPECT_EQ(properties.nLsaTeams, 77) << "beyond the caller's struct";
  properties.magic = 3;
  FAILS(ncclCommQueryProperties(ranks.comm(0), &properties), ncclInvalidArgument, "initializer");
}

}  // namespace
}  // namespace railccl::test
