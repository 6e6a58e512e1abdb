// Communicator options; see config.h.
#include "api/config.h"

#include <cstddef>
#include <cstring>

namespace railccl::api {
namespace {

constexpr size_t kSizeMax = 4096;  // no future layout is that large; garbage mostly is
constexpr int kChannelsMax = 64;

Status within(const char* field, int value, int low, int high) {
  if (value == NCCL_CONFIG_UNDEF_INT || (value >= low && value <= high)) return ok();
  return Status(Code::invalid_argument, "config.{} is {}; it must be from {} to {}", field, value,
                low, high);
}

}  // namespace

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
  // A caller built with an older header has fewer fields; one with a newer header has more, and
  // those are not for us.
  ncclConfig_t full = NCCL_CONFIG_INITIALIZER;
  std::memcpy(&full, given, size < sizeof full ? size : sizeof full);

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

  if (full.blocking != NCCL_CONFIG_UNDEF_INT) config.blocking = full.blocking == 1;
  if (full.minCTAs != NCCL_CONFIG_UNDEF_INT) config.min_channels = full.minCTAs;
  if (full.maxCTAs != NCCL_CONFIG_UNDEF_INT) config.max_channels = full.maxCTAs;
  if (full.splitShare != NCCL_CONFIG_UNDEF_INT) config.split_share = full.splitShare == 1;
  if (full.commName != nullptr) config.name = full.commName;
  if (config.max_channels != 0 && config.min_channels > config.max_channels)
    return Status(Code::invalid_argument, "config.minCTAs ({}) is above config.maxCTAs ({})",
                  config.min_channels, config.max_channels);
  return config;
}

}  // namespace railccl::api
