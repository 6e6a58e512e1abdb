// Plot: bus bandwidth against size as an SVG picture, ours and each peer at its best setting.
#pragma once

#include <string>
#include <vector>

#include "session.h"

namespace railccl::compare {

/// One panel per table (a collective on so many ranks), side by side in rows of two. Both axes are
/// logarithmic. Plain SVG 1.1 without scripts, on white paper.
std::string plot_of(const std::vector<std::vector<CellResult>>& tables, const std::string& machine);

}  // namespace railccl::compare
