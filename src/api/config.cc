// Communicator options; see config.h.
#include "api/config.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace railccl::api {
namespace {

constexpr size_t kSizeMax = 4096;  // no future layout is that large; garbage mostly is
constexpr int kCountersMax = 64;   // contexts, and signals of each: a cache line for each of them

/// A field of ncclConfig_t and the version of NCCL that brought it. A struct ends with padding
/// where the next version's field came to lie: its size alone does not tell which fields were set.
struct Field {
  size_t end;
  unsigned since;
};
#define RAILCCL_FIELD(name, version) \
  { offsetof(ncclConfig_t, name) + sizeof(ncclConfig_t::name), version }
constexpr Field kFields[] = {
    RAILCCL_FIELD(blocking, 21400),
    RAILCCL_FIELD(cgaClusterSize, 21700),
    RAILCCL_FIELD(minCTAs, 21700),
    RAILCCL_FIELD(maxCTAs, 21700),
    RAILCCL_FIELD(netName, 21700),
    RAILCCL_FIELD(splitShare, 21800),
    RAILCCL_FIELD(trafficClass, 22600),
    RAILCCL_FIELD(commName, 22700),
    RAILCCL_FIELD(collnetEnable, 22700),
    RAILCCL_FIELD(CTAPolicy, 22700),
    RAILCCL_FIELD(shrinkShare, 22700),
    RAILCCL_FIELD(nvlsCTAs, 22700),
    RAILCCL_FIELD(nChannelsPerNetPeer, 22800),
    RAILCCL_FIELD(nvlinkCentricSched, 22800),
    RAILCCL_FIELD(graphUsageMode, 22900),
    RAILCCL_FIELD(numRmaCtx, 22900),
    RAILCCL_FIELD(maxP2pPeers, 23000),
    RAILCCL_FIELD(graphStreamOrdering, 23005),
    RAILCCL_FIELD(launchOrderImplicit, 23100),
    RAILCCL_FIELD(numRmaSig, 23100),
    RAILCCL_FIELD(rmaEagerInit, 23100),
    RAILCCL_FIELD(hostCftMode, 23100),
};
#undef RAILCCL_FIELD

/// How much of a caller's struct holds options, in whole fields.
size_t set_bytes(size_t size, unsigned version) {
  size_t bytes = 0;
  for (const Field& field : kFields) {
    if (field.since > version || field.end > size) break;
    bytes = field.end;
  }
  return bytes;
}

}  // namespace

Status within(const char* field, int value, int low, int high) {
  if (value == NCCL_CONFIG_UNDEF_INT || (value >= low && value <= high)) return ok();
  return Status(Code::invalid_argument, "config.{} is {}; it must be from {} to {}", field, value,
                low, high);
}

Status check_layout(const char* what, size_t size, size_t size_min, unsigned magic,
                    unsigned magic_wanted) {
  if (magic != magic_wanted || size < size_min || size > kSizeMax)
    return Status(Code::invalid_argument,
                  "{} was not set to its initializer (size {}, magic {:#x})", what, size, magic);
  return ok();
}

Result<runtime::Config> config_from(const ncclConfig_t* given, const runtime::Config& base) {
  runtime::Config config = base;
  if (given == nullptr) return config;
  size_t size = 0;
  std::memcpy(&size, given, sizeof size);
  RAILCCL_CHECK(check_layout("config", size, offsetof(ncclConfig_t, cgaClusterSize), given->magic,
                             0xcafebeef));
  if (given->version < kFields[0].since)
    return Status(Code::invalid_argument,
                  "config.version is {}; there are options since NCCL 2.14, which is {}",
                  given->version, kFields[0].since);
  // A caller built with an older header has fewer fields; one with a newer header has more, and
  // those are not for us.
  ncclConfig_t full = NCCL_CONFIG_INITIALIZER;
  std::memcpy(&full, given, set_bytes(size, given->version));

  RAILCCL_CHECK(within("blocking", full.blocking, 0, 1));
  RAILCCL_CHECK(within("cgaClusterSize", full.cgaClusterSize, 0, 8));
  RAILCCL_CHECK(within("minCTAs", full.minCTAs, 1, kChannelsMax));
  RAILCCL_CHECK(within("maxCTAs", full.maxCTAs, 1, kChannelsMax));
  RAILCCL_CHECK(within("splitShare", full.splitShare, 0, 1));
  RAILCCL_CHECK(within("trafficClass", full.trafficClass, 0, 255));
  RAILCCL_CHECK(within("collnetEnable", full.collnetEnable, 0, 1));
  RAILCCL_CHECK(within("CTAPolicy", full.CTAPolicy, NCCL_CTA_POLICY_DEFAULT,
                       NCCL_CTA_POLICY_EFFICIENCY | NCCL_CTA_POLICY_ZERO));
  RAILCCL_CHECK(within("shrinkShare", full.shrinkShare, 0, 1));
  RAILCCL_CHECK(within("nvlsCTAs", full.nvlsCTAs, 1, kChannelsMax));
  RAILCCL_CHECK(within("nChannelsPerNetPeer", full.nChannelsPerNetPeer, 1, kChannelsMax));
  RAILCCL_CHECK(within("nvlinkCentricSched", full.nvlinkCentricSched, 0, 1));
  RAILCCL_CHECK(within("numRmaCtx", full.numRmaCtx, 1, kCountersMax));
  RAILCCL_CHECK(within("numRmaSig", full.numRmaSig, 1, kCountersMax));

  if (full.blocking != NCCL_CONFIG_UNDEF_INT) config.blocking = full.blocking == 1;
  if (full.minCTAs != NCCL_CONFIG_UNDEF_INT) config.min_channels = full.minCTAs;
  if (full.maxCTAs != NCCL_CONFIG_UNDEF_INT) config.max_channels = full.maxCTAs;
  if (full.splitShare != NCCL_CONFIG_UNDEF_INT) config.split_share = full.splitShare == 1;
  if (full.numRmaCtx != NCCL_CONFIG_UNDEF_INT) config.contexts = full.numRmaCtx;
  if (full.numRmaSig != NCCL_CONFIG_UNDEF_INT) config.signals = full.numRmaSig;
  if (full.commName != nullptr) config.name = full.commName;
  if (config.max_channels != 0 && config.min_channels > config.max_channels)
    return Status(Code::invalid_argument, "config.minCTAs ({}) is above config.maxCTAs ({})",
                  config.min_channels, config.max_channels);
  return config;
}

}  // namespace railccl::api
