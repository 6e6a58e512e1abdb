// All-to-all, pairwise: in round i every rank sends to rank + i and receives from rank - i.
//
// Each block goes straight from input to output: p-1 blocks in and out per rank (the bound), no
// scratch, p-1 rounds of which the sends are posted ahead. Channels share the rounds.
#include "algorithms/algorithm.h"
#include "algorithms/rails.h"

namespace railccl::algorithms {
namespace {

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
  charge_all_to_all(topology, block, false, cost);
  cost.inner_rounds = (most - 1.0) / tuning.channels;
  cost.outer_rounds = static_cast<double>(topology.size() - most) / tuning.channels;
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
  for (int i = 1; i < ranks; i++) {
    const int to = (rank + i) % ranks, from = (rank - i + ranks) % ranks;
    b.channel(i % tuning.channels);
    b.send(to, block(b.input(), to));
    b.recv(from, block(b.output(), from));
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_to_all_pairwise){Collective::all_to_all, "pairwise", supports, cost, build};

}  // namespace railccl::algorithms
