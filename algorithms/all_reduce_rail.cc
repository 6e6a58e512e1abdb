// All-reduce, rail: within(host, reduce-scatter), across(rail, all-reduce), within(host,
// all-gather).
//
//   hosts {0,1} and {2,3}, data AB:  0 sums A and 1 sums B of their host (2 and 3 likewise);
//                                    0 <-> 2 reduce A and 1 <-> 3 reduce B on their own rails;
//                                    0 <-> 1 and 2 <-> 3 exchange the finished halves
//
// N hosts of G ranks with a NIC each: every NIC carries 2 (N-1)/N n/G with a ring or halving
// outside (the cut bound: a host's NICs together must carry 2 (N-1)/N n), every byte already
// reduced in its host and none on the spine; inside a host each rank carries 2 (G-1)/G n. The
// stages overlap chunk by chunk. Unequal hosts, shared NICs and any placement: see Shards. Scratch:
// what the inner patterns take for one chunk; partial sums live in the output.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domains.h"
#include "algorithms/port_meter.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_reduce && has_rails(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const Shards shards(topology, Group::everyone(topology.size(), 0).members, host_parts(topology));
  const double n = static_cast<double>(plan::bytes_of(request));
  const int hosts = shards.parts(), most = topology.ranks_per_host_max();
  const auto chunk = std::min(chunk_of(tuning, shards), std::max<uint64_t>(1, request.count));
  const uint64_t chunk_bytes = chunk * size_of(request.datatype);
  const AllReducePattern& outer =
      all_reduce_across(hosts, chunk_bytes / static_cast<uint64_t>(shards.count()));
  const SpreadPattern& inner = spread_within(most, chunk_bytes);

  plan::Cost cost;
  cost.staged = true;
  PortMeter meter(topology);
  const Region whole{plan::Buffer::output, plan::kHere, 0, request.count};
  for (int s = 0; s < shards.count(); s++) {
    const double bytes = static_cast<double>(shards.of(whole, s).count * size_of(request.datatype));
    // Who sends to whom depends on the pattern, how much passes each owner's port does not.
    const std::vector<int>& owners = shards.across(s);
    for (size_t i = 0; i < owners.size(); i++) {
      meter.add(owners[i], owners[(i + 1) % owners.size()], outer.bytes(hosts, bytes));
    }
  }
  meter.charge(cost);
  cost.inner_bytes = 2 * n * (most - 1) / most;
  cost.cross_bytes = cost.inner_bytes * cross_share(topology);
  cost.inner_rounds = 2 * inner.rounds(most);
  cost.inner_extra = 2 * inner.extra(most);
  cost.outer_rounds =
      static_cast<double>(plan::chunk_count(request.count, chunk)) * outer.rounds(hosts);
  cost.local_bytes = n;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_all_reduce(request, topology, tuning, rank, {host_parts(topology)}, {}, "rail");
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_rail){Collective::all_reduce, "rail", supports, cost, build};

}  // namespace railccl::algorithms
