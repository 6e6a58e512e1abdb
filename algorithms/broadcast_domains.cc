// Broadcast, domains: the root scatters shards in its domain, each goes to all domains on its own,
// and every domain puts them together.
//
// D domains of G ranks: a rank takes in n/G from another domain and passes it on at most once
// (twice in a tree), so that each domain takes in n, the least that any broadcast can; in its
// domain (G-1)/G n. The root's port sends (2G-1)/G n. No scratch; three pipelined stages.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domain_cost.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::broadcast && has_domains(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  return domain_rooted_cost(request, topology, tuning);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_broadcast(request, topology, tuning, rank, domain_parts(topology), "domains");
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_domains){Collective::broadcast, "domains", supports, cost, build};

}  // namespace railccl::algorithms
