// detect(): the probes in order. Each fills its own part; a later one may refer to an earlier's.
#include "topology/probe.h"

#include <unistd.h>

#include "base/host_id.h"
#include "topology/probes.h"
#include "topology/rails.h"

namespace railccl::topology {

Result<Facts> detect(const Settings& settings) {
  Facts facts;
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  facts.host.name = name;
  facts.host.id = host_id(settings);
  facts.process = process_id();
  NumaIndex numas;
  RAILCCL_CHECK(probe_hwloc(facts, numas));
  RAILCCL_CHECK(probe_interfaces(settings, numas, facts));
  RAILCCL_CHECK(probe_rdma(kSysfs, numas, facts));
  RAILCCL_CHECK(probe_nvml(kSysfs, numas, facts));
  RAILCCL_CHECK(set_rails_by_hand(settings.rails, facts.host));
  return facts;
}

}  // namespace railccl::topology
