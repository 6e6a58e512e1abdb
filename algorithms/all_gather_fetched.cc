// All-gather, fetched: each rank fetches everyone's input.
//
// Memory traffic of p ranks and blocks of m bytes: p^2 m read, p^2 m written: one copy of each
// block per reader.
#include "algorithms/fetched.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_gather && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  const int p = topology.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  return fetched_cost(p, block, (p - 1) * block);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning&, int rank) {
  Builder b(request, topology.size(), rank, "fetched");
  // In place the own block is where it belongs, and peers may be reading it.
  for (int k = request.in_place ? 1 : 0; k < b.ranks(); k++) {
    const int from = rank_after(b, k);
    b.copy(input_of(b, from).slice(), block_of(b, b.output(), from).slice());
  }
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_fetched){Collective::all_gather, "fetched", supports, cost, build,
                                      Reach::fetched};

}  // namespace railccl::algorithms
