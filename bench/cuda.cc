// Finding the driver, and its words for what it refuses.
#include "cuda.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace railccl::bench {
namespace {

using Address = unsigned long long;

[[noreturn]] void end_with(const char* what, const char* why) {
  std::fprintf(stderr, "railccl-bench: --device cuda: %s: %s\n", what, why);
  std::_Exit(3);
}

void* find(const char* name) {
  static void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) end_with("libcuda.so.1 cannot be loaded", "there is no CUDA driver");
  void* const function = dlsym(library, name);
  if (function == nullptr) end_with(name, "the CUDA driver is too old");
  return function;
}

/// Calls a function of the driver by name.
template <typename... Parameters>
void call(const char* name, Parameters... parameters) {
  const int result = reinterpret_cast<int (*)(Parameters...)>(find(name))(parameters...);
  if (result == 0) return;
  const char* text = nullptr;
  reinterpret_cast<int (*)(int, const char**)>(find("cuGetErrorString"))(result, &text);
  end_with(name, text != nullptr ? text : "failed");
}

Address address_of(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

}  // namespace

void Cuda::use_device_of(int rank) {
  int devices = 0;
  void* context = nullptr;
  call("cuInit", 0u);
  call("cuDeviceGetCount", &devices);
  if (devices == 0) end_with("cuDeviceGetCount", "no device");
  call("cuDevicePrimaryCtxRetain", &context, rank % devices);
  call("cuCtxSetCurrent", context);
}

void* Cuda::alloc(size_t bytes) {
  Address address = 0;
  call("cuMemAlloc_v2", &address, bytes);
  return reinterpret_cast<void*>(address);
}
void Cuda::free(void* memory) { call("cuMemFree_v2", address_of(memory)); }
void Cuda::copy(void* to, const void* from, size_t bytes) {
  call("cuMemcpy", address_of(to), address_of(from), bytes);
}

void* Cuda::make_stream() {
  constexpr unsigned kNonBlocking = 1;
  void* stream = nullptr;
  call("cuStreamCreate", &stream, kNonBlocking);
  return stream;
}
void Cuda::end_stream(void* stream) { call("cuStreamDestroy_v2", stream); }
void Cuda::synchronize(void* stream) { call("cuStreamSynchronize", stream); }

}  // namespace railccl::bench
