// Shows, for every algorithm on random clusters of uneven shape (hosts, NICs, speeds, failed NICs,
// few cores, oversubscription), that no simulated time is below the bound that no algorithm can
// beat, and that the simulator moves exactly the bytes and messages that the checker counts.
#include <map>
#include <string>
#include <vector>

#include "algorithms/harness.h"
#include "base/random.h"
#include "runtime/cost.h"
#include "simulator/worlds.h"

namespace railccl::simulator {
namespace {

using algorithms::Algorithm;
using algorithms::Shape;

struct Cluster {
  Shape shape;
  topology::Topology topology;
  bool all_up = true;
};

Cluster random_cluster(Random& random) {
  Cluster cluster;
  Shape& shape = cluster.shape;
  const int hosts = 1 + static_cast<int>(random.below(4));
  for (int h = 0; h < hosts; h++) {
    shape.ranks.push_back(1 + static_cast<int>(random.below(4)));
    std::vector<int> rails;
    for (int rail = 0; rail < 4; rail++)
      if (random.chance(0.6)) rails.push_back(rail);
    shape.rails.push_back(rails);
    shape.name += std::to_string(shape.ranks.back()) + " ";
  }
  shape.round_robin = random.chance(0.3);
  const topology::Topology plain = algorithms::topology_of(shape);
  std::vector<topology::Host> changed = plain.hosts();
  for (topology::Host& host : changed) {
    host.cores = 1 + static_cast<int>(random.below(6));
    host.copy_bytes_per_s = 1e9 * static_cast<double>(1 + random.below(40));
    host.inner_bytes_per_s = 1e9 * static_cast<double>(1 + random.below(40));
    for (topology::Nic& nic : host.nics) {
      nic.bytes_per_s = 1e9 * static_cast<double>(random.below(20));
      nic.up = random.chance(0.9);
      cluster.all_up = cluster.all_up && nic.up;
    }
  }
  cluster.topology = topology::Topology(changed, plain.rails(), plain.ranks(), 15e-6,
                                        static_cast<double>(1 + random.below(4)));
  return cluster;
}

/// What the checker's edges come to on each rail, and off them.
std::map<int, uint64_t> bytes_of_rails(const plan::CheckReport& checked,
                                       const topology::Topology& topology) {
  std::map<int, uint64_t> bytes;
  for (const auto& [edge, count] : checked.bytes) {
    const topology::Rank& from = topology.rank(edge.first);
    const topology::Rank& to = topology.rank(edge.second);
    if (from.host != to.host) bytes[from.rail == to.rail ? from.rail : -1] += count;
  }
  return bytes;
}

TEST(Properties, BytesAreConservedAndNothingBeatsTheBound) {
  int plans = 0, with_failed_nics = 0;
  for (uint64_t seed = 1; seed <= test::by_build<uint64_t>(40, 6, 6); seed++) {
    Random random(seed);
    const Cluster cluster = random_cluster(random);
    const topology::Topology& topology = cluster.topology;
    for (const Algorithm* algorithm : algorithms::all()) {
      // Meeting before the first load of open buffers is the runtime's, not the plan's.
      if (algorithm->reach != algorithms::Reach::none) continue;
      const uint64_t count = 1 + random.below(random.chance(0.5) ? 100 : 200'000);
      const plan::Request request = algorithms::request_of(
          algorithm->collective, count, false,
          rooted(algorithm->collective) ? static_cast<int>(random.below(topology.size())) : 0);
      if (!algorithm->supports(request, topology)) continue;
      const plan::Tuning tuning{1 + static_cast<int>(random.below(4)), 1 + count / 3};
      const std::string text = "seed " + std::to_string(seed) + ": " +
                               algorithms::text_of(*algorithm, cluster.shape, request, tuning);
      const auto report = simulate(
          request, topology,
          [&](int rank) { return algorithm->build(request, topology, tuning, rank); },
          free_steps());
      ASSERT_TRUE(report.is_ok()) << text << ": " << report.status().text();
      ASSERT_GE(report->seconds, runtime::bound_seconds(request, topology) * (1 - 1e-9)) << text;

      const plan::CheckReport checked =
          algorithms::proven(*algorithm, cluster.shape, topology, request, tuning);
      ASSERT_EQ(report->bytes, checked.bytes) << text;
      ASSERT_EQ(report->messages, checked.messages) << text;
      ASSERT_EQ(report->inter_host_bytes, checked.inter_host_bytes) << text;
      uint64_t on_rails = report->spine_bytes;
      for (const uint64_t bytes : report->bytes_of_rail) on_rails += bytes;
      if (!topology.rails().empty()) {
        ASSERT_EQ(on_rails, checked.inter_host_bytes) << text;
      }
      std::map<int, uint64_t> of_rails = bytes_of_rails(checked, topology);
      for (size_t rail = 0; cluster.all_up && rail < report->bytes_of_rail.size(); rail++)
        ASSERT_EQ(report->bytes_of_rail[rail], of_rails[static_cast<int>(rail)]) << text;
      plans++;
      with_failed_nics += cluster.all_up ? 0 : 1;
    }
  }
  EXPECT_GT(plans, test::by_build(800, 100, 100));
  EXPECT_GT(with_failed_nics, 50);
}

}  // namespace
}  // namespace railccl::simulator
