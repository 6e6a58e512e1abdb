// Worlds: uniform clusters with round figures, and one call that simulates an algorithm on one.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "algorithms/algorithm.h"
#include "simulator/simulation.h"
#include "topology/topology.h"

namespace railccl::simulator {

struct World {
  int hosts = 1;
  int ranks = 4;  // of each host, with a NIC each, on a rail each
  double inner_bytes_per_s = 100e9;
  double nic_bytes_per_s = 25e9;
  double copy_bytes_per_s = 1e18;  // so that only messages take time
  double inner_alpha_s = 2e-6;
  double alpha_s = 5e-6;
  double oversubscription = 1;
  int rails = 1 << 20;  // at most

  topology::Topology topology() const {
    std::vector<topology::Host> all;
    std::vector<topology::Rank> members;
    const int leaves = std::min(rails, ranks);
    for (int h = 0; h < hosts; h++) {
      topology::Host host;
      host.name = "h" + std::to_string(h);
      host.id = static_cast<uint64_t>(h) + 1;
      host.cores = 64;
      host.inner_bytes_per_s = inner_bytes_per_s;
      host.copy_bytes_per_s = copy_bytes_per_s;
      host.inner_alpha_s = inner_alpha_s;
      for (int i = 0; i < ranks; i++) {
        topology::Nic nic;
        nic.name = "nic" + std::to_string(i);
        nic.bytes_per_s = nic_bytes_per_s;
        nic.rail = i % leaves;
        host.nics.push_back(nic);
        topology::Rank rank;
        rank.host = h;
        rank.process = members.size() + 1;
        rank.nic = i;
        rank.rail = nic.rail;
        members.push_back(rank);
      }
      all.push_back(host);
    }
    return topology::Topology(
        all, std::vector<topology::Rail>(static_cast<size_t>(leaves), {"written", nic_bytes_per_s}),
        members, alpha_s, oversubscription);
  }
};

/// Steps cost nothing unless a test is about that.
inline Options free_steps() {
  Options options;
  options.step_s = 0;
  return options;
}

inline plan::Request request_of(Collective collective, uint64_t count) {
  plan::Request request;
  request.collective = collective;
  request.op = reduces(collective) ? Reduction::sum : Reduction::none;
  request.count = count;
  return request;
}

inline Result<Report> simulate(const char* name, const plan::Request& request,
                               const topology::Topology& topology,
                               const Options& options = free_steps(),
                               const plan::Tuning& tuning = {1, uint64_t{1} << 40}) {
  const algorithms::Algorithm* algorithm = algorithms::find(request.collective, name);
  if (algorithm == nullptr) return Status(Code::internal, "no algorithm {}", name);
  return simulate(
      request, topology,
      [&](int rank) { return algorithm->build(request, topology, tuning, rank); }, options);
}

/// Seconds, or a failure of the test.
inline double seconds_of(const Result<Report>& report) {
  if (report.is_ok()) return report->seconds;
  ADD_FAILURE() << report.status().text();
  return -1;
}

}  // namespace railccl::simulator
