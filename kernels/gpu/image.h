// The image of the GPU's kernels (kernels.cu). Only in builds with a CUDA toolkit.
#pragma once

namespace railccl::kernels::gpu {

/// A fatbin, for cuModuleLoadData.
const void* image();

}  // namespace railccl::kernels::gpu
