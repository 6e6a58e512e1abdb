// All-reduce, open: each rank reduces its part straight out of all inputs into all outputs.
//
// Memory traffic of p ranks and n bytes: every input is read once and every output written once,
// 2pn, which no algorithm can undercut.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_reduce && one_host(topology);
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
  std::vector<Slice> dsts;
  for (int k = 0; k < b.ranks(); k++) dsts.push_back(my_part(b, output_of(b, rank_after(b, k))));
  reduce_inputs(
      b, [&](const Region& input) { return my_part(b, input); }, dsts);
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_open){
    Collective::all_reduce, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
