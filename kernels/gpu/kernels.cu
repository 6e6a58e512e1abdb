// The GPU's kernels: copy, and one reduction for each datatype and combining operator, from the
// tables of railccl/types.h. Names: railccl_copy, railccl_reduce_float32_sum, ...
#include "kernels/gpu/reduce.h"

namespace {

__device__ __forceinline__ uint64_t this_thread() {
  return static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ uint64_t all_threads() {
  return static_cast<uint64_t>(gridDim.x) * blockDim.x;
}

constexpr int kThreadsPerBlock = 256;

}  // namespace

using namespace railccl;
using namespace railccl::kernels::gpu;

extern "C" __global__ void __launch_bounds__(kThreadsPerBlock)
    railccl_copy(const __grid_constant__ CopyArgs args) {
  copy_part(args, this_thread(), all_threads());
}

#define RAILCCL_KERNEL(type, op)                                                            \
  extern "C" __global__ void __launch_bounds__(kThreadsPerBlock)                            \
      railccl_reduce_##type##_##op(const __grid_constant__ ReduceArgs args) {               \
    reduce_part<CodecOf<Datatype::type>::Type, Reduction::op>(args, this_thread(),          \
                                                              all_threads());               \
  }
#define RAILCCL_ROW(type, number, bytes, text) \
  RAILCCL_KERNEL(type, sum)                    \
  RAILCCL_KERNEL(type, prod)                   \
  RAILCCL_KERNEL(type, max)                    \
  RAILCCL_KERNEL(type, min)
RAILCCL_DATATYPES(RAILCCL_ROW)
