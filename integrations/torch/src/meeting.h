// Meeting: how ranks find each other by way of a c10d store.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compat.h"
#include "nccl.h"
#include "watch.h"

namespace railccl_torch {

/// Waits for keys without holding the store, which other threads of the process use as well.
/// `wanted` is called in between, and throws when there is no use in waiting. False: not in time.
bool await_keys(c10d::Store& store, const std::vector<std::string>& keys,
                Clock::time_point deadline, const std::function<void()>& wanted);
void put(c10d::Store& store, const std::string& key, const std::string& value);
std::string get(c10d::Store& store, const std::string& key);

/// Of ranks 1 to size - 1, those without a key `prefix`RANK: "1, 3".
std::string missing_ranks(c10d::Store& store, const std::string& prefix, int size, bool all);
std::vector<std::string> keys_of_ranks(const std::string& prefix, int size);

std::string as_text(const ncclUniqueId& id);
ncclUniqueId as_id(const std::string& text);

}  // namespace railccl_torch
