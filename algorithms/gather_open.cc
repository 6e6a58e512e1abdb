// Gather, open: each rank copies its part of every input to the root's output.
//
// Memory traffic of p ranks and blocks of m bytes: pm read, pm written (2m less in place), which is
// the least.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::gather && one_host(topology);
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
  for (int k = 0; k < b.ranks(); k++) {
    const int from = rank_after(b, k);
    b.copy(my_part(b, input_of(b, from)),
           my_part(b, block_of(b, output_of(b, request.root), from)));
  }
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(gather_open){Collective::gather, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
