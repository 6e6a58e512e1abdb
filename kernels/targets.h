// Which Highway targets are compiled; every file that includes Highway includes this first.
//
// Length-agnostic targets (SVE, RISC-V) are left out because accumulators live in arrays, which
// vectors of unknown length cannot; Arm falls back to NEON, RISC-V to the portable target. SSSE3
// and SSE4 are left out because servers of the last ten years have AVX2; what has less runs the
// portable target's SSE2.
#pragma once

#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
