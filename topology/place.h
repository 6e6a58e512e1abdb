// Place: which part of its host a rank is bound to. One rank looks at the host (probe.h), each at
// its own place, and merge.h puts them together.
#pragma once

#include <string>

#include "topology/topology.h"

namespace railccl::topology {

struct Place {
  std::string cpus;  // what the calling thread may run on, Linux list form; empty: nobody knows
  int cache = -1;    // its last-level cache, named by the lowest CPU that shares it; -1: several
};

/// Takes some 50 us. Thread-safe. Tests point `sysfs` at a tree of their own.
Place own_place(const std::string& sysfs = "/sys");

/// The NUMA node of `host` that has all of `cpus`; -1 when it takes several, or nobody knows.
int numa_of(const Host& host, const std::string& cpus);

}  // namespace railccl::topology
