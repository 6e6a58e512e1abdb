// The functions of nccl.h about memory: allocation, registration, windows.
//
// Where a context of CUDA is current, ncclMemAlloc gives memory of its GPU. Else its memory lies in
// files that the ranks of a host map (transport/memory_file.h), so that collectives read and write
// it in place. On host memory every transport works with any buffer; what is registered is known to
// stay where it is, which saves some of them a copy (transport/registered_memory.h). Registrations
// are checked, and whoever gives a handle back twice is told.
#include <limits>
#include <map>

#include "api/errors.h"
#include "api/jobs.h"
#include "gpu/driver.h"
#include "transport/memory_file.h"

using namespace railccl;
using namespace railccl::api;

namespace {

Status check_range(const void* buffer, size_t bytes) {
  RAILCCL_CHECK(not_null(buffer, "buff"));
  if (bytes == 0) return Status(Code::invalid_argument, "size is 0");
  if (bytes > std::numeric_limits<uintptr_t>::max() - reinterpret_cast<uintptr_t>(buffer))
    return Status(Code::invalid_argument, "size {} runs past the end of memory", bytes);
  return ok();
}

/// A handle that no other registration of the process has.
void* make_token() {
  static std::atomic<uintptr_t> next{1};
  return reinterpret_cast<void*>(next.fetch_add(1) * 16);
}

/// Memory of GPUs that ncclMemAlloc has given out, and the contexts that it belongs to.
struct OnGpus {
  std::mutex mutex;
  std::map<const void*, gpu::Context> contexts;
};
OnGpus& on_gpus() {
  static OnGpus* instance = new OnGpus;  // never destroyed, as the pool of communicators
  return *instance;
}

Result<void*> alloc_on_gpu(const gpu::Driver& driver, size_t bytes) {
  const gpu::BesideCaptures beside(driver);
  gpu::Address address = 0;
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, memory_alloc, &address, bytes == 0 ? 1 : bytes));
  void* const memory = reinterpret_cast<void*>(address);
  std::lock_guard lock(on_gpus().mutex);
  on_gpus().contexts[memory] = driver.current();
  return memory;
}

/// False when it is no such memory.
Result<bool> free_on_gpu(const void* memory) {
  gpu::Context context = nullptr;
  {
    std::lock_guard lock(on_gpus().mutex);
    const auto found = on_gpus().contexts.find(memory);
    if (found == on_gpus().contexts.end()) return false;
    context = found->second;
    on_gpus().contexts.erase(found);
  }
  const gpu::Driver& driver = *gpu::Driver::loaded();
  const gpu::WithContext with(driver, context);
  RAILCCL_CHECK(with.status());
  const gpu::BesideCaptures beside(driver);
  RAILCCL_CHECK(RAILCCL_CUDA_CALL(driver, memory_free, reinterpret_cast<uintptr_t>(memory)));
  return true;
}

}  // namespace

extern "C" {

ncclResult_t pncclMemAlloc(void** ptr, size_t size) {
  return api::call("ncclMemAlloc", [&]() -> Status {
    RAILCCL_CHECK(not_null(ptr, "ptr"));
    if (size > std::numeric_limits<size_t>::max() / 2)
      return Status(Code::invalid_argument, "size {} is more than any memory", size);
    const gpu::Driver* const driver = gpu::Driver::loaded();
    if (driver != nullptr && driver->current() != nullptr) {
      RAILCCL_CHECK(driver->usable());
      RAILCCL_TRY(*ptr, alloc_on_gpu(*driver, size));
      return ok();
    }
    RAILCCL_TRY(const auto file, transport::MemoryFile::create(size == 0 ? 1 : size));
    *ptr = file->data();
    return ok();
  });
}

ncclResult_t pncclMemFree(void* ptr) {
  if (ptr == nullptr) return ncclSuccess;
  return api::call("ncclMemFree", [&]() -> Status {
    if (transport::MemoryFile::release(ptr)) return ok();
    RAILCCL_TRY(const bool freed, free_on_gpu(ptr));
    if (freed) return ok();
    return Status(Code::invalid_argument, "{} does not come from ncclMemAlloc, or was freed", ptr);
  });
}

ncclResult_t pncclCommRegister(const ncclComm_t comm, void* buff, size_t size, void** handle) {
  return api::call("ncclCommRegister", [&]() -> Status {
    RAILCCL_CHECK(not_null(handle, "handle"));
    RAILCCL_TRY(Use use, Use::of(comm));
    RAILCCL_CHECK(check_range(buff, size));
    void* token = make_token();
    use->registrations[token] = transport::RegisteredMemory::add(buff, size);
    *handle = token;
    return ok();
  });
}

ncclResult_t pncclCommDeregister(const ncclComm_t comm, void* handle) {
  return api::call("ncclCommDeregister", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    if (use->registrations.erase(handle) == 1) return ok();
    return Status(Code::invalid_argument,
                  "handle {} is no registration of this communicator, or was given back", handle);
  });
}

ncclResult_t pncclCommWindowRegister(ncclComm_t comm, void* buff, size_t size, ncclWindow_t* win,
                                     int winFlags) {
  return api::call("ncclCommWindowRegister", [&]() -> Status {
    const auto begin = [&]() -> Status {
      RAILCCL_CHECK(not_null(win, "win"));
      RAILCCL_TRY(Use use, Use::of(comm));
      RAILCCL_CHECK(check_range(buff, size));
      if ((winFlags & ~(NCCL_WIN_COLL_SYMMETRIC | NCCL_WIN_STRICT_ORDERING)) != 0)
        return Status(Code::invalid_argument, "winFlags is {:#x}", winFlags);
      if (reinterpret_cast<uintptr_t>(buff) % NCCL_WIN_REQUIRED_ALIGNMENT != 0)
        return Status(Code::invalid_argument, "buff is not aligned to {} bytes",
                      NCCL_WIN_REQUIRED_ALIGNMENT);
      void* token = make_token();
      *win = static_cast<ncclWindow_t>(token);
      return run_job([comm, win, token, buff, size, winFlags]() -> Status {
        RAILCCL_TRY(Use again, Use::of(comm));
        auto window =
            again.communicator().register_window(buff, size, static_cast<uint64_t>(winFlags));
        if (!window.is_ok()) {
          *win = nullptr;
          return window.status();
        }
        again->windows[token] = std::move(window).value();
        return ok();
      });
    };
    const Status status = begin();
    if (!status.is_ok()) refuse_group(status);
    return status;
  });
}

ncclResult_t pncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t win) {
  return api::call("ncclCommWindowDeregister", [&]() -> Status {
    RAILCCL_TRY(Use use, Use::of(comm));
    if (use->windows.erase(win) == 1) return ok();
    return Status(Code::invalid_argument, "{} is no window of this communicator, or was given back",
                  static_cast<const void*>(win));
  });
}

}  // extern "C"

RAILCCL_EXPORT(ncclMemAlloc);
RAILCCL_EXPORT(ncclMemFree);
RAILCCL_EXPORT(ncclCommRegister);
RAILCCL_EXPORT(ncclCommDeregister);
RAILCCL_EXPORT(ncclCommWindowRegister);
RAILCCL_EXPORT(ncclCommWindowDeregister);
