// The registry of ranges.
#include "transport/registered_memory.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>
#include <vector>

namespace railccl::transport {
namespace {

/// Few ranges, so a list. Handles take themselves out as they end.
struct Registry {
  std::mutex mutex;
  std::vector<std::pair<const RegisteredMemory*, std::weak_ptr<const RegisteredMemory>>> ranges;
  std::atomic<uint64_t> generation{1};
};
Registry& registry() {
  static Registry* const instance = new Registry;  // handles may end after everything else
  return *instance;
}

}  // namespace

std::shared_ptr<const RegisteredMemory> RegisteredMemory::add(const void* address, size_t bytes) {
  auto* const data = static_cast<std::byte*>(const_cast<void*>(address));
  std::shared_ptr<const RegisteredMemory> made(new RegisteredMemory({data, bytes}));
  std::lock_guard lock(registry().mutex);
  registry().ranges.emplace_back(made.get(), made);
  // Release, partner: the acquire in generation().
  registry().generation.fetch_add(1, std::memory_order_release);
  return made;
}

RegisteredMemory::~RegisteredMemory() {
  std::lock_guard lock(registry().mutex);
  std::erase_if(registry().ranges, [&](const auto& entry) { return entry.first == this; });
  registry().generation.fetch_add(1, std::memory_order_release);
}

std::shared_ptr<const RegisteredMemory> RegisteredMemory::find(const void* address, size_t bytes) {
  std::shared_ptr<const RegisteredMemory>
      found;  // may be the last handle: it ends outside the lock
  std::lock_guard lock(registry().mutex);
  for (const auto& [range, handle] : registry().ranges) {
    if (!range->range().holds(address, bytes)) continue;
    // Null where its end waits for the lock.
    found = handle.lock();
    if (found) return found;
  }
  return nullptr;
}

uint64_t RegisteredMemory::generation() {
  return registry().generation.load(std::memory_order_acquire);
}

}  // namespace railccl::transport
