// Reduce, domains: broadcast_domains backwards. Domains reduce-scatter shards, each shard is
// reduced across to the root's domain, and the root collects the shards there.
//
// D domains of G ranks: a rank sends n/G to another domain once, so that each domain sends n, the
// least that any reduction can; in its domain (G-1)/G n, and the root takes in twice that. Scratch:
// n/G elements for the domain's sums, as only the root has an output.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domain_cost.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::reduce && has_domains(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  return domain_rooted_cost(request, topology, tuning);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_reduce(request, topology, tuning, rank, domain_parts(topology), "domains");
}

}  // namespace

RAILCCL_ALGORITHM(reduce_domains){Collective::reduce, "domains", supports, cost, build};

}  // namespace railccl::algorithms
