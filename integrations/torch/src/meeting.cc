// Meeting: keys in the store, looked for now and then.
#include "meeting.h"

#include <algorithm>
#include <cstring>
#include <thread>

namespace railccl_torch {

bool await_keys(c10d::Store& store, const std::vector<std::string>& keys,
                Clock::time_point deadline, const std::function<void()>& wanted) {
  std::chrono::microseconds pause(200);
  while (!store.check(keys)) {
    if (wanted) wanted();
    if (Clock::now() >= deadline) return false;
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 3 / 2, std::chrono::microseconds(20000));
  }
  return true;
}

void put(c10d::Store& store, const std::string& key, const std::string& value) {
  store.set(key, std::vector<uint8_t>(value.begin(), value.end()));
}

std::string get(c10d::Store& store, const std::string& key) {
  const std::vector<uint8_t> value = store.get(key);
  return {value.begin(), value.end()};
}

std::vector<std::string> keys_of_ranks(const std::string& prefix, int size) {
  std::vector<std::string> keys;
  for (int rank = 1; rank < size; rank++) keys.push_back(prefix + std::to_string(rank));
  return keys;
}

std::string missing_ranks(c10d::Store& store, const std::string& prefix, int size, bool all) {
  std::string missing;
  for (int rank = 1; rank < size; rank++) {
    if (store.check({prefix + std::to_string(rank)})) continue;
    missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
    if (!all) break;
  }
  return missing;
}

std::string as_text(const ncclUniqueId& id) { return {id.internal, sizeof(id.internal)}; }

ncclUniqueId as_id(const std::string& text) {
  ncclUniqueId id;
  TORCH_CHECK(text.size() == sizeof(id.internal),
              "railccl: the store has no id under the key of one");
  std::memcpy(id.internal, text.data(), sizeof(id.internal));
  return id;
}

}  // namespace railccl_torch
