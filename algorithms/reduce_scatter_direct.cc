// Reduce-scatter, direct: everyone sends each block straight to its owner, who adds as they come.
//
// One round; each rank sends and receives p-1 blocks, the least possible. p-1 messages at once
// suit few ranks with fast links between all of them. No scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void direct_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  if (p == 1) return place(stage, input[0], output, stage.pre, stage.post);
  Builder& b = stage.on();
  for (int i = 1; i < p; i++)
    b.send(group.at(me + i), input[static_cast<size_t>((me + i) % p)].slice(), stage.pre);
  const Slice target = output.slice();
  for (int i = 1; i < p; i++) {
    const bool first = i == 1, last = i == p - 1;
    b.recv_reduce(group.at(me - i), first ? input[static_cast<size_t>(me)].slice() : target, target,
                  first ? stage.pre : Pre::no, last ? stage.post : Post::no);
  }
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::reduce_scatter;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  cost.everyone(1, block);
  cost.local(p == 1 ? block : block * (p - 1));
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "direct", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        direct_reduce_scatter(stage, share.of_each(b.input(), stage.group), share(b.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_direct){Collective::reduce_scatter, "direct", supports, cost,
                                         build};

}  // namespace railccl::algorithms
