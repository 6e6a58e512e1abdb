// Algorithm: finds rows of the generated registry.
#include "algorithms/algorithm.h"

#include <string_view>

namespace railccl::algorithms {

const Algorithm* find(Collective collective, std::string_view name) {
  for (const Algorithm* algorithm : all()) {
    if (algorithm->collective == collective && algorithm->name == name) return algorithm;
  }
  return nullptr;
}

}  // namespace railccl::algorithms
