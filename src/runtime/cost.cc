// Cost: the model's arithmetic.
#include "runtime/cost.h"

#include <algorithm>
#include <set>

namespace railccl::runtime {

using topology::Host;
using topology::Topology;

namespace {

// An unknown NIC counts as 10 Gbit/s, as in Topology::path.
constexpr double kUnknownNicBytesPerS = 1.25e9;
// Each further channel costs its own bookkeeping in every visit.
constexpr double kChannelSeconds = 0.3e-6;

double nic_speed(const Host& host, int nic) {
  const double speed = nic < 0 ? 0 : host.nics[static_cast<size_t>(nic)].bytes_per_s;
  return speed > 0 ? speed : kUnknownNicBytesPerS;
}

/// All NICs of host h that its ranks use, together.
double host_network_speed(const Topology& topology, int h) {
  std::set<int> nics;
  for (const int r : topology.ranks_of_host(h)) nics.insert(topology.rank(r).nic);
  double sum = 0;
  for (const int nic : nics) sum += nic_speed(topology.hosts()[static_cast<size_t>(h)], nic);
  return sum;
}

/// Bytes that enter or leave (whichever is more) a host with `local` of `ranks` ranks.
double cut_bytes(const plan::Request& request, double local, double ranks, bool has_root) {
  const double n = static_cast<double>(plan::bytes_of(request));
  const double others = ranks - local;
  switch (request.collective) {
    case Collective::all_reduce:
    case Collective::broadcast:
    case Collective::reduce:
      return n;
    case Collective::reduce_scatter:
    case Collective::all_gather:
      return others * n;
    case Collective::all_to_all:
      return local * others * n;
    case Collective::gather:
    case Collective::scatter:
      return (has_root ? others : local) * n;
  }
  return 0;
}

/// Bytes that the ranks of one host must read plus write.
double memory_bytes(const plan::Request& request, const Topology& topology, int h) {
  double elements = 0;
  for (const int r : topology.ranks_of_host(h)) {
    elements += static_cast<double>(plan::input_elements(request, topology.size(), r));
    elements += static_cast<double>(plan::output_elements(request, topology.size(), r));
  }
  return elements * static_cast<double>(size_of(request.datatype));
}

}  // namespace

double seconds_of(const plan::Cost& cost, const Topology& topology, const plan::Tuning& tuning) {
  double inner_alpha = 0, inner_byte = 0, copy_byte = 0, nic_byte = 0;
  for (const int h : topology.used_hosts()) {
    const Host& host = topology.hosts()[static_cast<size_t>(h)];
    const double turns = std::max(
        1.0, static_cast<double>(topology.ranks_of_host(h).size()) / std::max(1, host.cores));
    inner_alpha = std::max(inner_alpha, turns * host.inner_alpha_s);
    inner_byte = std::max(inner_byte, turns / host.inner_bytes_per_s);
    copy_byte = std::max(copy_byte, turns / host.copy_bytes_per_s);
    for (const int r : topology.ranks_of_host(h))
      nic_byte = std::max(nic_byte, 1 / nic_speed(host, topology.rank(r).nic));
  }
  return cost.inner_rounds * inner_alpha + cost.outer_rounds * topology.network_alpha_s() +
         cost.inner_bytes * inner_byte + cost.outer_bytes * nic_byte +
         cost.spine_bytes * (topology.oversubscription() - 1) * nic_byte +
         cost.local_bytes * copy_byte + (tuning.channels - 1) * kChannelSeconds;
}

double bound_seconds(const plan::Request& request, const Topology& topology) {
  const int ranks = topology.size();
  const bool many_hosts = topology.used_hosts().size() > 1;
  double bound = 0, network_sum = 0;
  for (const int h : topology.used_hosts()) {
    const Host& host = topology.hosts()[static_cast<size_t>(h)];
    const double local = static_cast<double>(topology.ranks_of_host(h).size());
    // A copy at copy_bytes_per_s reads and writes: twice that is the traffic one core can make.
    const double traffic =
        2 * host.copy_bytes_per_s * std::min(local, static_cast<double>(std::max(1, host.cores)));
    bound = std::max(bound, memory_bytes(request, topology, h) / traffic);
    if (!many_hosts) continue;
    const bool has_root = rooted(request.collective) && topology.rank(request.root).host == h;
    const double speed = host_network_speed(topology, h);
    network_sum += speed;
    bound = std::max(bound, cut_bytes(request, local, ranks, has_root) / speed);
  }
  if (many_hosts && request.collective == Collective::all_reduce) {
    const double hosts = static_cast<double>(topology.used_hosts().size());
    bound = std::max(bound,
                     2 * (hosts - 1) * static_cast<double>(plan::bytes_of(request)) / network_sum);
  }
  if (ranks == 1) return bound;
  if (many_hosts) return std::max(bound, topology.network_alpha_s());
  return std::max(bound, topology.host_of(0).inner_alpha_s);
}

}  // namespace railccl::runtime
