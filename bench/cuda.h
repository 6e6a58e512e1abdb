// Cuda: the few functions of the CUDA driver that --device cuda needs, found at run time.
#pragma once

#include <cstddef>
#include <string>

namespace railccl::bench {

class Cuda {
 public:
  /// Makes the device of this rank current in this thread: they are dealt out in turn. Ends the
  /// program with a message where there is none, as all functions here do when they fail.
  static void use_device_of(int rank);
  static void* alloc(size_t bytes);
  static void free(void* memory);
  /// From or to memory of the host; complete on return.
  static void copy(void* to, const void* from, size_t bytes);
  static void* make_stream();
  static void end_stream(void* stream);
  static void synchronize(void* stream);
};

}  // namespace railccl::bench
