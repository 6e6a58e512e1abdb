// Topology: the immutable picture of hosts, NUMA nodes, GPUs, NICs and rails, and of which rank
// sits where. Same facts give the same picture on every rank, so that all ranks decide alike.
//
// Built by probes (one file each) as Facts of one host, merged over all ranks at initialisation
// (merge.h), or written down (synthetic.h, text.h). Never changed once made: share it freely
// between threads. Indices are dense and start at 0; -1 means none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "topology/speeds.h"

namespace railccl::topology {

/// What moving bytes between two ranks costs: seconds = alpha_s + bytes / bytes_per_s (Hockney).
struct Path {
  double alpha_s = 0;
  double bytes_per_s = 0;
  bool same_process = false;   // every buffer of the peer can be loaded and stored directly
  bool same_host = false;      // a shared segment is possible
  bool crosses_spine = false;  // leaves the rail's own switch
};

struct Numa {
  uint64_t memory_bytes = 0;
  std::string cpus;  // Linux list form, "0-3,8"
  friend bool operator==(const Numa&, const Numa&) = default;
};

struct Gpu {
  std::string name;
  std::string pci;  // "0000:17:00.0", empty if unknown
  int numa = -1;
  std::string upstream;  // PCI bridges above it, root first: "0000:15:01.0/0000:16:00.0"
  friend bool operator==(const Gpu&, const Gpu&) = default;
};

struct Nic {
  std::string name;  // "eth0", "mlx5_0"
  std::string pci;   // empty for virtual ones
  int numa = -1;
  double bytes_per_s = 0;  // nominal, one direction; 0 = unknown
  bool up = true;
  std::vector<std::string> addresses;  // "10.0.1.2/24", "fe80::1/64", RDMA: "gid fd00::1/64"
  std::string neighbourhood;           // what decides its rail: "subnet 10.0.1.0/24", "leaf 3"
  int rail = -1;                       // index into Topology::rails
  std::string upstream;                // as in Gpu
  std::string rdma;                    // RDMA device of this port, "mlx5_0"; empty if none
  friend bool operator==(const Nic&, const Nic&) = default;
};

struct Host {
  std::string name;
  uint64_t id = 0;       // equal for ranks that can share memory, different otherwise
  uint64_t machine = 0;  // equal for hosts that share their cores (containers); 0 = shares none
  int cores = 1;
  uint64_t last_level_cache_bytes = 0;  // of one such cache
  int cores_per_cache = 0;              // that share it; 0 = unknown
  double copy_bytes_per_s = 10e9;       // one rank's copy through memory
  double inner_bytes_per_s = 10e9;      // between two ranks of this host
  double inner_alpha_s = 0.5e-6;
  Speeds speeds;  // measured on the host; zeros when nobody did
  std::vector<Numa> numas;
  std::vector<Gpu> gpus;
  std::vector<Nic> nics;

  /// Keeps `measured`, and sets the three coarse figures above from it.
  void set_speeds(const Speeds& measured);
  friend bool operator==(const Host&, const Host&) = default;
};

struct Rail {
  std::string reason;      // why these NICs are one rail, for people
  double bytes_per_s = 0;  // of its slowest NIC that is up; 0 = unknown
  friend bool operator==(const Rail&, const Rail&) = default;
};

struct Rank {
  int host = 0;
  int local = 0;         // index among the host's ranks, in rank order (set by Topology)
  uint64_t process = 0;  // equal for ranks of one process (threads), unique per process otherwise
  int numa = -1;
  int cache = -1;  // which last-level cache, named by the lowest CPU that shares it
  int domain = 0;  // ranks of a host with equal ones are near each other (set by Topology)
  int gpu = -1;    // index into Host::gpus
  int nic = -1;    // index into Host::nics: the nearest, shared when there are too few
  int rail = -1;
  friend bool operator==(const Rank&, const Rank&) = default;
};

class Topology {
 public:
  Topology() = default;
  /// `ranks` in rank order; local indices and ranks-per-host tables are derived here.
  Topology(std::vector<Host> hosts, std::vector<Rail> rails, std::vector<Rank> ranks,
           double network_alpha_s = 15e-6, double oversubscription = 1);

