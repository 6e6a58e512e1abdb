// ncclComm: the handle that callers hold. Private to this room.
//
// Handles live in a pool that never shrinks, and a destroyed handle is reused as late as possible:
// so a stale handle can be recognised by its magic number instead of crashing the caller.
//
// A call holds the handle by a Use. Abort and destroy first make the handle invalid for new calls,
// then (abort only) end what runs, then wait until the last Use is gone: that is what makes abort
// safe while another thread is inside a call.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "api/exports.h"
#include "base/status.h"
#include "runtime/communicator.h"
#include "transport/registered_memory.h"

namespace railccl::api {

/// An operator made by ncclRedOpCreatePreMulSum.
struct MadeOperator {
  bool alive = false;
  Datatype datatype = Datatype::float32;
  const void* residence = nullptr;  // read at each call; null: `factor` holds
  kernels::Scale factor;
};

/// A collective as its caller describes it.
struct Arguments {
  Collective collective = Collective::all_reduce;
  const void* input = nullptr;
  void* output = nullptr;
  size_t count = 0;
  ncclDataType_t datatype = ncclFloat32;
  ncclRedOp_t op = ncclSum;
  int root = 0;
};

/// The last collective that passed all checks, so that the same again need not pass them again.
struct LastCall {
  bool valid = false;
  Arguments arguments;
  runtime::Call call;
};

}  // namespace railccl::api

struct ncclComm {
  static constexpr uint64_t kAlive = 0x7261696c63636c21;
  static constexpr uint64_t kDead = 0;

  std::atomic<uint64_t> magic{kDead};
  std::atomic<int> users{0};
  // Set before the handle is alive; null until a group's end has made it.
  std::shared_ptr<railccl::runtime::Communicator> communicator;
  std::atomic<bool> ready{false};    // `communicator` may be read
  std::atomic<bool> revoked{false};  // by ncclCommRevoke
  std::atomic<bool> finalized{false};
  // The rest: by the thread that uses the communicator.
  std::vector<railccl::api::MadeOperator> operators;
  std::unordered_map<void*, std::shared_ptr<const railccl::transport::RegisteredMemory>>
      registrations;
  std::unordered_map<void*, std::shared_ptr<railccl::runtime::Window>> windows;
  // By the Use that found no other.
  railccl::api::LastCall last;
};

namespace railccl::api {

/// A new handle, valid but not ready.
ncclComm_t new_handle();
/// Makes it ready.
void set_communicator(ncclComm_t handle, std::shared_ptr<runtime::Communicator> communicator);
/// Invalidates, waits for users, empties and returns the handle to the pool. False when it was not
/// valid (any more). `ending` runs after the invalidation and before the wait.
template <typename Ending>
bool end_handle(ncclComm_t handle, const Ending& ending);

/// One call's hold on a handle.
class Use {
 public:
  /// Fails for null, garbage and stale handles, and for those that are not ready.
  static Result<Use> of(ncclComm_t handle);
  Use(Use&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), first_(other.first_) {}
  Use& operator=(Use&&) = delete;
  ~Use() { release(); }

  ncclComm* operator->() const { return handle_; }
  /// Did it find no other Use? Then it has what belongs to one thread at a time, until it ends: the
  /// next one that is first comes after all that came while this one lasted.
  bool first() const { return first_; }
  runtime::Communicator& communicator() const { return *handle_->communicator; }
  const std::shared_ptr<runtime::Communicator>& shared() const { return handle_->communicator; }

 private:
  Use(ncclComm_t handle, bool first) : handle_(handle), first_(first) {}
  void release() {
    // Release, partner: the acquire in end_handle().
    if (handle_ != nullptr) handle_->users.fetch_sub(1, std::memory_order_release);
  }
  ncclComm_t handle_ = nullptr;
  bool first_ = false;
};

/// Is it a handle that new calls may use?
bool is_valid(ncclComm_t handle);
void wait_for_users(ncclComm_t handle);
void recycle(ncclComm_t handle);

template <typename Ending>
bool end_handle(ncclComm_t handle, const Ending& ending) {
  if (!is_valid(handle)) return false;
  uint64_t alive = ncclComm::kAlive;
  // Sequentially consistent, partner: Use::of(), which counts itself before it looks at magic.
  if (!handle->magic.compare_exchange_strong(alive, ncclComm::kDead)) return false;
  ending();
  wait_for_users(handle);
  recycle(handle);
  return true;
}

}  // namespace railccl::api
