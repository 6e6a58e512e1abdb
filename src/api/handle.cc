// The pool of communicator handles; see handle.h.
#include "api/handle.h"

#include <time.h>

#include <deque>

namespace railccl::api {
namespace {

struct Pool {
  std::mutex mutex;
  std::deque<std::unique_ptr<ncclComm>> all;
  std::deque<ncclComm_t> free;  // the longest unused first
};

// Handles are reused only when this many lie idle: a stale one stays recognisable for long.
constexpr size_t kIdleMin = 256;

Pool& pool() {
  static Pool* instance = new Pool;  // never destroyed: threads may still look at handles
  return *instance;
}

}  // namespace

ncclComm_t new_handle() {
  Pool& handles = pool();
  std::lock_guard lock(handles.mutex);
  ncclComm_t handle = nullptr;
  if (handles.free.size() > kIdleMin) {
    handle = handles.free.front();
    handles.free.pop_front();
  } else {
    handles.all.push_back(std::make_unique<ncclComm>());
    handle = handles.all.back().get();
  }
  handle->magic.store(ncclComm::kAlive);
  return handle;
}

void set_communicator(ncclComm_t handle, std::shared_ptr<runtime::Communicator> communicator) {
  handle->communicator = std::move(communicator);
  // Release, partner: the acquire in Use::of().
  handle->ready.store(true, std::memory_order_release);
}

bool is_valid(ncclComm_t handle) {
  return handle != nullptr && reinterpret_cast<uintptr_t>(handle) % alignof(ncclComm) == 0 &&
         handle->magic.load() == ncclComm::kAlive;
}

void wait_for_users(ncclComm_t handle) {
  // Acquire, partner: the release in Use.
  while (handle->users.load(std::memory_order_acquire) > 0) {
    const timespec pause{0, 50'000};
    ::nanosleep(&pause, nullptr);
  }
}

void recycle(ncclComm_t handle) {
  handle->communicator.reset();
  handle->ready.store(false, std::memory_order_relaxed);
  handle->revoked.store(false, std::memory_order_relaxed);
  handle->finalized.store(false, std::memory_order_relaxed);
  handle->operators.clear();
  handle->registrations.clear();
  handle->windows.clear();
  handle->last.valid = false;
  std::lock_guard lock(pool().mutex);
  pool().free.push_back(handle);
}

Result<Use> Use::of(ncclComm_t handle) {
  if (handle == nullptr) return Status(Code::invalid_argument, "the communicator is null");
  if (reinterpret_cast<uintptr_t>(handle) % alignof(ncclComm) != 0)
    return Status(Code::invalid_argument, "the communicator handle is garbage");
  // Counted first, then looked at: an end_handle() in between sees the count or we see its mark.
  Use use(handle, handle->users.fetch_add(1) == 0);
  if (handle->magic.load() != ncclComm::kAlive)
    return Status(Code::invalid_argument,
                  "the communicator handle is not valid: destroyed, aborted or never made");
  // Acquire, partner: the release in set_communicator().
  if (!handle->ready.load(std::memory_order_acquire))
    return Status(Code::invalid_usage, "the communicator is not made yet: its group has not ended");
  return use;
}

}  // namespace railccl::api