  int size() const { return static_cast<int>(ranks_.size()); }
  const std::vector<Host>& hosts() const { return hosts_; }
  const std::vector<Rail>& rails() const { return rails_; }
  const std::vector<Rank>& ranks() const { return ranks_; }
  const Rank& rank(int r) const { return ranks_[static_cast<size_t>(r)]; }
  const Host& host_of(int r) const { return hosts_[static_cast<size_t>(rank(r).host)]; }
  /// Ranks on host h, ascending. Hosts without ranks have an empty list.
  const std::vector<int>& ranks_of_host(int h) const { return of_host_[static_cast<size_t>(h)]; }
  /// Hosts that hold at least one rank, ascending.
  const std::vector<int>& used_hosts() const { return used_hosts_; }
  /// Domains of host h: ranks that share a last-level cache where several ranks do, else a NUMA
  /// node. One for ranks on GPUs, and where the place of some rank is unknown. Numbered from 0 in
  /// the order of their lowest ranks.
  int domains_of_host(int h) const { return domains_[static_cast<size_t>(h)]; }
  bool same_domain(int a, int b) const {
    return rank(a).host == rank(b).host && rank(a).domain == rank(b).domain;
  }
  /// Ranks that share the cores of host h: its own, and those of other hosts on the same machine.
  int ranks_on_cores_of(int h) const { return on_cores_[static_cast<size_t>(h)]; }
  int ranks_per_host_max() const;
  int ranks_per_host_min() const;

  Path path(int from, int to) const;
  /// What rank r's NIC carries, for shares and prices: 10 Gbit/s where nobody knows; of one that is
  /// down little, so that a plan without it is always the better one.
  double nic_bytes_per_s(int r) const { return nic_speeds_[static_cast<size_t>(r)]; }
  /// A number for rank r's NIC, from 0 to nic_count(): the same for ranks that share it.
  int nic_place(int r) const { return nic_places_[static_cast<size_t>(r)]; }
  int nic_count() const { return nic_count_; }
  /// The least of these; that of an unknown NIC without ranks.
  double slowest_nic_bytes_per_s() const { return slowest_nic_bytes_per_s_; }
  /// What host h carries on rail `rail`: as much as the slowest of its ranks' NICs there, 0 when
  /// one is down; negative where no speed is known.
  double rail_bytes_per_s(int rail, int h) const;
  double network_alpha_s() const { return network_alpha_s_; }
  /// Leaf-to-spine oversubscription: cross-rail bandwidth is the rail's divided by this.
  double oversubscription() const { return oversubscription_; }

  /// The same with measured speeds, one per host; hosts keep what they have where none are known.
  Topology with_speeds(const std::vector<Speeds>& of_hosts) const;

  /// The same with other speeds of NICs: `of_hosts[h][r]` for those of host h on rail r. 0 takes
  /// them down, more brings them up again, infinity at the speed that they had; anything else
  /// (negative, not a number) leaves them alone.
  Topology with_nic_speeds(const std::vector<std::vector<double>>& of_hosts) const;

  /// The topology of a subset (communicator split): `members[i]` is the old rank of new rank i.
  Topology subset(const std::vector<int>& members) const;

  friend bool operator==(const Topology& a, const Topology& b) {
    return a.hosts_ == b.hosts_ && a.rails_ == b.rails_ && a.ranks_ == b.ranks_ &&
           a.network_alpha_s_ == b.network_alpha_s_ && a.oversubscription_ == b.oversubscription_;
  }

 private:
  std::vector<Host> hosts_;
  std::vector<Rail> rails_;
  std::vector<Rank> ranks_;
  std::vector<std::vector<int>> of_host_;
  std::vector<int> domains_;
  std::vector<int> on_cores_;
  std::vector<int> used_hosts_;
  std::vector<double> nic_speeds_;  // by rank
  std::vector<int> nic_places_;
  int nic_count_ = 0;
  double network_alpha_s_ = 15e-6;
  double oversubscription_ = 1;
  double slowest_nic_bytes_per_s_ = 0;
};

}  // namespace railccl::topology
