// The Topology class: derived tables, the cost of a path, subsets.
#include "topology/topology.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <map>
#include <utility>

namespace railccl::topology {

namespace {

// What a network path is taken to carry when no probe knew its speed: 10 Gbit/s, the slowest card
// still common in clusters. Only the relative order of candidates depends on it.
constexpr double kUnknownNicBytesPerS = 1.25e9;

// Bytes that a plan gives to a NIC that is down arrive by detours, if at all.
constexpr double kDownShare = 1.0 / 64;

double nic_speed(const Host& host, int nic) {
  if (nic < 0) return kUnknownNicBytesPerS;
  assert(static_cast<size_t>(nic) < host.nics.size());
  const Nic& card = host.nics[static_cast<size_t>(nic)];
  const double speed = card.bytes_per_s > 0 ? card.bytes_per_s : kUnknownNicBytesPerS;
  return card.up ? speed : speed * kDownShare;
}

/// The ranks of one host by what `place` says of each, as indices in order of appearance; empty
/// when it is negative for one.
template <typename Place>
std::vector<int> grouped(const std::vector<Rank*>& ranks, const Place& place, size_t& groups) {
  std::map<std::pair<int, int>, int> index;
  std::vector<int> result;
  for (const Rank* rank : ranks) {
    const std::pair<int, int> at = place(*rank);
    if (at.second < 0) return {};
    result.push_back(index.try_emplace(at, static_cast<int>(index.size())).first->second);
  }
  groups = index.size();
  return result;
}

/// Sets the domains of the ranks of one host; returns how many there are.
int set_domains(const std::vector<Rank*>& ranks) {
  for (Rank* rank : ranks) rank->domain = 0;
  // GPUs reach each other without the processor.
  if (std::any_of(ranks.begin(), ranks.end(), [](const Rank* rank) { return rank->gpu >= 0; }))
    return 1;
  size_t caches = 0, numas = 0;
  const std::vector<int> by_cache = grouped(
      ranks, [](const Rank& rank) { return std::pair(rank.numa, rank.cache); }, caches);
  const std::vector<int> by_numa = grouped(
      ranks, [](const Rank& rank) { return std::pair(0, rank.numa); }, numas);
  // Caches of one rank each say nothing about who is near whom.
  const bool cache_shared = caches > 1 && caches < ranks.size();
  const bool numa_shared = numas > 1 && numas < ranks.size();
  const std::vector<int>& domains =
      cache_shared || (!numa_shared && caches > numas) ? by_cache : by_numa;
  for (size_t i = 0; i < domains.size(); i++) ranks[i]->domain = domains[i];
  return domains.empty() ? 1 : *std::max_element(domains.begin(), domains.end()) + 1;
}

}  // namespace

void Host::set_speeds(const Speeds& measured) {
  speeds = measured;
  if (!measured.known()) return;
  inner_alpha_s = measured.signal_s;
  // A message is copied by its sender and copied or combined by its receiver, one after the other.
  inner_bytes_per_s = 1 / (1 / measured.copy_bytes_per_s + 1 / measured.peer_small_bytes_per_s);
  // Half of the traffic of a copy is what it copies.
  copy_bytes_per_s =
      std::max(measured.core_traffic_bytes_per_s, measured.core_streaming_bytes_per_s) / 2;
}

Topology::Topology(std::vector<Host> hosts, std::vector<Rail> rails, std::vector<Rank> ranks,
                   double network_alpha_s, double oversubscription)
    : hosts_(std::move(hosts)),
      rails_(std::move(rails)),
      ranks_(std::move(ranks)),
      of_host_(hosts_.size()),
      network_alpha_s_(network_alpha_s),
      oversubscription_(oversubscription) {
  for (int r = 0; r < size(); r++) {
    Rank& rank = ranks_[static_cast<size_t>(r)];
    assert(rank.host >= 0 && static_cast<size_t>(rank.host) < hosts_.size());
    std::vector<int>& neighbours = of_host_[static_cast<size_t>(rank.host)];
    rank.local = static_cast<int>(neighbours.size());
    neighbours.push_back(r);
  }
  for (size_t h = 0; h < hosts_.size(); h++) {
    std::vector<Rank*> of_host;
    for (const int r : of_host_[h]) of_host.push_back(&ranks_[static_cast<size_t>(r)]);
    domains_.push_back(set_domains(of_host));
    if (!of_host.empty()) used_hosts_.push_back(static_cast<int>(h));
  }
  std::map<uint64_t, int> on_machine;
  for (const Rank& rank : ranks_) on_machine[hosts_[static_cast<size_t>(rank.host)].machine]++;
  for (size_t h = 0; h < hosts_.size(); h++)
    on_cores_.push_back(hosts_[h].machine == 0 ? static_cast<int>(of_host_[h].size())
                                               : on_machine[hosts_[h].machine]);
  nic_places_.resize(ranks_.size());
  nic_speeds_.resize(ranks_.size());
  for (const std::vector<int>& neighbours : of_host_) {
    std::map<int, int> places;  // by NIC
    for (const int r : neighbours) {
      const auto [at, fresh] = places.try_emplace(rank(r).nic, nic_count_);
      nic_count_ += fresh ? 1 : 0;
      nic_places_[static_cast<size_t>(r)] = at->second;
      nic_speeds_[static_cast<size_t>(r)] = nic_speed(host_of(r), rank(r).nic);
    }
  }
  slowest_nic_bytes_per_s_ = ranks_.empty()
                                 ? kUnknownNicBytesPerS
                                 : *std::min_element(nic_speeds_.begin(), nic_speeds_.end());
}

double Topology::rail_bytes_per_s(int rail, int h) const {
  double least = -1;
  for (const int r : ranks_of_host(h)) {
    if (rank(r).rail != rail || rank(r).nic < 0) continue;
    const Nic& nic = host_of(r).nics[static_cast<size_t>(rank(r).nic)];
    if (!nic.up) return 0;
    if (nic.bytes_per_s > 0 && (least < 0 || nic.bytes_per_s < least)) least = nic.bytes_per_s;
  }
  return least;
}

int Topology::ranks_per_host_max() const {
  size_t most = 0;
  for (const int h : used_hosts_) most = std::max(most, ranks_of_host(h).size());
  return static_cast<int>(most);
}

int Topology::ranks_per_host_min() const {
  if (used_hosts_.empty()) return 0;
  size_t least = ranks_.size();
  for (const int h : used_hosts_) least = std::min(least, ranks_of_host(h).size());
  return static_cast<int>(least);
}

Path Topology::path(int from, int to) const {
  const Rank& a = rank(from);
  const Rank& b = rank(to);
  const Host& host = host_of(from);
  Path path;
  if (from == to) {
    path.bytes_per_s = host.copy_bytes_per_s;
    path.same_process = path.same_host = true;
    return path;
  }
  if (a.host == b.host) {
    path.same_host = true;
    path.same_process = a.process == b.process;
    path.alpha_s = host.inner_alpha_s;
    path.bytes_per_s = host.inner_bytes_per_s;
    return path;
  }
  path.alpha_s = network_alpha_s_;
  path.bytes_per_s = std::min(nic_speed(host, a.nic), nic_speed(host_of(to), b.nic));
  // Without any rail nothing is known about the fabric, and calling every path a crossing would
  // tell no two paths apart.
  path.crosses_spine = !rails_.empty() && (a.rail != b.rail || a.rail < 0);
  if (path.crosses_spine) path.bytes_per_s /= oversubscription_;
  return path;
}

Topology Topology::with_speeds(const std::vector<Speeds>& of_hosts) const {
  assert(of_hosts.size() == hosts_.size());
  Topology measured = *this;
  for (size_t h = 0; h < hosts_.size(); h++)
    if (of_hosts[h].known()) measured.hosts_[h].set_speeds(of_hosts[h]);
  return measured;
}

Topology Topology::with_nic_speeds(const std::vector<std::vector<double>>& of_hosts) const {
  assert(of_hosts.size() == hosts_.size());
  std::vector<Host> hosts = hosts_;
  std::vector<Rail> rails = rails_;
  std::vector<double> slowest(rails.size(), 0);  // 0: of no NIC
  std::vector<bool> told(rails.size(), false);
  for (size_t h = 0; h < hosts.size(); h++) {
    for (Nic& nic : hosts[h].nics) {
      if (nic.rail < 0) continue;
      const double speed = of_hosts[h][static_cast<size_t>(nic.rail)];
      if (speed >= 0) {
        told[static_cast<size_t>(nic.rail)] = true;
        nic.up = speed > 0;
        // What one that is down once carried stays known.
        if (nic.up && std::isfinite(speed)) nic.bytes_per_s = speed;
      }
      double& least = slowest[static_cast<size_t>(nic.rail)];
      if (nic.up && nic.bytes_per_s > 0)
        least = least > 0 ? std::min(least, nic.bytes_per_s) : nic.bytes_per_s;
    }
  }
  for (size_t r = 0; r < rails.size(); r++)
    if (told[r] && slowest[r] > 0) rails[r].bytes_per_s = slowest[r];
  return Topology(std::move(hosts), std::move(rails), ranks_, network_alpha_s_, oversubscription_);
}

Topology Topology::subset(const std::vector<int>& members) const {
  std::vector<Rank> chosen;
  chosen.reserve(members.size());
  for (const int old : members) chosen.push_back(rank(old));
  return Topology(hosts_, rails_, std::move(chosen), network_alpha_s_, oversubscription_);
}

}  // namespace railccl::topology
