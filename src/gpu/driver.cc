// Finding the driver, and what it says of itself and of memory.
#include "gpu/driver.h"

#include <dlfcn.h>

#include <atomic>
#include <mutex>
#include <string>
#include <string_view>

namespace railccl::gpu {
namespace {

constexpr char kLibrary[] = "libcuda.so.1";
constexpr int kSuccess = 0;
constexpr int kNoDevice = 100;
constexpr int kMemoryType = 2;  // attributes of pointers
constexpr int kIsManaged = 8;
constexpr unsigned kTypeDevice = 2;

std::atomic<const Driver*> known{nullptr};

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

}  // namespace

const Driver* Driver::found(void* library) {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  if (const Driver* driver = known.load(std::memory_order_acquire)) return driver;
  auto* driver = new Driver;  // stays, like the library
#define RAILCCL_CUDA(member, name, parameters)                                 \
  driver->member = reinterpret_cast<int(*) parameters>(dlsym(library, #name)); \
  if (driver->member == nullptr) driver->missing_ = #name;
#include "gpu/functions.def"
#undef RAILCCL_CUDA
  known.store(driver, std::memory_order_release);  // partner: the acquires of known
  return driver;
}

const Driver* Driver::loaded() {
  if (const Driver* driver = known.load(std::memory_order_acquire)) return driver;
  void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
  return library == nullptr ? nullptr : found(library);
}

Status Driver::check(int result, const char* function) const {
  if (result == kSuccess) return ok();
#define RAILCCL_CUDA(member, exported, parameters) \
  if (std::string_view(function) == #member) function = #exported;
#include "gpu/functions.def"
#undef RAILCCL_CUDA
  const char *name = nullptr, *text = nullptr;
  if (error_name != nullptr) error_name(result, &name);
  if (error_string != nullptr) error_string(result, &text);
  return Status(Code::gpu, "CUDA driver, {}: {} ({})", function,
                name != nullptr ? name : std::to_string(result), text != nullptr ? text : "");
}

Status Driver::usable() const {
  int version = 0;
  if (driver_version == nullptr || init == nullptr || device_count == nullptr)
    return Status(Code::unsupported, "{} is no CUDA driver: it has no {}", kLibrary, missing_);
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(*this, driver_version, &version));
  if (version < kDriverOldest || missing_ != nullptr)
    return Status(Code::unsupported,
                  "the CUDA driver is too old: it supports CUDA {}, and {} is needed (on Linux: "
                  "driver 525.60 or later){}{}",
                  version_text(version), version_text(kDriverOldest),
                  missing_ != nullptr ? "; it lacks " : "", missing_ != nullptr ? missing_ : "");
  const int started = init(0);
  int count = 0;
  if (started == kNoDevice ||
      (started == kSuccess && device_count(&count) == kSuccess && count == 0))
    return Status(Code::unsupported,
                  "the CUDA driver finds no device (is a GPU there, and visible to this process: "
                  "CUDA_VISIBLE_DEVICES, the container's devices?)");
  return check(started, "cuInit");
}

int Driver::devices() const {
  int count = 0;
  return device_count != nullptr && device_count(&count) == kSuccess ? count : 0;
}

Context Driver::current() const {
  Context context = nullptr;
  return context_current != nullptr && context_current(&context) == kSuccess ? context : nullptr;
}

int Driver::current_device() const {
  int device = -1;
  return current() != nullptr && context_device != nullptr && context_device(&device) == kSuccess
             ? device
             : -1;
}

/// The context of a device that is in use; null: none is, so nobody has memory there.
Context Driver::any_primary() const {
  static std::atomic<Context> kept{nullptr};
  if (Context context = kept.load(std::memory_order_acquire)) return context;
  for (int device = 0; device < devices(); device++) {
    unsigned flags = 0;
    int active = 0;
    Context context = nullptr;
    if (primary_state(device, &flags, &active) != kSuccess || active == 0) continue;
    if (primary_retain(&context, device) != kSuccess) continue;
    kept.store(context, std::memory_order_release);  // partner: the acquire above
    return context;
  }
  return nullptr;
}

Result<Home> Driver::home_of(const void* pointer, Context context) const {
  if (pointer == nullptr || missing_ != nullptr) return Home::host;
  if (current() != nullptr) return home_here(pointer);
  if (context == nullptr) context = any_primary();
  if (context == nullptr) return Home::host;
  const WithContext with(*this, context);
  RAILCCL_CHECK(with.status());
  return home_here(pointer);
}

Result<Home> Driver::home_here(const void* pointer) const {
  unsigned type = 0, managed = 0;
  int attributes[] = {kMemoryType, kIsManaged};
  void* values[] = {&type, &managed};
  RAILCCL_CHECK(
      check(pointer_attributes(2, attributes, values, reinterpret_cast<uintptr_t>(pointer)),
            "cuPointerGetAttributes"));
  if (type == kTypeDevice || managed != 0) return Home::device;
  return type == 0 ? Home::host : Home::pinned;
}

}  // namespace railccl::gpu
