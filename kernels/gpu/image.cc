// The image of the GPU's kernels, as cuModuleLoadData takes it, inside of the library.
#include "kernels/gpu/image.h"

asm(R"(
  .section .rodata
  .balign 16
  .globl railccl_gpu_image
  .hidden railccl_gpu_image
railccl_gpu_image:
  .incbin ")" RAILCCL_GPU_IMAGE R"("
  .balign 16
  .previous
)");

extern "C" const unsigned char railccl_gpu_image[];

namespace railccl::kernels::gpu {

const void* image() { return railccl_gpu_image; }

}  // namespace railccl::kernels::gpu
