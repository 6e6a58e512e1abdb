// Reduce-scatter, domains: sums inside domains first, so that each block leaves its domain as one
// sum, then across domains among ranks of equal number.
//
// D domains of G ranks, blocks of m elements: each rank sends (D-1) m across, so that a domain
// sends D-1 sums for each of its ranks, the least that any reduce-scatter can; unreduced they would
// be G times as much. In its domain a rank sends (G-1) D m; together (p-1) m, the least too.
// Scratch as in reduce_scatter_rail.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domain_cost.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::reduce_scatter && has_domains(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  plan::Cost cost = domain_columns_cost(request, topology, tuning);
  cost.local_bytes = cost.inner_bytes;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_reduce_scatter(request, topology, tuning, rank, domain_parts(topology), "domains");
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_domains){Collective::reduce_scatter, "domains", supports, cost,
                                          build};

}  // namespace railccl::algorithms
