// Reduce, ring: a chain that ends at the root; sums grow on the way, in chunks.
//
// p-1 hops for the first chunk of m elements, then one chunk after the other: p - 2 + n/m rounds.
// Every rank but the root sends n, every rank but the first receives n. Scratch: 4 chunks.
#include "algorithms/circle_cost.h"
#include "algorithms/pipeline.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void ring_reduce(const Stage& stage, int root, const Region& source, const Region& target) {
  flow_up(stage, chain_links(stage.group, root), source, target);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const Group group = everyone_by_host(topology, request.root);
  const double n = static_cast<double>(plan::bytes_of(request));
  std::vector<Edge> edges;
  for (int i = 0; i + 1 < group.size(); i++)
    edges.push_back({group.at(group.me + i), group.at(group.me + i + 1)});
  plan::Cost cost = pipeline_cost(topology, edges, Flow::up, group.size() - 1, n,
                                  iterations_of(request.count, tuning, tuning.channels, 1));
  cost.local_bytes = n;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(request, topology, tuning, rank, "ring",
                     [](const Stage& stage, const Share& share) {
                       const Builder& b = stage.builder;
                       ring_reduce(stage, index_of(stage.group, b.request().root), share(b.input()),
                                   share(b.output()));
                     });
}

}  // namespace

RAILCCL_ALGORITHM(reduce_ring){Collective::reduce, "ring", supports, cost, build};

}  // namespace railccl::algorithms
