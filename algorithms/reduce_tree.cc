// Reduce, tree: half of the data up each of two binary trees (Sanders, Speck & Träff 2009).
//
// Broadcast's two trees with the arrows turned: nobody sends or receives more than n; about
// log2 p + n/m rounds with chunks of m. Two channels per share. Scratch: 4 chunks per channel.
#include "algorithms/circle_cost.h"
#include "algorithms/pipeline.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void tree_reduce(const Stage& stage, int tree, int root, const Region& source,
                 const Region& target) {
  flow_up(stage, rooted_tree_links(stage.group, tree, root), source, target);
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
  for (int tree = 0; tree < 2; tree++) {
    const std::vector<Edge> more = rooted_tree_edges(group, tree, group.me);
    edges.insert(edges.end(), more.begin(), more.end());
  }
  plan::Cost cost = pipeline_cost(topology, edges, Flow::up, 1 + log2_ceil(group.size()), n / 2,
                                  iterations_of(request.count, tuning, tuning.channels / 2, 2));
  cost.local_bytes = n;
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
          tree_reduce(half, tree, index_of(stage.group, b.request().root),
                      share(b.input()).block(static_cast<uint64_t>(tree), 2),
                      share(b.output()).block(static_cast<uint64_t>(tree), 2));
        }
      },
      2);
}

}  // namespace

RAILCCL_ALGORITHM(reduce_tree){Collective::reduce, "tree", supports, cost, build};

}  // namespace railccl::algorithms
