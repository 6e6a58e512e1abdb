// Which Highway targets are compiled; every file that includes Highway includes this first.
//
// Length-agnostic targets (SVE, RISC-V) are left out because accumulators live in arrays, which
// vectors of unknown length cannot; Arm falls back to NEON, RISC-V to the portable target. SSSE3
// is left out because every machine of the last fifteen years that has it has SSE4 too.
#pragma once

#define RAILCCL_UNFIT_TARGETS \
  (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#ifdef RAILCCL_FEW_SIMD_TARGETS  // one of each vector length
#define HWY_DISABLED_TARGETS (RAILCCL_UNFIT_TARGETS | HWY_SSE4)
#else
#define HWY_DISABLED_TARGETS RAILCCL_UNFIT_TARGETS
#endif
