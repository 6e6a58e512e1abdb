// Kernels by name; see fake_kernels.cc. Private to the driver that stands in for CUDA's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace railccl::fake {

/// From an address of a device to where its bytes are.
using Translate = std::function<void*(void*)>;

struct Kernel {
  size_t argument_bytes;  // all of ours take one
  void (*run)(const void* argument, uint64_t threads, const Translate& real);
};
/// Null: there is none.
const Kernel* find_kernel(const char* name);

}  // namespace railccl::fake
