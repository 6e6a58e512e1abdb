// All-to-all, pairwise: in round i every rank sends to rank + i and receives from rank - i.
//
// Each block goes straight from input to output: p-1 blocks in and out per rank (the bound), no
// scratch, p-1 rounds. Sends lead receives by kLead rounds, so that few ranks need not wait for
// each other in turn, and many do not all send to one. Channels share the rounds.
#include <cmath>

#include "algorithms/algorithm.h"
#include "algorithms/domains.h"
#include "algorithms/rails.h"

namespace railccl::algorithms {
namespace {

constexpr int kLead = 8;

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_to_all;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const double block = static_cast<double>(plan::bytes_of(request));
  const int most = topology.ranks_per_host_max();
  plan::Cost cost;
  for (int r = 0; r < topology.size(); r++) {
    const auto local = topology.ranks_of_host(topology.rank(r).host).size();
    cost.inner_bytes = std::max(cost.inner_bytes, static_cast<double>(local - 1) * block);
  }
  cost.cross_bytes = cost.inner_bytes * cross_share(topology);
  charge_all_to_all(topology, block, false, cost);
  const double at_once = kLead * tuning.channels;
  cost.inner_rounds = std::ceil((most - 1) / at_once);
  cost.outer_rounds = std::ceil((topology.size() - most) / at_once);
  cost.inner_extra = (most - 1.0) / tuning.channels - cost.inner_rounds;
  cost.outer_extra =
      static_cast<double>(topology.size() - most) / tuning.channels - cost.outer_rounds;
  cost.local_bytes = block;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  const int ranks = topology.size();
  plan::Builder b(request, ranks, rank, "pairwise");
  const auto block = [&](const plan::Region& whole, int r) {
    return whole.block(static_cast<uint64_t>(r), static_cast<uint64_t>(ranks)).slice();
  };
  b.channel(0).copy(block(b.input(), rank), block(b.output(), rank));
  const int lead = kLead * tuning.channels;
  for (int i = 1; i < ranks + lead; i++) {
    b.channel(i % tuning.channels);
    if (i < ranks) {
      const int to = (rank + i) % ranks;
      b.send(to, block(b.input(), to));
    }
    if (i > lead) {
      const int from = (rank - (i - lead) + ranks) % ranks;
      b.recv(from, block(b.output(), from));
    }
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_to_all_pairwise){Collective::all_to_all, "pairwise", supports, cost, build};

}  // namespace railccl::algorithms
