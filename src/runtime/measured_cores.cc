// Measured cores: one CPU per core, and the first one's neighbours by NUMA node and cache.
#include "runtime/measured_cores.h"

#include <fmt/format.h>
#include <sched.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <system_error>
#include <thread>

namespace railccl::runtime {

namespace {

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

/// The lowest CPU of each core among `cpus`: hardware threads of one core share its caches.
std::vector<int> one_per_core(const std::vector<int>& cpus) {
  std::set<std::string> cores;
  std::vector<int> chosen;
  for (const int cpu : cpus) {
    std::ifstream file(
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = std::to_string(cpu);
    if (cores.insert(siblings).second) chosen.push_back(cpu);
  }
  return chosen;
}

/// Where a CPU is.
struct Place {
  std::string node;   // "node0"
  std::string cache;  // the CPUs that share its last-level cache
};

Place place_of(int cpu, const std::string& sysfs) {
  const std::string folder = fmt::format("{}/devices/system/cpu/cpu{}", sysfs, cpu);
  Place place;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("node")) place.node = name;
  }
  // Caches are numbered from the core outwards.
  for (int index = 0;; index++) {
    std::ifstream file(fmt::format("{}/cache/index{}/shared_cpu_list", folder, index));
    std::string shared;
    if (!std::getline(file, shared)) return place;
    place.cache = shared;
  }
}

}  // namespace

Neighbours neighbours_of_first(const std::vector<int>& cpus, const std::string& sysfs) {
  const Place first = place_of(cpus[0], sysfs);
  int near = -1, other_cache = -1, other_node = -1;
  for (size_t i = 1; i < cpus.size() && (near < 0 || other_node < 0); i++) {
    const Place place = place_of(cpus[i], sysfs);
    int& found = place.node != first.node     ? other_node
                 : place.cache != first.cache ? other_cache
                                              : near;
    if (found < 0) found = cpus[i];
  }
  const int far = other_node >= 0 ? other_node : other_cache;
  if (near < 0) near = other_cache >= 0 ? other_cache : other_node;
  if (near < 0) near = cpus[0];
  return {near, far < 0 ? near : far};
}

std::vector<int> cores_to_measure() {
  std::vector<int> cores = one_per_core(allowed_cpus());
  if (cores.size() > 1) return cores;
  // On a thread of its own, so that the caller's affinity stays as it is.
  try {
    std::thread([&] {
      cpu_set_t everything;
      std::memset(&everything, 0xff, sizeof everything);
      if (sched_setaffinity(0, sizeof everything, &everything) == 0)
        cores = one_per_core(allowed_cpus());
    }).join();
  } catch (const std::system_error&) {
    // No thread, no wider view.
  }
  return cores;
}

}  // namespace railccl::runtime
