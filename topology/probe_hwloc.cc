// The hwloc probe: NUMA nodes, cores, last-level cache, and where the calling thread may run.
#include <hwloc.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/host_id.h"
#include "topology/host_records.h"
#include "topology/probes.h"

namespace railccl::topology {

namespace {

struct DestroyTopology {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using HwlocTopology = std::unique_ptr<hwloc_topology, DestroyTopology>;

struct FreeBitmap {
  void operator()(hwloc_bitmap_s* bitmap) const { hwloc_bitmap_free(bitmap); }
};
using Bitmap = std::unique_ptr<hwloc_bitmap_s, FreeBitmap>;

Result<HwlocTopology> load(bool ask_processors) {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) return system_error(errno, "hwloc cannot start");
  HwlocTopology topology(raw);
  // These plugins initialise GPU drivers, which takes seconds and does not survive a fork; GPUs
  // come from NVML instead.
  for (const char* plugin : {"cuda", "nvml", "opencl", "rsmi", "levelzero", "gl"})
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, plugin);
  if (!ask_processors)
    hwloc_topology_set_components(raw, HWLOC_TOPOLOGY_COMPONENTS_FLAG_BLACKLIST, "x86");
  if (hwloc_topology_load(raw) != 0) return system_error(errno, "hwloc cannot read this machine");
  return topology;
}

/// "0-3,8"; hwloc's list form is Linux's.
std::string list_of(hwloc_const_bitmap_t bitmap) {
  char* raw = nullptr;
  if (hwloc_bitmap_list_asprintf(&raw, bitmap) < 0) return {};
  const std::unique_ptr<char, decltype(&std::free)> owner(raw, &std::free);
  return raw;
}

/// The depth of the last-level caches in hwloc's tree; -1 where there are none.
int cache_depth(hwloc_topology_t topology) {
  for (const hwloc_obj_type_t level : {HWLOC_OBJ_L3CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L1CACHE}) {
    const hwloc_obj_t cache = hwloc_get_next_obj_by_type(topology, level, nullptr);
    if (cache != nullptr && cache->attr->cache.size > 0) return cache->depth;
  }
  return -1;
}

void add_last_level_cache(hwloc_topology_t topology, int depth, Host& host) {
  const hwloc_obj_t cache = hwloc_get_obj_by_depth(topology, depth, 0);
  host.last_level_cache_bytes = cache->attr->cache.size;
  host.cores_per_cache =
      std::max(0, hwloc_get_nbobjs_inside_cpuset_by_type(topology, cache->cpuset, HWLOC_OBJ_CORE));
}

/// The cache that serves all CPUs the thread may run on, by the lowest CPU that shares it, those
/// included that control groups hide from this process; -1 when several caches do.
int cache_of(hwloc_topology_t topology, int depth, hwloc_const_bitmap_t bound) {
  hwloc_obj_t cache = nullptr;
  while ((cache = hwloc_get_next_obj_by_depth(topology, depth, cache)) != nullptr)
    if (hwloc_bitmap_isincluded(bound, cache->cpuset))
      return std::min(hwloc_bitmap_first(cache->complete_cpuset), kCpuMax);
  return -1;
}

void add_numas(hwloc_topology_t topology, Facts& facts, NumaIndex& numas) {
  hwloc_obj_t node = nullptr;
  while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr) {
    if (facts.host.numas.size() == static_cast<size_t>(kPartsPerHostMax)) return;
    numas[static_cast<int>(node->os_index)] = static_cast<int>(facts.host.numas.size());
    facts.host.numas.push_back({node->attr->numanode.local_memory, list_of(node->cpuset)});
  }
}

/// The node whose CPUs include all the thread may run on; -1 when it takes several. Nodes without
/// CPUs (memory on expansion cards) hold nobody.
int binding(hwloc_topology_t topology, hwloc_const_bitmap_t bound) {
  int index = 0;
  hwloc_obj_t node = nullptr;
  for (; (node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != nullptr;
       index++)
    if (!hwloc_bitmap_iszero(node->cpuset) && hwloc_bitmap_isincluded(bound, node->cpuset))
      return index;
  return -1;
}

}  // namespace

Status probe_hwloc(Facts& facts, NumaIndex& numas) {
  // Asking each processor about itself means to wait for a turn on each; that is worth it only
  // where the operating system does not say what they said to it.
  RAILCCL_TRY(HwlocTopology topology, load(false));
  if (cache_depth(topology.get()) < 0) {
    RAILCCL_TRY(topology, load(true));
  }
  const int caches = cache_depth(topology.get());
  facts.host.machine = machine_id(list_of(hwloc_topology_get_allowed_cpuset(topology.get())));
  facts.host.cores = std::max(1, hwloc_get_nbobjs_by_type(topology.get(), HWLOC_OBJ_CORE));
  if (caches >= 0) add_last_level_cache(topology.get(), caches, facts.host);
  add_numas(topology.get(), facts, numas);
  const Bitmap bound(hwloc_bitmap_alloc());
  if (bound != nullptr &&
      hwloc_get_cpubind(topology.get(), bound.get(), HWLOC_CPUBIND_THREAD) == 0) {
    facts.cpus = list_of(bound.get());
    facts.numa = binding(topology.get(), bound.get());
    if (caches >= 0) facts.cache = cache_of(topology.get(), caches, bound.get());
  }
  return ok();
}

}  // namespace railccl::topology
