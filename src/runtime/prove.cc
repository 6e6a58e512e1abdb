// The checker at work on a chosen plan; see prove.h.
#include "runtime/prove.h"

#include "plan/checker.h"

namespace railccl::runtime {

Result<Proof> prove(const Chosen& chosen, const plan::Request& request,
                    const topology::Topology& topology) {
  const bool open = chosen.algorithm->reach != Reach::none;
  plan::CheckOptions options;
  options.load_store = [&](int reader, int owner, plan::Buffer buffer) {
    return (open || buffer == plan::Buffer::scratch) && topology.path(reader, owner).same_host;
  };
  options.all_entered = open;
  for (const topology::Rank& rank : topology.ranks()) {
    options.host_of.push_back(rank.host);
    options.rail_of.push_back(rank.rail);
  }
  const auto report = plan::check(
      request, topology.size(),
      [&](int rank) { return chosen.algorithm->build(request, topology, chosen.tuning, rank); },
      options);
  if (!report.is_ok())
    return report.status()
        .widen(Scope::communicator)
        .context("algorithm {} made a wrong plan for {}", chosen.algorithm->name,
                 plan::text_of(request));
  Proof proof;
  proof.algorithm = chosen.algorithm->name;
  proof.rounds = report->rounds;
  proof.bytes_between_hosts = report->inter_host_bytes;
  proof.bytes_across_rails = report->cross_rail_bytes;
  proof.bytes_of_rail.resize(topology.rails().size());
  for (const auto& [edge, messages] : report->messages) proof.messages += messages;
  for (const auto& [edge, bytes] : report->bytes) {
    const topology::Rank& from = topology.rank(edge.first);
    const topology::Rank& to = topology.rank(edge.second);
    proof.bytes += bytes;
    if (from.host != to.host && from.rail == to.rail && from.rail >= 0)
      proof.bytes_of_rail[static_cast<size_t>(from.rail)] += bytes;
  }
  return proof;
}

}  // namespace railccl::runtime
