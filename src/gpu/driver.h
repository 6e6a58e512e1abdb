// Driver: the CUDA driver of this process, libcuda.so.1, as far as the library calls it.
//
// Nothing is linked, and no CUDA runtime is used: the few functions are declared here and found in
// the library, so that one build serves machines with and without a GPU, and needs no toolkit. A
// process that has no driver loaded can have no GPU memory: there nothing is ever loaded or asked.
// Any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/status.h"

namespace railccl::gpu {

// The handles and addresses of the driver's interface.
using Context = void*;
using StreamHandle = void*;
using EventHandle = void*;
using Address = unsigned long long;

/// Where memory is.
enum class Home : uint8_t {
  host,    // that CUDA knows nothing of
  pinned,  // host memory that CUDA knows: only streams say when it may be touched
  device,  // of a GPU, or managed: not for the host to touch
};

/// The oldest driver that is served, as cuDriverGetVersion counts.
inline constexpr int kDriverOldest = 12000;

class Driver {
 public:
  /// The driver that this process has loaded, or null. Loads nothing.
  static const Driver* loaded();

  /// Starts the driver. Code unsupported, with what to do, when it is too old or has no device.
  Status usable() const;
  int devices() const;
  /// The context that is current in the calling thread; null: none, or the driver was not started.
  Context current() const;
  /// Of the current context; -1: none.
  int current_device() const;
  /// Asked in the thread's context, else in `context`, else in any device's: the driver answers in
  /// none but theirs.
  Result<Home> home_of(const void* pointer, Context context) const;

  /// What a function returned, as a Status that names it; `function`: CUDA's name, or ours.
  Status check(int result, const char* function) const;

  // The functions, by names of our own.
#define RAILCCL_CUDA(member, name, parameters) int(*member) parameters = nullptr;
#include "gpu/functions.def"
#undef RAILCCL_CUDA

 private:
  Driver() = default;
  Context any_primary() const;
  Result<Home> home_here(const void* pointer) const;
  static const Driver* found(void* library);
  const char* missing_ = nullptr;
};

/// Calls a function of the driver by our name for it: a Status.
#define RAILCCL_CUDA_CALL(driver, function, ...) \
  (driver).check((driver).function(__VA_ARGS__), #function)

/// Makes a context current in this thread for the time of a scope.
class WithContext {
 public:
  WithContext(const Driver& driver, Context context)
      : driver_(driver), status_(RAILCCL_CUDA_CALL(driver, context_push, context)) {}
  ~WithContext() {
    Context popped = nullptr;
    if (status_.is_ok()) driver_.context_pop(&popped);
  }
  WithContext(const WithContext&) = delete;
  WithContext& operator=(const WithContext&) = delete;
  const Status& status() const { return status_; }

 private:
  const Driver& driver_;
  Status status_;
};

/// For the time of a scope this thread may allocate, although another one is capturing a graph: no
/// part of that. The driver would else end the capture.
class BesideCaptures {
 public:
  explicit BesideCaptures(const Driver& driver) : driver_(driver) {
    driver_.exchange_capture_mode(&mode_);
  }
  ~BesideCaptures() { driver_.exchange_capture_mode(&mode_); }
  BesideCaptures(const BesideCaptures&) = delete;
  BesideCaptures& operator=(const BesideCaptures&) = delete;

 private:
  static constexpr int kRelaxed = 2;
  const Driver& driver_;
  int mode_ = kRelaxed;  // then the one before
};

}  // namespace railccl::gpu
