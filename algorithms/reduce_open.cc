// Reduce, open: each rank reduces its part straight out of all inputs into the root's output.
//
// Memory traffic of p ranks and n bytes: pn read, n written, which is the least.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::reduce && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  const int p = topology.size();
  const double part_bytes = static_cast<double>(plan::bytes_of(request)) / p;
  return open_cost(p, part_bytes, part_bytes);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning&, int rank) {
  Builder b(request, topology.size(), rank, "open");
  reduce_inputs(b, [&](const Region& input) { return my_part(b, input); },
                {my_part(b, output_of(b, request.root))});
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(reduce_open){Collective::reduce, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
