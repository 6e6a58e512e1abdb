// All-reduce, two-shot: direct reduce-scatter, then direct all-gather.
//
// Two rounds; each rank sends and receives 2 (p-1)/p n, the least that any all-reduce can. Every
// element is summed at one rank only, so all get the same bits. No scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void two_shot_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const Blocks target = split(output, stage.group.size());
  const Region& mine = target[static_cast<size_t>(stage.group.me)];
  direct_reduce_scatter(stage, split(input, stage.group.size()), mine);
  direct_all_gather(stage, mine, target);
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  cost.everyone(2, 2 * n / p);
  cost.local(p == 1 ? n : n * (p - 1) / p);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "two_shot", [](const Stage& stage, const Share& share) {
        two_shot_all_reduce(stage, share(stage.builder.input()), share(stage.builder.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_two_shot){Collective::all_reduce, "two_shot", supports, cost, build};

}  // namespace railccl::algorithms
