// Hosts told apart by id, rails formed, and a NIC for each rank.
#include "topology/merge.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "topology/rails.h"

namespace railccl::topology {

namespace {

// A NIC this much slower than its host's fastest serves management, not collectives: using it would
// make every plan wait for it.
constexpr double kSlowestUseful = 0.25;

/// Indices of the NICs of `host` worth giving to ranks.
std::vector<int> useful_nics(const Host& host) {
  std::vector<int> useful;
  for (size_t n = 0; n < host.nics.size(); n++)
    if (host.nics[n].up) useful.push_back(static_cast<int>(n));
  const auto nic = [&](int n) -> const Nic& { return host.nics[static_cast<size_t>(n)]; };
  const bool any_rail =
      std::any_of(useful.begin(), useful.end(), [&](int n) { return nic(n).rail >= 0; });
  if (any_rail) std::erase_if(useful, [&](int n) { return nic(n).rail < 0; });
  double fastest = 0;
  for (const int n : useful) fastest = std::max(fastest, nic(n).bytes_per_s);
  std::erase_if(useful, [&](int n) {
    return nic(n).bytes_per_s > 0 && nic(n).bytes_per_s < kSlowestUseful * fastest;
  });
  return useful;
}

/// Gives each rank of one host a NIC.
class Assignment {
 public:
  Assignment(const Host& host, std::vector<Rank*> ranks)
      : host_(host), ranks_(std::move(ranks)), nics_(useful_nics(host)), users_(nics_.size(), 0) {}

  void run(size_t rails) {
    if (nics_.empty()) return;
    users_max_ = static_cast<int>((ranks_.size() + nics_.size() - 1) / nics_.size());
    // First everyone who can have the rail of its number at no loss of distance, then the closest
    // pairs, so that a far rank never takes the NIC a near one needs.
    for (size_t local = 0; rails > 0 && local < ranks_.size(); local++)
      take_home(local, static_cast<int>(local % rails));
    for (int distance = 0; distance <= static_cast<int>(Distance::other_numa); distance++)
      for (Rank* rank : ranks_)
        if (rank->nic < 0) take_at(*rank, static_cast<Distance>(distance));
  }

 private:
  const Nic& nic(size_t i) const { return host_.nics[static_cast<size_t>(nics_[i])]; }

  Distance nearest(const Rank& rank) const {
    Distance best = Distance::other_numa;
    for (size_t i = 0; i < nics_.size(); i++)
      best = std::min(best, distance_of(host_, rank, nic(i)));
    return best;
  }

  void give(Rank& rank, size_t i) {
    rank.nic = nics_[i];
    rank.rail = nic(i).rail;
    users_[i]++;
  }

  void take_home(size_t local, int home_rail) {
    Rank& rank = *ranks_[local];
    const Distance best = nearest(rank);
    take_least_used(rank, [&](size_t i) {
      return nic(i).rail == home_rail && distance_of(host_, rank, nic(i)) == best;
    });
  }

  void take_at(Rank& rank, Distance distance) {
    take_least_used(rank, [&](size_t i) { return distance_of(host_, rank, nic(i)) == distance; });
  }

  /// Among the NICs that `allowed` lets through and that have room: the least used, then the
  /// lowest rail, then the lowest index.
  template <typename Allowed>
  void take_least_used(Rank& rank, Allowed allowed) {
    size_t best = nics_.size();
    for (size_t i = 0; i < nics_.size(); i++) {
      if (users_[i] >= users_max_ || !allowed(i)) continue;
      if (best == nics_.size() ||
          std::pair(users_[i], nic(i).rail) < std::pair(users_[best], nic(best).rail))
        best = i;
    }
    if (best < nics_.size()) give(rank, best);
  }

