// Measured cores: which of a machine's cores stand for all of them when its speeds are measured.
#pragma once

#include <string>
#include <vector>

namespace railccl::runtime {

/// CPUs to measure on, one per core: of those that the calling thread may use, or, when these are
/// one core only, of those that the system would let it use. (Launchers bind each rank to a core of
/// its own; its neighbours are on the others, and how they talk is what matters.) Ascending.
std::vector<int> cores_to_measure();

/// Whom among `cpus`, which is not empty, the first is measured with: one on its NUMA node and at
/// its last-level cache, if any is, and one on another node, else at another cache, if any is; the
/// far one is the near one otherwise. Alone, it is its own neighbour.
struct Neighbours {
  int near = 0, far = 0;
};
Neighbours neighbours_of_first(const std::vector<int>& cpus, const std::string& sysfs = "/sys");

}  // namespace railccl::runtime
