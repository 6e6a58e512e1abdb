// All-reduce, tree: half of the data up and down each of two binary trees, up and down overlapping.
//
// Sanders, Speck & Träff 2009: an inner node of one tree is a leaf of the other, so in each phase
// nobody sends or receives more than n: 2n each way in all, against 2 (p-1)/p n at best; about
// 2 log2 p + n/m rounds with chunks of m. Each tree has a channel for going up and one for going
// down; at the top the first tells the second of every finished chunk, so that both directions of
// every wire are busy at once. Scratch: 4 chunks per channel that goes up.
#include "algorithms/circle_cost.h"
#include "algorithms/pipeline.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void tree_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  if (stage.group.size() == 1) return place(stage, input, output, stage.pre, stage.post);
  Builder& b = stage.builder;
  // The other channels begin after what stage.channel did before, and it goes on after them.
  const auto others = [&](const auto& body) {
    for (int c = stage.channel + 1; c < stage.channel + kTreeChannels; c++) body(c);
  };
  others([&](int c) {
    stage.on().signal_channel(c);
    b.channel(c).wait_channel(stage.channel);
  });
  for (int tree = 0; tree < 2; tree++) {
    Stage up = stage, down = stage;
    up.scratch = nullptr;
    up.channel = stage.channel + 2 * tree;
    down.channel = up.channel + 1;
    const Links links = tree_links(stage.group, tree);
    const auto half = static_cast<uint64_t>(tree);
    const Region target = output.block(half, 2);
    flow_up(up, links, input.block(half, 2), target, [&] { b.signal_channel(down.channel); });
    flow_down(down, links, target, target, [&] { b.wait_channel(up.channel); });
  }
  others([&](int c) {
    b.channel(c).signal_channel(stage.channel);
    stage.on().wait_channel(c);
  });
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const Group group = everyone_by_host(topology, 0);
  const double n = static_cast<double>(plan::bytes_of(request));
  std::vector<Edge> edges;
  for (int tree = 0; tree < 2; tree++) {
    const std::vector<Edge> more = tree_edges(group, tree);
    edges.insert(edges.end(), more.begin(), more.end());
  }
  plan::Cost cost =
      pipeline_cost(topology, edges, Flow::both, 2.0 * log2_ceil(group.size()), n / 2,
                    iterations_of(request.count, tuning, tuning.channels / kTreeChannels, 2));
  cost.local_bytes = n;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "tree",
      [](const Stage& stage, const Share& share) {
        tree_all_reduce(stage, share(stage.builder.input()), share(stage.builder.output()));
      },
      kTreeChannels);
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_tree){Collective::all_reduce, "tree", supports, cost, build};

}  // namespace railccl::algorithms
