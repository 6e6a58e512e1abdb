// All-to-all, open: each rank fetches its block of every input.
//
// Memory traffic of p ranks and blocks of m bytes: p^2 m read, p^2 m written, which is the least.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_to_all && one_host(topology);
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
  for (int k = 0; k < b.ranks(); k++) {
    const int from = rank_after(b, k);
    b.copy(my_part(b, input_of(b, from)), block_of(b, b.output(), from).slice());
  }
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_to_all_open){
    Collective::all_to_all, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
