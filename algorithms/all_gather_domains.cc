// All-gather, domains: across domains among ranks of equal number first, so that each block enters
// every domain once, then inside domains.
//
// D domains of G ranks, blocks of m elements: each rank takes in (D-1) m from other domains, so
// that a domain takes in every block of the others once, the least that any all-gather can; in its
// domain (G-1) D m, together (p-1) m, the least too. Scratch as in all_gather_rail.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domain_cost.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_gather && has_domains(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  plan::Cost cost = domain_columns_cost(request, topology, tuning);
  cost.local_bytes = request.in_place ? 0 : static_cast<double>(plan::bytes_of(request));
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_all_gather(request, topology, tuning, rank, domain_parts(topology), "domains");
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_domains){Collective::all_gather, "domains", supports, cost, build};

}  // namespace railccl::algorithms
