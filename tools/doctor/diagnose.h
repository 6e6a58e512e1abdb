// Diagnose: from what all hosts' probes saw to what is wrong, and where.
//
// A probe that fails accuses both its ends; a NIC of which all probes fail, while others on its
// rail succeed, is the culprit; where all fail, the rail is. Speeds, round trips and losses are
// compared with what is usual on the rail. Pure functions.
#pragma once

#include <string>
#include <vector>

#include "doctor/finding.h"
#include "doctor/pair_probe.h"

namespace railccl::doctor {

/// `hosts`: names by number, the `from` and `to` of results.
Findings diagnose(const std::vector<std::string>& hosts, const std::vector<PairResult>& results);

}  // namespace railccl::doctor
