// All-reduce, halving-doubling: halving reduce-scatter, then Bruck's all-gather.
//
// Rabenseifner's composition (2004), with circular skips in place of the hypercube (Träff 2023), so
// that it is as good for any p as for powers of two: 2 ceil(log2 p) rounds, and 2 (p-1)/p n sent
// and received per rank. Partial sums are kept in the output: no scratch.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {

void halving_doubling_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const Blocks target = split(output, stage.group.size());
  const Region& mine = target[static_cast<size_t>(stage.group.me)];
  halving_reduce_scatter(stage, split(input, stage.group.size()), mine, target);
  bruck_all_gather(stage, mine, target);
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
  for (int s = p; s > 1; s = (s + 1) / 2) {
    const int half = (s + 1) / 2;
    cost.skip(half, 1, n / p * (s - half));
  }
  for (int have = 1; have < p; have *= 2) cost.skip(-have, 1, n / p * std::min(have, p - have));
  cost.local(p == 1 ? n : n * (p - 1) / p);
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(request, topology, tuning, rank, "halving_doubling",
                     [](const Stage& stage, const Share& share) {
                       halving_doubling_all_reduce(stage, share(stage.builder.input()),
                                                   share(stage.builder.output()));
                     });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_halving_doubling){Collective::all_reduce, "halving_doubling", supports,
                                               cost, build};

}  // namespace railccl::algorithms
