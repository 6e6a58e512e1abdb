// The place of the calling thread from a few system calls, where looking at the whole host takes
// hwloc milliseconds and a visit to every core; and sets of CPUs as ranges.
#include "topology/place.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>
#include <vector>

#include "topology/host_records.h"
#include "topology/probes.h"

namespace railccl::topology {

namespace {

/// CPUs from `first` to `last`; ascending in a list, and apart from each other.
using Ranges = std::vector<std::pair<int, int>>;

/// Of Linux's list form, "0-3,8". Empty for anything else: other ranks' text comes by here.
Ranges parse_list(const std::string& text) {
  Ranges ranges;
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto number = [&](int* value) {
    const auto [after, error] = std::from_chars(at, end, *value);
    at = after;
    return error == std::errc() && *value >= 0 && *value <= kCpuMax;
  };
  while (at != end) {
    if (!ranges.empty() && *at++ != ',') return {};
    std::pair<int, int> range;
    if (!number(&range.first)) return {};
    range.second = range.first;
    if (at != end && *at == '-' && (++at, !number(&range.second))) return {};
    if (range.second < range.first) return {};
    if (ranges.empty() || range.first > ranges.back().second + 1) {
      ranges.push_back(range);
    } else if (range.first == ranges.back().second + 1) {
      ranges.back().second = range.second;
    } else {
      return {};
    }
  }
  return ranges;
}

std::string list_of(const Ranges& ranges) {
  std::string text;
  for (const auto& [first, last] : ranges) {
    if (!text.empty()) text += ',';
    text += first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last);
  }
  return text;
}

/// Is there anything in `some`, and is it all in `all`?
bool within(const Ranges& some, const Ranges& all) {
  return !some.empty() && std::all_of(some.begin(), some.end(), [&](const auto& range) {
    return std::any_of(all.begin(), all.end(), [&](const auto& wider) {
      return wider.first <= range.first && range.second <= wider.second;
    });
  });
}

/// What the calling thread may run on; empty when the system does not say.
Ranges own_cpus() {
  Ranges ranges;
  // The kernel refuses sets that are smaller than its own.
  for (size_t count = 1024; count <= static_cast<size_t>(kCpuMax); count *= 2) {
    const std::unique_ptr<cpu_set_t, void (*)(cpu_set_t*)> set(
        CPU_ALLOC(count), [](cpu_set_t* raw) { CPU_FREE(raw); });
    const size_t bytes = CPU_ALLOC_SIZE(count);
    if (set == nullptr || sched_getaffinity(0, bytes, set.get()) != 0) continue;
    for (int cpu = 0; cpu < static_cast<int>(count); cpu++) {
      if (CPU_ISSET_S(static_cast<size_t>(cpu), bytes, set.get()) == 0) continue;
      if (!ranges.empty() && ranges.back().second == cpu - 1) {
        ranges.back().second = cpu;
      } else {
        ranges.emplace_back(cpu, cpu);
      }
    }
    break;
  }
  return ranges;
}

/// The last-level cache that serves all of `bound`, by the lowest CPU that shares it; -1 when
/// several caches do.
int cache_of(const Ranges& bound, const std::string& sysfs) {
  std::string shared;
  int highest = 0;
  for (int index = 0; !bound.empty(); index++) {
    const std::string folder = fmt::format("{}/devices/system/cpu/cpu{}/cache/index{}/", sysfs,
                                           bound.front().first, index);
    const std::string text = read_line(folder + "level");
    int level = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), level).ec != std::errc()) break;
    // A fourth level is memory rather than cache, and no reason to call ranks near.
    if (level < highest || level > 3) continue;
    highest = level;
    shared = read_line(folder + "shared_cpu_list");
  }
  const Ranges sharers = parse_list(shared);
  return within(bound, sharers) ? sharers.front().first : -1;
}

}  // namespace

Place own_place(const std::string& sysfs) {
  const Ranges bound = own_cpus();
  return {list_of(bound), cache_of(bound, sysfs)};
}

int numa_of(const Host& host, const std::string& cpus) {
  const Ranges bound = parse_list(cpus);
  for (size_t n = 0; n < host.numas.size(); n++)
    if (within(bound, parse_list(host.numas[n].cpus))) return static_cast<int>(n);
  return -1;
}

}  // namespace railccl::topology
