// Broadcast, tree: half of the data down each of two binary trees (Sanders, Speck & Träff 2009).
//
// The root sends half to the top of each tree over the others. An inner node of one tree is a leaf
// of the other, so nobody sends or receives more than n; about log2 p + n/m rounds with chunks of
// m. Two channels per share. No scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/pipeline.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void tree_broadcast(const Stage& stage, int tree, int root, const Region& source,
                    const Region& target) {
  flow_down(stage, rooted_tree_links(stage.group, tree, root), source, target);
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
  for (int tree = 0; tree < 2; tree++) {
    const std::vector<Edge> more = rooted_tree_edges(group, tree, group.me);
    edges.insert(edges.end(), more.begin(), more.end());
  }
  plan::Cost cost = pipeline_cost(topology, edges, Flow::down, 1 + log2_ceil(group.size()), n / 2,
                                  iterations_of(request.count, tuning, tuning.channels / 2, 2));
  cost.local_bytes = request.in_place ? 0 : n;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "tree",
      [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        for (int tree = 0; tree < 2; tree++) {
          Stage half = stage;
          half.channel += tree;
          tree_broadcast(half, tree, index_of(stage.group, b.request().root),
                         share(b.input()).block(static_cast<uint64_t>(tree), 2),
                         share(b.output()).block(static_cast<uint64_t>(tree), 2));
        }
      },
      2);
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_tree){Collective::broadcast, "tree", supports, cost, build};

}  // namespace railccl::algorithms
