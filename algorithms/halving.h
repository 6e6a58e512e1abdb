// Halving: what others need to know of halving_reduce_scatter's scratch.
#pragma once

#include "algorithms/flat.h"

namespace railccl::algorithms {

/// Elements of scratch that halving_reduce_scatter takes on this stage when it is given no work.
uint64_t halving_scratch(const Stage& stage, const Blocks& input);

}  // namespace railccl::algorithms
