// All-gather, direct: everyone sends its block straight to everyone.
//
// One round; each rank sends and receives p-1 blocks, the least possible. No scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void direct_all_gather(const Stage& stage, const Region& mine, const Blocks& output) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  Builder& b = stage.on();
  for (int i = 1; i < p; i++) b.send(group.at(me + i), mine.slice());
  place(stage, mine, output[static_cast<size_t>(me)], Pre::no, Post::no);
  for (int i = 1; i < p; i++)
    b.recv(group.at(me - i), output[static_cast<size_t>((me + p - i) % p)].slice());
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_gather;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  CircleCost cost(topology);
  const double block = static_cast<double>(plan::bytes_of(request));
  cost.everyone(1, block);
  cost.local(request.in_place ? 0 : block);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "direct", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        direct_all_gather(stage, share(b.input()), share.of_each(b.output(), stage.group));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_direct){Collective::all_gather, "direct", supports, cost, build};

}  // namespace railccl::algorithms
