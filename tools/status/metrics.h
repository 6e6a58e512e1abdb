// Metrics: what was gathered as OpenMetrics text, which Prometheus and others read. Pure function.
#pragma once

#include <string>

#include "status/show.h"

namespace railccl::status {

std::string metrics_of(const Gathered& gathered);

}  // namespace railccl::status
