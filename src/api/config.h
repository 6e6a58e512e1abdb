// ncclConfig_t from callers that may be older or newer than this library. Private to this room.
#pragma once

#include "api/exports.h"
#include "base/status.h"
#include "runtime/communicator.h"

namespace railccl::api {

/// Checks `config` (null: nothing set) and applies what is set to `base`.
Result<runtime::Config> config_from(const ncclConfig_t* config, const runtime::Config& base);

constexpr int kChannelsMax = 64;
/// Is the value of an option unset, or from low to high?
Status within(const char* field, int value, int low, int high);

/// The first three fields of every versioned struct.
Status check_layout(const char* what, size_t size, size_t size_min, unsigned magic,
                    unsigned magic_wanted);

}  // namespace railccl::api
