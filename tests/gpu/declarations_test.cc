// Our declarations of the driver's functions, and our numbers, are those of CUDA's header.
#ifdef RAILCCL_CUDA_HEADER
#include <cuda.h>
#include <gtest/gtest.h>

#include "gpu/driver.h"

namespace railccl::gpu {
namespace {

/// As the calling convention has it: handles are pointers of any type, enumerations are integers.
template <typename Ours, typename Theirs>
struct Alike : std::false_type {};
template <typename... Ours, typename... Theirs>
requires(sizeof...(Ours) == sizeof...(Theirs)) struct Alike<int (*)(Ours...), CUresult(Theirs...)>
    : std::bool_constant<((sizeof(Ours) == sizeof(Theirs) &&
                           std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>)&&...)> {
};

TEST(GpuDeclarations, FunctionsTakeWhatTheHeaderSays) {
#define RAILCCL_CUDA(member, name, parameters) \
  static_assert(Alike<decltype(Driver::member), decltype(::name)>::value, #name " differs");
#include "gpu/functions.def"
#undef RAILCCL_CUDA
}

TEST(GpuDeclarations, NumbersAreTheHeaders) {
  EXPECT_EQ(CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP, 3);
  EXPECT_EQ(CU_EVENT_DISABLE_TIMING, 2);
  EXPECT_EQ(CU_STREAM_WAIT_VALUE_GEQ, 0);
  EXPECT_EQ(CU_STREAM_WRITE_VALUE_DEFAULT, 0);
  EXPECT_EQ(CU_STREAM_CAPTURE_STATUS_NONE, 0);
  EXPECT_EQ(CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 2);
  EXPECT_EQ(CU_POINTER_ATTRIBUTE_IS_MANAGED, 8);
  EXPECT_EQ(CU_MEMORYTYPE_DEVICE, 2);
  EXPECT_EQ(CUDA_ERROR_NOT_INITIALIZED, 3);
  EXPECT_EQ(CUDA_ERROR_NO_DEVICE, 100);
  EXPECT_EQ(CUDA_ERROR_NOT_READY, 600);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(CU_STREAM_LEGACY), 1u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(CU_STREAM_PER_THREAD), 2u);
}

}  // namespace
}  // namespace railccl::gpu
#endif
