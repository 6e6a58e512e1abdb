// Shows that the library is NCCL 2.28.9 to a linker and to compiled programs: layouts and numbers
// of nccl.h at compile time, names and kinds of exported symbols by nm.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <regex>
#include <sstream>
#include <string>
#include <type_traits>

#include "nccl.h"
#include "railccl/railccl.h"

namespace {

static_assert(sizeof(ncclUniqueId) == 128 && alignof(ncclUniqueId) == 1);
static_assert(sizeof(ncclConfig_t) == 80 && alignof(ncclConfig_t) == 8);
static_assert(offsetof(ncclConfig_t, size) == 0);
static_assert(offsetof(ncclConfig_t, magic) == 8);
static_assert(offsetof(ncclConfig_t, version) == 12);
static_assert(offsetof(ncclConfig_t, blocking) == 16);
static_assert(offsetof(ncclConfig_t, cgaClusterSize) == 20);
static_assert(offsetof(ncclConfig_t, minCTAs) == 24);
static_assert(offsetof(ncclConfig_t, maxCTAs) == 28);
static_assert(offsetof(ncclConfig_t, netName) == 32);
static_assert(offsetof(ncclConfig_t, splitShare) == 40);
static_assert(offsetof(ncclConfig_t, trafficClass) == 44);
static_assert(offsetof(ncclConfig_t, commName) == 48);
static_assert(offsetof(ncclConfig_t, collnetEnable) == 56);
static_assert(offsetof(ncclConfig_t, CTAPolicy) == 60);
static_assert(offsetof(ncclConfig_t, shrinkShare) == 64);
static_assert(offsetof(ncclConfig_t, nvlsCTAs) == 68);
static_assert(offsetof(ncclConfig_t, nChannelsPerNetPeer) == 72);
static_assert(offsetof(ncclConfig_t, nvlinkCentricSched) == 76);
static_assert(sizeof(ncclSimInfo_t) == 24 && offsetof(ncclSimInfo_t, estimatedTime) == 16);
static_assert(ncclSuccess == 0 && ncclUnhandledCudaError == 1 && ncclSystemError == 2 &&
              ncclInternalError == 3 && ncclInvalidArgument == 4 && ncclInvalidUsage == 5 &&
              ncclRemoteError == 6 && ncclInProgress == 7 && ncclNumResults == 8);
static_assert(ncclInt8 == 0 && ncclChar == 0 && ncclUint8 == 1 && ncclInt32 == 2 && ncclInt == 2 &&
              ncclUint32 == 3 && ncclInt64 == 4 && ncclUint64 == 5 && ncclFloat16 == 6 &&
              ncclHalf == 6 && ncclFloat32 == 7 && ncclFloat == 7 && ncclFloat64 == 8 &&
              ncclDouble == 8 && ncclBfloat16 == 9 && ncclFloat8e4m3 == 10 &&
              ncclFloat8e5m2 == 11 && ncclNumTypes == 12);
static_assert(ncclSum == 0 && ncclProd == 1 && ncclMax == 2 && ncclMin == 3 && ncclAvg == 4 &&
              ncclNumOps == 5 && ncclMaxRedOp == 0x7fffffff && sizeof(ncclRedOp_t) == 4);
static_assert(ncclScalarDevice == 0 && ncclScalarHostImmediate == 1);
static_assert(NCCL_SPLIT_NOCOLOR == -1 && NCCL_VERSION_CODE == 22809 &&
              NCCL_VERSION(2, 8, 4) == 2804 && NCCL_VERSION(2, 28, 9) == 22809);
static_assert(NCCL_WIN_COLL_SYMMETRIC == 1 && NCCL_WIN_REQUIRED_ALIGNMENT == 4096 &&
              NCCL_SHRINK_ABORT == 1 && NCCL_CTA_POLICY_ZERO == 2);
static_assert(std::is_same_v<cudaStream_t, struct CUstream_st*>);

const char* const kNames[] = {
    "MemAlloc",
    "MemFree",
    "GetVersion",
    "GetUniqueId",
    "CommInitRankConfig",
    "CommInitRank",
    "CommInitAll",
    "CommFinalize",
    "CommDestroy",
    "CommAbort",
    "CommRevoke",
    "CommSplit",
    "CommShrink",
    "CommInitRankScalable",
    "GetErrorString",
    "GetLastError",
    "ResetDebugInit",
    "CommGetAsyncError",
    "CommCount",
    "CommCuDevice",
    "CommUserRank",
    "CommRegister",
    "CommDeregister",
    "CommWindowRegister",
    "CommWindowDeregister",
    "RedOpCreatePreMulSum",
    "RedOpDestroy",
    "Reduce",
    "Bcast",
    "Broadcast",
    "AllReduce",
    "ReduceScatter",
    "AllGather",
    "AlltoAll",
    "Gather",
    "Scatter",
    "Send",
    "Recv",
    "GroupStart",
    "GroupEnd",
    "GroupSimulateEnd",
};
// NCCL's device API on the host: 11 functions in 2.28.9, five more since 2.29.2.
const char* const kDeviceNames[] = {
    "DevCommCreate",
    "DevCommDestroy",
    "TeamWorld",
    "TeamLsa",
    "TeamRail",
    "TeamRankToWorld",
    "TeamRankToLsa",
    "GinBarrierCreateRequirement",
    "LLA2ACalcSlots",
    "LLA2ACreateRequirement",
    "LsaBarrierCreateRequirement",
    "CommQueryProperties",
    "GetLsaDevicePointer",
    "GetLsaMultimemDevicePointer",
    "GetMultimemDevicePointer",
    "GetPeerDevicePointer",
};
// What came into nccl.h after 2.28.9, up to 2.31.2.
const char* const kLaterNames[] = {
    "CommGetUniqueId",  // 2.29.2
    "CommGrow",        "WinGetUserPtr", "PutSignal",         "Signal",
    "WaitSignal",
    "CommSuspend",  // 2.29.7
    "CommResume",      "CommMemStats",
    "ParamBind",  // 2.30
    "ParamGetI8",      "ParamGetI16",   "ParamGetI32",       "ParamGetI64",
    "ParamGetU8",      "ParamGetU16",   "ParamGetU32",       "ParamGetU64",
    "ParamGetStr",     "ParamGet",      "ParamGetParameter", "ParamGetAllParameterKeys",
    "ParamDumpAll",
    "AllReduceConfig",  // 2.31.2
    "BroadcastConfig", "ReduceConfig",  "AllGatherConfig",   "ReduceScatterConfig",
    "AlltoAllConfig",  "GatherConfig",  "ScatterConfig",
};
const char* const kOwnNames[] = {
    "railcclGetVersion",     "railcclStreamCreate",  "railcclStreamSynchronize",
    "railcclStreamQuery",    "railcclStreamDestroy", "railcclGetUniqueIdAt",
    "railcclCommLastChoice", "railcclGetSettings",   "railcclCheckEnvironment",
    "railcclGetSetting",     "railcclRequestCreate", "railcclRequestStart",
    "railcclRequestDestroy", "railcclCommMeeting",   "railcclCommPaths",
    "railcclCommProve",      "railcclCommProtect",   "railcclCommRecover",
    "railcclCommLost",
};

std::string output_of(const std::string& command) {
  std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string text;
  std::array<char, 4096> buffer;
  while (const size_t got = ::fread(buffer.data(), 1, buffer.size(), pipe.get()))
    text.append(buffer.data(), got);
  return text;
}

class Library : public ::testing::TestWithParam<const char*> {};

TEST_P(Library, ExportsTheInterfaceAndNothingElse) {
  static_assert(std::size(kNames) == 41 && std::size(kDeviceNames) == 11 + 5);
  std::map<std::string, char> expected;
  const auto both = [&](const auto& names) {
    for (const char* name : names) {
      expected[std::string("nccl") + name] = 'W';
      expected[std::string("pnccl") + name] = 'T';
    }
  };
  both(kNames);
  both(kDeviceNames);
  both(kLaterNames);
  for (const char* name : kOwnNames) expected[name] = 'T';
  std::istringstream lines(output_of(std::string("nm -D --defined-only ") + GetParam()));
  std::map<std::string, char> found;
  std::string address, name;
  char kind = 0;
  while (lines >> address >> kind >> name) found[name] = kind;
  EXPECT_EQ(found, expected);
}

TEST_P(Library, HasNoSymbolVersions) {
  const std::string text = output_of(std::string("readelf --version-info ") + GetParam());
  EXPECT_THAT(text, ::testing::HasSubstr("Version needs section")) << "readelf speaks otherwise";
  EXPECT_THAT(text, ::testing::Not(::testing::HasSubstr("Version definition section")));
}

#ifdef RAILCCL_PLAIN_BUILD
/// The highest version of `family` that the library asks of others: {2, 34} of "GLIBC_2.34".
[[maybe_unused]] std::array<int, 3> highest(const std::string& library, const std::string& family) {
  const std::string text = output_of("readelf --version-info " + library);
  const std::regex wanted("Name: " + family + "_([0-9]+)\\.([0-9]+)(?:\\.([0-9]+))?");
  std::array<int, 3> most{};
  for (std::sregex_iterator it(text.begin(), text.end(), wanted), end; it != end; ++it) {
    std::array<int, 3> version{};
    for (size_t i = 0; i < 3; i++)
      if ((*it)[i + 1].matched) version[i] = std::stoi((*it)[i + 1]);
    most = std::max(most, version);
  }
  return most;
}
#endif

// What docs/dropin.md promises. Only the plain build is what users get.
TEST_P(Library, NeedsNoNewerSystemThanDocumented) {
#ifdef RAILCCL_PLAIN_BUILD
  std::ifstream page(RAILCCL_DROPIN_PAGE);
  const std::string text{std::istreambuf_iterator<char>(page), {}};
  std::smatch match;
  ASSERT_TRUE(std::regex_search(
      text, match,
      std::regex("glibc ([0-9]+)\\.([0-9]+)[^0-9]+GLIBCXX_([0-9]+)\\.([0-9]+)\\.([0-9]+)")))
      << "docs/dropin.md does not say what it needs";
  const auto number = [&](size_t i) { return std::stoi(match[i]); };
  EXPECT_LE(highest(GetParam(), "GLIBC"), (std::array<int, 3>{number(1), number(2), 0}));
  EXPECT_LE(highest(GetParam(), "GLIBCXX"), (std::array<int, 3>{number(3), number(4), number(5)}));
  EXPECT_GT(highest(GetParam(), "GLIBC"), (std::array<int, 3>{2, 0, 0}));
#else
  GTEST_SKIP() << "only of the plain release build";
#endif
}

INSTANTIATE_TEST_SUITE_P(Both, Library, ::testing::Values(RAILCCL_LIBRARY, RAILCCL_NCCL_LIBRARY));

TEST(Abi, SonameIsNccls) {
  EXPECT_THAT(output_of(std::string("readelf -d ") + RAILCCL_NCCL_LIBRARY),
              ::testing::HasSubstr("soname: [libnccl.so.2]"));
}

}  // namespace
