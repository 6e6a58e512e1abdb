// The functions that leave the library. Include this instead of nccl.h in this room.
//
// Everything else is hidden, so the declarations get default visibility here; each pncclX is an
// ordinary function and ncclX a weak second name of it, for profilers to replace.
#pragma once

// The whole interface, with the longest structs. Callers may have shorter ones: config.h.
#define RAILCCL_NCCL_VERSION 23102
#pragma GCC visibility push(default)
#include "nccl.h"
#include "railccl/nccl_device_host.h"
#include "railccl/railccl.h"
#pragma GCC visibility pop

/// After the definition of pncclX.
#define RAILCCL_EXPORT(name) \
  extern "C" __attribute__((weak, alias("p" #name), visibility("default"))) decltype(p##name) name
