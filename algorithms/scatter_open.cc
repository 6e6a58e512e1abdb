// Scatter, open: each rank copies its part of every block of the root's input to where it belongs.
//
// Memory traffic of p ranks and blocks of m bytes: pm read, pm written (2m less in place), which is
// the least.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::scatter && one_host(topology);
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
    const int to = rank_after(b, k);
    b.copy(my_part(b, block_of(b, input_of(b, request.root), to)), my_part(b, output_of(b, to)));
  }
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(scatter_open){Collective::scatter, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
