// Path text: what a rank knows of rails and paths, as JSON, for people and their tools.
//
// Pure function, any thread.
#pragma once

#include <string>

#include "topology/topology.h"
#include "transport/link.h"

namespace railccl::runtime {

/// {"rank", "ranks", "host", "rails": [...], "paths": [...], "events": [...]}; docs/operations.md
/// says what each means.
std::string text_of(const transport::PathReport& report, const topology::Topology& topology,
                    int rank);

}  // namespace railccl::runtime
