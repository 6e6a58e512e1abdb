// All-reduce, domains: within(domain, reduce-scatter), across(domains, all-reduce), within(domain,
// all-gather), by messages.
//
//   domains {0,1} and {2,3}, data AB:  0 sums A and 1 sums B of their domain (2 and 3 likewise);
//                                      0 <-> 2 reduce A and 1 <-> 3 reduce B across;
//                                      0 <-> 1 and 2 <-> 3 exchange the finished halves
//
// D domains of G ranks: each rank sends 2 (D-1)/D n/G across, so a domain sends and takes in
// 2 (D-1)/D n, the least that any all-reduce can, and no port carries more of it than another;
// round a flat ring one rank of each domain carries all of it. In the domain each rank sends
// 2 (G-1)/G n, together with the above 2 (p-1)/p n, the least too. The stages overlap chunk by
// chunk. Unequal domains: see Shards. Partial sums live in the output: scratch only for doubling.
#include <algorithm>

#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domain_cost.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_reduce && has_domains(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const DomainCut cut(request, topology, tuning);
  const AllReducePattern& outer = all_reduce_across(cut.domains, cut.shard_bytes());
  const double across = outer.rounds(cut.domains);
  const SpreadPattern& inner = spread_within(cut.most, cut.chunk_bytes);
  const double within = inner.rounds(cut.most);
  plan::Cost cost;
  cost.staged = true;
  cost.cross_bytes = outer.bytes(cut.domains, cut.owned_most());
  // Taken in: everyone's share of what it owns, the same from other domains, then what it lacks.
  cost.inner_bytes = cut.most_loaded([&](int size, double owned) {
    return (size - 1) * owned + outer.bytes(cut.domains, owned) + cut.bytes - owned;
  });
  cost.inner_rounds = 2 * within + across + (cut.chunks - 1) * std::max(within, across);
  cost.inner_extra = cut.chunks * 2 * inner.extra(cut.most);
  cost.local_bytes = cut.most_loaded([&](int size, double owned) {
    return (size - 1) * owned + outer.bytes(cut.domains, owned) / 2;
  });
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_all_reduce(request, topology, tuning, rank, {domain_parts(topology)}, {},
                            "domains");
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_domains){Collective::all_reduce, "domains", supports, cost, build};

}  // namespace railccl::algorithms
