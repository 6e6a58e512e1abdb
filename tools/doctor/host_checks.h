// Host checks: what a host's report alone shows to be wrong, and what shows when the reports of all
// hosts are laid side by side. Pure functions.
#pragma once

#include <vector>

#include "doctor/finding.h"
#include "doctor/host_report.h"

namespace railccl::doctor {

/// Of one host. `ranks`: of the whole job, 1 if it is alone.
Findings check_host(const HostReport& host, int ranks);
/// Of all hosts, where they should agree: versions, settings, MTUs, speeds, NICs, addresses.
Findings compare_hosts(const std::vector<HostReport>& hosts);

}  // namespace railccl::doctor
