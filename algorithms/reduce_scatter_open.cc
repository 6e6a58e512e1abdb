// Reduce-scatter, open: each rank reduces its block straight out of all inputs into its output.
//
// Memory traffic of p ranks and blocks of m bytes: p^2 m read, pm written, which is the least.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::reduce_scatter && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  const int p = topology.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  return open_cost(p, block, block);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning&, int rank) {
  Builder b(request, topology.size(), rank, "open");
  reduce_inputs(b, [&](const Region& input) { return my_part(b, input); }, {b.output().slice()});
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_open){
    Collective::reduce_scatter, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
