// Fabric: what a topology's bytes go through, as links with capacities.
//
//   in a host   rank a -> rank b: a's port out, b's port in (each Host::inner_bytes_per_s)
//   memory      of each rank, 2 * Host::copy_bytes_per_s of reading and writing together: a message
//               is read at one end and written at the other, a copy does both. Of a host's ranks
//               together where they have less than that each (fewer cores than ranks, or measured).
//   network     the sender's NIC out, the receiver's NIC in. Ranks that share a NIC share these.
//   spine       between different leaves (rails): the one's uplinks, the other's downlinks. Each is
//               what the NICs on the leaf carry together, divided by the oversubscription.
//
// A rank whose NIC is down sends and receives through one of its host's others that are up, on a
// rail that both hosts have if there is one; all of a host's down, what the topology says that they
// carry. NICs that no rank uses carry nothing, as bound_seconds() has it.
// The topology must outlive it. Any thread once it is made and folded.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "simulator/folding.h"
#include "simulator/sharing.h"
#include "topology/topology.h"

namespace railccl::simulator {

enum class LinkKind : uint8_t { port, memory, host_memory, nic, spine };

struct LinkFacts {
  LinkKind kind = LinkKind::port;
  double bytes_per_s = 0;
  std::string name;  // "node-3 nic1 out", "rank 25 port in", "rail 2 up"
};

class Fabric {
 public:
  explicit Fabric(const topology::Topology& topology);

  /// From now on links are those of ranks that stand in, and each use of one counts for all flows
  /// that it stands for there. False, and as it was, where links or ways would not be alike.
  bool fold(const Folding& folding);

  const std::vector<LinkFacts>& links() const { return links_; }
  /// The links of a message, added to `uses`.
  void add_message(int from, int to, std::vector<Use>& uses) const;
  /// What reading (writing) each byte at `owner` costs `rank`, added to `uses`; links that are
  /// there already get more weight.
  void add_read(int rank, int owner, std::vector<Use>& uses) const;
  void add_write(int rank, int owner, std::vector<Use>& uses) const;
  double latency_s(int from, int to) const;
  /// The rail of a message between hosts that stays on one, -1 of one that crosses the spine, and
  /// of any when the topology has no rails.
  int rail_of(int from, int to) const;
  /// The rail that stands for this one, and for how many.
  std::pair<int, int> rail_stand_in(int rail) const;

  int memory_of(int rank) const { return memory_[static_cast<size_t>(rank)]; }
  /// The links out of and into a NIC, or -1, -1 when no rank uses it.
  std::pair<int, int> nic_links(int host, int nic) const;

 private:
  struct Ends {
    int from_nic = 0, to_nic = 0;  // indices into nics_
  };
  struct Nic {
    int host = 0, nic = -1, leaf = -1;
    bool up = true;
    int out = 0, in = 0;  // links
  };

  /// The one that stands in for a link or leaf, and how many it stands for.
  struct StandIn {
    int by = -1;
    int alike = 0;
  };
  class Folded;

  int add_link(LinkKind kind, double bytes_per_s, std::string name);
  void add_use(std::vector<Use>& uses, int link, double weight) const;
  void add_host_links(int h);
  void add_nics();
  void add_spine();
  Ends ends_of(int from, int to) const;
  bool crosses(const Nic& from, const Nic& to) const;

  const topology::Topology& topology_;
  std::vector<LinkFacts> links_;
  int folds_ = 1;
  std::vector<StandIn> link_stand_ins_, leaf_stand_ins_;  // empty: not folded
  std::vector<int> port_out_, port_in_, memory_;          // by rank
  std::vector<int> host_memory_;  // by host, -1 where ranks have all they can use
  std::vector<Nic> nics_;
  std::map<std::pair<int, int>, int> nic_at_;  // (host, nic) -> index into nics_
  std::vector<int> nic_of_;                    // by rank
  std::vector<std::vector<int>> up_nics_;      // by host
  std::vector<int> leaf_up_, leaf_down_;       // by leaf: the rails, then one for NICs on none
};

}  // namespace railccl::simulator
