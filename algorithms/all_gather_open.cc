// All-gather, open: each rank copies its input to everyone's output.
//
// Memory traffic of p ranks and blocks of m bytes: pm read and p^2 m written, which is the least;
// would each rank fetch the others' blocks, p^2 m were read.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_gather && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  const int p = topology.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  return open_cost(p, block, 0);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning&, int rank) {
  Builder b(request, topology.size(), rank, "open");
  std::vector<Slice> dsts;
  for (int k = 0; k < b.ranks(); k++) dsts.push_back(my_part(b, output_of(b, rank_after(b, k))));
  b.copy(b.input().slice(), dsts);
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_open){
    Collective::all_gather, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