  const Host& host_;
  std::vector<Rank*> ranks_;
  std::vector<int> nics_;   // indices into host_.nics
  std::vector<int> users_;  // ranks served, per entry of nics_
  int users_max_ = 0;
};

}  // namespace

const char* name_of(Distance distance) {
  switch (distance) {
    case Distance::same_switch:
      return "behind the same PCI switch";
    case Distance::same_numa:
      return "on the same NUMA node";
    case Distance::unknown:
      return "at an unknown distance";
    case Distance::other_numa:
      return "on another NUMA node";
  }
  return "invalid";
}

Distance distance_of(const Host& host, const Rank& rank, const Nic& nic) {
  int numa = rank.numa;
  if (rank.gpu >= 0) {
    const Gpu& gpu = host.gpus[static_cast<size_t>(rank.gpu)];
    if (!gpu.upstream.empty() && gpu.upstream == nic.upstream) return Distance::same_switch;
    if (gpu.numa >= 0) numa = gpu.numa;
  }
  if (numa < 0 || nic.numa < 0) return Distance::unknown;
  return numa == nic.numa ? Distance::same_numa : Distance::other_numa;
}

std::vector<size_t> describers_of(const std::vector<Facts>& facts) {
  std::set<uint64_t> known;
  std::vector<size_t> describers;
  for (size_t r = 0; r < facts.size(); r++)
    if (known.insert(facts[r].host.id).second) describers.push_back(r);
  return describers;
}

Topology merge(const std::vector<Facts>& facts, double oversubscription) {
  std::map<uint64_t, int> known;
  std::vector<Host> hosts;
  std::vector<Rank> ranks;
  ranks.reserve(facts.size());
  for (const Facts& fact : facts) {
    const auto [place, fresh] = known.emplace(fact.host.id, static_cast<int>(hosts.size()));
    if (fresh) hosts.push_back(fact.host);
    const Host& host = hosts[static_cast<size_t>(place->second)];
    Rank rank;
    rank.host = place->second;
    rank.process = fact.process;
    // Another rank of the host may see fewer NUMA nodes or GPUs (control groups): what it means by
    // an index that the describing rank lacks cannot be known.
    if (fact.numa < static_cast<int>(host.numas.size())) rank.numa = fact.numa;
    // Caches go by numbers of the operating system, which mean the same to everyone.
    rank.cache = fact.cache;
    if (fact.gpu < static_cast<int>(host.gpus.size())) rank.gpu = fact.gpu;
    ranks.push_back(rank);
  }
  return assemble(std::move(hosts), std::move(ranks), Topology().network_alpha_s(),
                  oversubscription);
}

Topology assemble(std::vector<Host> hosts, std::vector<Rank> ranks, double network_alpha_s,
                  double oversubscription) {
  std::vector<Rail> rails = form_rails(hosts);
  std::vector<std::vector<Rank*>> of_host(hosts.size());
  for (Rank& rank : ranks) {
    rank.nic = rank.rail = -1;
    of_host[static_cast<size_t>(rank.host)].push_back(&rank);
  }
  for (size_t h = 0; h < hosts.size(); h++)
    Assignment(hosts[h], std::move(of_host[h])).run(rails.size());
  return Topology(std::move(hosts), std::move(rails), std::move(ranks), network_alpha_s,
                  oversubscription);
}

std::string why_nic(const Topology& topology, int r) {
  const Rank& rank = topology.rank(r);
  const Host& host = topology.host_of(r);
  if (rank.nic < 0) return host.nics.empty() ? "its host has no NIC" : "no NIC of its host is up";
  const Nic& nic = host.nics[static_cast<size_t>(rank.nic)];
  int sharers = 0;
  for (const int other : topology.ranks_of_host(rank.host))
    sharers += topology.rank(other).nic == rank.nic ? 1 : 0;
  std::string why = fmt::format("{} is {}", nic.name, name_of(distance_of(host, rank, nic)));
  if (sharers > 1) why += fmt::format(", shared by {} ranks", sharers);
  const bool home = !topology.rails().empty() &&
                    rank.rail == rank.local % static_cast<int>(topology.rails().size());
  if (rank.rail < 0)
    why += ", on no rail";
  else if (home)
    why += fmt::format(", rail {} as for local rank {} of every host", rank.rail, rank.local);
  else
    why += fmt::format(", rail {}", rank.rail);
  return why;
}

}  // namespace railccl::topology
