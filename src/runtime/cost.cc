// Cost: the model's arithmetic.
#include "runtime/cost.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "transport/lane.h"

namespace railccl::runtime {

using topology::Host;
using topology::Speeds;
using topology::Topology;

namespace {

// What the ranks do for a message or signal besides copying, on a processor of today: little in a
// program of messages that fit a lane (transport/lane.h), which are compiled to strips, more in
// any other. Fitted to calls of 8 KiB to 128 KiB between two ranks (docs/choice.md).
constexpr double kStripSeconds = 0.05e-6;
constexpr double kStepSeconds = 0.6e-6;
// What a message costs that is under way together with others of its round.
constexpr double kExtraStepSeconds = 0.2e-6;
// The same between hosts: one rank's sending (7 us, delivery by its own core included) and
// receiving (1 us), measured between two network namespaces.
constexpr double kOuterMessageSeconds = 8e-6;
// What a core has to do for a byte that a rank sends and one that it takes in: it does either at
// some 4 GB/s over the loopback interface (docs/performance.md).
constexpr double kOuterByteSeconds = 0.5e-9;
// Each further channel costs its own bookkeeping in every visit.
constexpr double kChannelSeconds = 0.3e-6;

/// All NICs of host h that its ranks use, together, without those that are down if others are up.
double host_network_speed(const Topology& topology, int h) {
  std::map<int, int> users;
  for (const int r : topology.ranks_of_host(h)) users.emplace(topology.rank(r).nic, r);
  double up = 0, down = 0;
  for (const auto& [nic, user] : users) {
    const bool works = nic < 0 || topology.host_of(user).nics[static_cast<size_t>(nic)].up;
    (works ? up : down) += topology.nic_bytes_per_s(user);
  }
  return up > 0 ? up : down;
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

/// How much of a working set of `bytes` comes from memory, not from the host's caches: nothing up
/// to half of the caches, everything from one and a half times them on.
double missing_share(const Host& host, double bytes) {
  const int caches = host.cores_per_cache > 0 ? std::max(1, host.cores / host.cores_per_cache) : 1;
  const double size = static_cast<double>(host.last_level_cache_bytes) * caches;
  if (size <= 0) return 1;
  return std::clamp(bytes / size - 0.5, 0.0, 1.0);
}

/// The rate of pieces of `bytes`, between the two that were measured by the logarithm of the size.
double rate_of(double bytes, double small, double large) {
  constexpr double kSmall = 64 << 10, kLarge = 1 << 20;
  const double share =
      std::clamp(std::log(std::max(bytes, 1.0) / kSmall) / std::log(kLarge / kSmall), 0.0, 1.0);
  return small + share * (large - small);
}

/// How many messages a core has to send when all that host h and the others on its machine send at
/// a time are shared out, and 1 at least: the network's own work is done by the senders' cores.
double messages_per_core(const Topology& topology, int h, int senders) {
  const double local = static_cast<double>(topology.ranks_of_host(h).size());
  const double share = senders == 0 ? 1 : std::min(1.0, senders / local);
  const int cores = std::max(1, topology.hosts()[static_cast<size_t>(h)].cores);
  return std::max(1.0, share * topology.ranks_on_cores_of(h) / cores);
}

/// What one host charges.
struct Prices {
  double round_s = 0, extra_s = 0, message_byte_s = 0, shared_byte_s = 0, peer_byte_s = 0,
         fetched_byte_s = 0, local_byte_s = 0, memory_s = 0, cross_byte_s = 0;

  void raise(const Prices& other) {
    round_s = std::max(round_s, other.round_s);
    extra_s = std::max(extra_s, other.extra_s);
    message_byte_s = std::max(message_byte_s, other.message_byte_s);
    shared_byte_s = std::max(shared_byte_s, other.shared_byte_s);
    peer_byte_s = std::max(peer_byte_s, other.peer_byte_s);
    fetched_byte_s = std::max(fetched_byte_s, other.fetched_byte_s);
    local_byte_s = std::max(local_byte_s, other.local_byte_s);
    memory_s = std::max(memory_s, other.memory_s);
    cross_byte_s = std::max(cross_byte_s, other.cross_byte_s);
  }
};

/// `piece`: bytes that a rank takes from a peer at a time; `strip`: may the program be one;
/// `channels`: messages under way at a time. They share the way between the cores, but one thread
/// looks after all of them.
Prices prices_of(const plan::Request& request, const Topology& topology, int h, double piece,
                 bool strip, int channels) {
  const Host& host = topology.hosts()[static_cast<size_t>(h)];
  const double ranks = static_cast<double>(topology.ranks_of_host(h).size());
  const double cores = std::max(1, host.cores);
  const double turns = std::max(1.0, topology.ranks_on_cores_of(h) / cores);
  const Speeds& speeds = host.speeds;
  if (!speeds.known()) {
    const double inner = turns / host.inner_bytes_per_s, copy = turns / host.copy_bytes_per_s;
    // Crossing between domains is taken to cost as much again, and what is fetched is copied once
    // where a message is copied twice.
    return {turns * host.inner_alpha_s,
            turns * kExtraStepSeconds,
            inner,
            copy,
            inner,
            0.75 * inner,
            copy,
            0,
            inner};
  }
  Prices prices;
  prices.round_s = speeds.signal_s + turns * channels * (strip ? kStripSeconds : kStepSeconds);
  prices.extra_s = turns * channels * (strip ? kStripSeconds : kExtraStepSeconds);
  // Everyone else on the core has a turn before the one who waits.
  if (turns > 1) prices.round_s += turns * speeds.yield_s;
  const double copy = turns / speeds.copy_bytes_per_s;
  prices.peer_byte_s =
      turns / rate_of(piece, speeds.peer_small_bytes_per_s, speeds.peer_large_bytes_per_s);
  prices.fetched_byte_s =
      turns / rate_of(piece, speeds.fetch_small_bytes_per_s, speeds.fetch_large_bytes_per_s);
  // A message's bytes are written where the peer reads them, and read there. A lane has little room
  // for them, which comes around at once: its writer waits for lines that the reader still holds.
  const double message_byte = turns / speeds.message_bytes_per_s;
  const bool by_lane = piece <= static_cast<double>(transport::kLaneBytesMax);
  prices.message_byte_s = by_lane ? 2 * message_byte : message_byte;
  // What crosses takes longer than what stays, by message or load.
  prices.cross_byte_s = std::max(0.0, turns / speeds.cross_bytes_per_s - message_byte);
  prices.shared_byte_s = std::max(copy, message_byte - turns / speeds.peer_small_bytes_per_s);
  prices.local_byte_s = copy;
  const double touched = memory_bytes(request, topology, h);
  const double busy = std::min(ranks, cores);
  // A copy reads and writes: what is touched in the cache is copied at twice the rate.
  const double in_cache = touched / busy / (2 * speeds.copy_bytes_per_s);
  const double in_memory = std::max(
      touched / busy / speeds.core_traffic_bytes_per_s,
      touched / std::max(speeds.host_traffic_bytes_per_s, speeds.core_traffic_bytes_per_s));
  prices.memory_s = missing_share(host, touched) * std::max(0.0, in_memory - in_cache);
  return prices;
}

}  // namespace

double seconds_of(const plan::Cost& cost, const plan::Request& request, const Topology& topology,
                  const plan::Tuning& tuning) {
  const double messages = std::max(1.0, cost.inner_rounds);
  const double piece = (cost.inner_bytes + cost.peer_bytes + cost.fetched_bytes) / messages;
  const bool strip = piece <= static_cast<double>(transport::kLaneBytesMax) &&
                     cost.peer_bytes + cost.fetched_bytes == 0 && tuning.channels == 1 &&
                     !cost.staged;
  // Reduce-scatter, all-reduce and all-gather, say: each stage has a channel at least.
  const int channels = cost.staged ? std::max(3, tuning.channels) : tuning.channels;
  Prices most;
  const double nic_byte = 1 / topology.slowest_nic_bytes_per_s();
  double queue = 1;
  for (const int h : topology.used_hosts()) {
    most.raise(prices_of(request, topology, h, piece, strip, tuning.channels));
    queue = std::max(queue, messages_per_core(topology, h, cost.outer_senders));
  }
  return cost.inner_rounds * most.round_s + cost.inner_extra * most.extra_s +
         cost.outer_extra * tuning.channels * queue * kOuterMessageSeconds +
         cost.inner_bytes * most.message_byte_s + cost.shared_bytes * most.shared_byte_s +
         cost.peer_bytes * most.peer_byte_s + cost.fetched_bytes * most.fetched_byte_s +
         cost.local_bytes * most.local_byte_s + most.memory_s +
         cost.cross_bytes * most.cross_byte_s +
         cost.outer_rounds * (topology.network_alpha_s() + (queue - 1) * kOuterMessageSeconds) +
         cost.outer_bytes * (nic_byte + (queue - 1) * kOuterByteSeconds) +
         cost.spine_bytes * (topology.oversubscription() - 1) * nic_byte +
         (channels - 1) * kChannelSeconds;
}

double bound_seconds(const plan::Request& request, const Topology& topology) {
  const int ranks = topology.size();
  const bool many_hosts = topology.used_hosts().size() > 1;
  double bound = 0, network_sum = 0;
  for (const int h : topology.used_hosts()) {
    const Host& host = topology.hosts()[static_cast<size_t>(h)];
    const double local = static_cast<double>(topology.ranks_of_host(h).size());
    const double busy = std::min(local, static_cast<double>(std::max(1, host.cores)));
    // A copy at copy_bytes_per_s reads and writes: twice that is the traffic one core can make.
    double traffic = 2 * host.copy_bytes_per_s * busy;
    if (host.speeds.known() && local > 1)
      traffic =
          std::max(host.speeds.host_streaming_bytes_per_s, host.speeds.host_traffic_bytes_per_s);
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
