// Broadcast, open: each rank copies its part of the root's input to all outputs.
//
// Memory traffic of p ranks and n bytes: n read, pn written (less n in place), which is the least.
#include "algorithms/open.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::broadcast && one_host(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  const int p = topology.size();
  const double part_bytes = static_cast<double>(plan::bytes_of(request)) / p;
  return open_cost(p, part_bytes, 0);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning&, int rank) {
  Builder b(request, topology.size(), rank, "open");
  std::vector<Slice> dsts;
  for (int k = 0; k < b.ranks(); k++) dsts.push_back(my_part(b, output_of(b, rank_after(b, k))));
  b.copy(my_part(b, input_of(b, request.root)), dsts);
  part(b);
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_open){
    Collective::broadcast, "open", supports, cost, build, Reach::open};

}  // namespace railccl::algorithms
