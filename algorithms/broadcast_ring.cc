// Broadcast, ring: a chain from the root round to the rank before it, in chunks.
//
// p-1 hops for the first chunk of m elements, then one chunk after the other: p - 2 + n/m rounds.
// Every rank but the last sends n, every rank but the root receives n, the least possible. No
// scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/pipeline.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void ring_broadcast(const Stage& stage, int root, const Region& source, const Region& target) {
  flow_down(stage, chain_links(stage.group, root), source, target);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::broadcast;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const Group group = everyone_by_host(topology, request.root);
  const double n = static_cast<double>(plan::bytes_of(request));
  std::vector<Edge> edges;
  for (int i = 0; i + 1 < group.size(); i++)
    edges.push_back({group.at(group.me + i), group.at(group.me + i + 1)});
  plan::Cost cost = pipeline_cost(topology, edges, Flow::down, group.size() - 1, n,
                                  iterations_of(request.count, tuning, tuning.channels, 1));
  cost.local_bytes = request.in_place ? 0 : n;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(request, topology, tuning, rank, "ring",
                     [](const Stage& stage, const Share& share) {
                       const Builder& b = stage.builder;
                       ring_broadcast(stage, index_of(stage.group, b.request().root),
                                      share(b.input()), share(b.output()));
                     });
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_ring){Collective::broadcast, "ring", supports, cost, build};

}  // namespace railccl::algorithms
