// Launches: contenders described in a file, for comparisons that have to start processes in ways of
// their own (bench/compare_rails: inside the hosts of a lab).
//
// A JSON list of {"family": "Gloo", "label": "Gloo on rail0", "variants": ["new_ring"],
// "commands": [["program", "{page}", ...], ...]}: one process is started per command; a variant ""
// is the library's only one.
#pragma once

#include <string>
#include <vector>

#include "contenders.h"

namespace railccl::compare {

/// False with the reason in `error`.
bool read_launches(const std::string& path, std::vector<Planned>* planned, std::string* error);

}  // namespace railccl::compare
