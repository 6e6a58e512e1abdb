// Fabric: links made from a topology, and which of them bytes take.
#include "simulator/fabric.h"

#include <fmt/format.h>

#include <algorithm>

namespace railccl::simulator {

using topology::Host;
using topology::Rank;

Fabric::Fabric(const topology::Topology& topology)
    : topology_(topology),
      port_out_(static_cast<size_t>(topology.size())),
      port_in_(port_out_.size()),
      memory_(port_out_.size()),
      host_memory_(topology.hosts().size(), -1),
      nic_of_(port_out_.size()),
      up_nics_(topology.hosts().size()) {
  for (const int h : topology.used_hosts()) add_host_links(h);
  add_nics();
  add_spine();
}

int Fabric::add_link(LinkKind kind, double bytes_per_s, std::string name) {
  links_.push_back({kind, bytes_per_s, std::move(name)});
  return static_cast<int>(links_.size()) - 1;
}

void Fabric::add_use(std::vector<Use>& uses, int link, double weight) const {
  if (!link_stand_ins_.empty()) {
    const StandIn& stand_in = link_stand_ins_[static_cast<size_t>(link)];
    link = stand_in.by;
    weight *= static_cast<double>(folds_) / stand_in.alike;
  }
  const auto known =
      std::find_if(uses.begin(), uses.end(), [link](const Use& use) { return use.link == link; });
  if (known == uses.end())
    uses.push_back({link, weight});
  else
    known->weight += weight;
}

void Fabric::add_host_links(int h) {
  const Host& host = topology_.hosts()[static_cast<size_t>(h)];
  const std::vector<int>& ranks = topology_.ranks_of_host(h);
  for (const int r : ranks) {
    const auto i = static_cast<size_t>(r);
    port_out_[i] =
        add_link(LinkKind::port, host.inner_bytes_per_s, fmt::format("rank {} port out", r));
    port_in_[i] =
        add_link(LinkKind::port, host.inner_bytes_per_s, fmt::format("rank {} port in", r));
    memory_[i] =
        add_link(LinkKind::memory, 2 * host.copy_bytes_per_s, fmt::format("rank {} memory", r));
  }
  // What runtime::bound_seconds() takes the host's memory to carry.
  const double local = static_cast<double>(ranks.size());
  const double all = 2 * host.copy_bytes_per_s * local;
  double together =
      2 * host.copy_bytes_per_s * std::min(local, static_cast<double>(std::max(1, host.cores)));
  if (host.speeds.known() && local > 1)
    together =
        std::max(host.speeds.host_streaming_bytes_per_s, host.speeds.host_traffic_bytes_per_s);
  if (together < all)
    host_memory_[static_cast<size_t>(h)] =
        add_link(LinkKind::host_memory, together, fmt::format("{} memory", host.name));
}

void Fabric::add_nics() {
  const int no_rail = static_cast<int>(topology_.rails().size());
  for (int r = 0; r < topology_.size(); r++) {
    const Rank& rank = topology_.rank(r);
    const Host& host = topology_.host_of(r);
    const auto [at, fresh] =
        nic_at_.try_emplace({rank.host, rank.nic}, static_cast<int>(nics_.size()));
    nic_of_[static_cast<size_t>(r)] = at->second;
    if (!fresh) continue;
    Nic nic{rank.host, rank.nic, rank.rail < 0 ? no_rail : rank.rail, true, 0, 0};
    std::string name = "network";
    if (rank.nic >= 0) {
      nic.up = host.nics[static_cast<size_t>(rank.nic)].up;
      name = host.nics[static_cast<size_t>(rank.nic)].name;
    }
    const double speed = topology_.nic_bytes_per_s(r);
    nic.out = add_link(LinkKind::nic, speed, fmt::format("{} {} out", host.name, name));
    nic.in = add_link(LinkKind::nic, speed, fmt::format("{} {} in", host.name, name));
    if (nic.up) up_nics_[static_cast<size_t>(rank.host)].push_back(at->second);
    nics_.push_back(nic);
  }
}

void Fabric::add_spine() {
  const size_t rails = topology_.rails().size();
  if (rails == 0) return;
  std::vector<double> speed(rails + 1, 0);
  for (const Nic& nic : nics_)
    speed[static_cast<size_t>(nic.leaf)] += links_[static_cast<size_t>(nic.out)].bytes_per_s;
  for (size_t leaf = 0; leaf <= rails; leaf++) {
    const std::string name = leaf < rails ? fmt::format("rail {}", leaf) : "no rail";
    const double share = speed[leaf] / topology_.oversubscription();
    leaf_up_.push_back(add_link(LinkKind::spine, share, name + " up"));
    leaf_down_.push_back(add_link(LinkKind::spine, share, name + " down"));
  }
}

/// Who stands in for whom, of links or of leaves, while that is found out.
class Fabric::Folded {
 public:
  explicit Folded(size_t size) : stand_ins_(size), uses_(size) {}
  /// One more rank uses `one`, and its stand-in `by`. False: another one says otherwise.
  bool add(int one, int by) {
    if (one < 0) return by < 0;
    StandIn& stand_in = stand_ins_[static_cast<size_t>(one)];
    uses_[static_cast<size_t>(one)]++;
    if (stand_in.by >= 0) return stand_in.by == by;
    stand_in.by = by;
    if (by >= 0) stand_ins_[static_cast<size_t>(by)].alike++;
    return by >= 0;
  }
  /// False when of some that are alike one is used more.
  bool finish() {
    for (size_t i = 0; i < stand_ins_.size(); i++) {
      if (stand_ins_[i].by < 0) stand_ins_[i] = {static_cast<int>(i), 1};  // nobody uses it
      const auto by = static_cast<size_t>(stand_ins_[i].by);
      if (uses_[i] != uses_[by]) return false;
      stand_ins_[i].alike = stand_ins_[by].alike;
    }
    return true;
  }
  std::vector<StandIn> take() { return std::move(stand_ins_); }

 private:
  std::vector<StandIn> stand_ins_;
  std::vector<int> uses_;
};

bool Fabric::fold(const Folding& folding) {
  if (folding.folds() == 1) return true;
  Folded links(links_.size()), leaves(leaf_up_.size());
  for (int r = 0; r < topology_.size(); r++) {
    const int s = folding.stand_in(r);
    const auto a = static_cast<size_t>(r), b = static_cast<size_t>(s);
    const Nic &mine = nics_[static_cast<size_t>(nic_of_[a])],
              &theirs = nics_[static_cast<size_t>(nic_of_[b])];
    if (!mine.up || topology_.host_of(r).inner_alpha_s != topology_.host_of(s).inner_alpha_s)
      return false;
    const int my_host = host_memory_[static_cast<size_t>(topology_.rank(r).host)],
              their_host = host_memory_[static_cast<size_t>(topology_.rank(s).host)];
    if (!links.add(port_out_[a], port_out_[b]) || !links.add(port_in_[a], port_in_[b]) ||
        !links.add(memory_[a], memory_[b]) || !links.add(my_host, their_host) ||
        !links.add(mine.out, theirs.out) || !links.add(mine.in, theirs.in))
      return false;
    if (leaf_up_.empty()) continue;
    // Whoever are on one leaf are so wherever they are moved to: their places in their hosts say
    // on which, and where these are moved, each has its own, or all have one.
    const int local = topology_.rank(r).local;
    const int leaf_there = nics_[static_cast<size_t>(nic_of_[static_cast<size_t>(local)])].leaf;
    if (mine.leaf != leaf_there) return false;
    if (!leaves.add(mine.leaf, theirs.leaf) ||
        !links.add(leaf_up_[static_cast<size_t>(mine.leaf)],
                   leaf_up_[static_cast<size_t>(theirs.leaf)]) ||
        !links.add(leaf_down_[static_cast<size_t>(mine.leaf)],
                   leaf_down_[static_cast<size_t>(theirs.leaf)]))
      return false;
  }
  if (!links.finish() || !leaves.finish()) return false;
  std::vector<StandIn> of_links = links.take(), of_leaves = leaves.take();
  for (size_t l = 0; l < links_.size(); l++)
    if (links_[l].bytes_per_s != links_[static_cast<size_t>(of_links[l].by)].bytes_per_s)
      return false;
  const int local = topology_.ranks_per_host_max();
  for (const StandIn& leaf : of_leaves)
    if (leaf.alike != 1 && leaf.alike != local) return false;
  folds_ = folding.folds();
  link_stand_ins_ = std::move(of_links);
  leaf_stand_ins_ = std::move(of_leaves);
  return true;
}

std::pair<int, int> Fabric::rail_stand_in(int rail) const {
  if (leaf_stand_ins_.empty()) return {rail, 1};
  const StandIn& stand_in = leaf_stand_ins_[static_cast<size_t>(rail)];
  return {stand_in.by, stand_in.alike};
}

Fabric::Ends Fabric::ends_of(int from, int to) const {
  Ends ends{nic_of_[static_cast<size_t>(from)], nic_of_[static_cast<size_t>(to)]};
  const Nic& a = nics_[static_cast<size_t>(ends.from_nic)];
  const Nic& b = nics_[static_cast<size_t>(ends.to_nic)];
  if (a.up && b.up) return ends;
  const std::vector<int>& out = up_nics_[static_cast<size_t>(a.host)];
  const std::vector<int>& in = up_nics_[static_cast<size_t>(b.host)];
  // Ranks of a host spread over the NICs that are left, each always to the same one.
  const size_t turn = static_cast<size_t>(topology_.rank(a.up ? to : from).local);
  std::vector<Ends> common;
  for (const int o : out)
    for (const int i : in)
      if (nics_[static_cast<size_t>(o)].leaf == nics_[static_cast<size_t>(i)].leaf &&
          (!a.up || o == ends.from_nic) && (!b.up || i == ends.to_nic))
        common.push_back({o, i});
  // Not even through the NIC of the rank that has one: then through any pair on one rail.
  if (common.empty())
    for (const int o : out)
      for (const int i : in)
        if (nics_[static_cast<size_t>(o)].leaf == nics_[static_cast<size_t>(i)].leaf)
          common.push_back({o, i});
  if (!common.empty()) return common[turn % common.size()];
  if (!a.up && !out.empty()) ends.from_nic = out[turn % out.size()];
  if (!b.up && !in.empty()) ends.to_nic = in[turn % in.size()];
  return ends;
}

bool Fabric::crosses(const Nic& from, const Nic& to) const {
  const int rails = static_cast<int>(topology_.rails().size());
  return rails > 0 && (from.leaf != to.leaf || from.leaf == rails);
}

void Fabric::add_message(int from, int to, std::vector<Use>& uses) const {
  // To oneself: a copy.
  if (from == to) return add_write(from, from, uses), add_read(from, from, uses);
  const int from_host = topology_.rank(from).host, to_host = topology_.rank(to).host;
  if (from_host == to_host) {
    add_use(uses, port_out_[static_cast<size_t>(from)], 1);
    add_use(uses, port_in_[static_cast<size_t>(to)], 1);
  } else {
    const Ends ends = ends_of(from, to);
    const Nic& out = nics_[static_cast<size_t>(ends.from_nic)];
    const Nic& in = nics_[static_cast<size_t>(ends.to_nic)];
    add_use(uses, out.out, 1);
    if (crosses(out, in)) {
      add_use(uses, leaf_up_[static_cast<size_t>(out.leaf)], 1);
      add_use(uses, leaf_down_[static_cast<size_t>(in.leaf)], 1);
    }
    add_use(uses, in.in, 1);
  }
  add_use(uses, memory_of(from), 1);
  add_use(uses, memory_of(to), 1);
  for (const int host : {from_host, to_host})
    if (const int link = host_memory_[static_cast<size_t>(host)]; link >= 0) add_use(uses, link, 1);
}

void Fabric::add_read(int rank, int owner, std::vector<Use>& uses) const {
  if (owner != rank) {
    add_use(uses, port_out_[static_cast<size_t>(owner)], 1);
    add_use(uses, port_in_[static_cast<size_t>(rank)], 1);
  }
  add_use(uses, memory_of(owner), 1);
  if (const int link = host_memory_[static_cast<size_t>(topology_.rank(rank).host)]; link >= 0)
    add_use(uses, link, 1);
}

void Fabric::add_write(int rank, int owner, std::vector<Use>& uses) const {
  // The same links, the other way.
  if (owner != rank) {
    add_use(uses, port_out_[static_cast<size_t>(rank)], 1);
    add_use(uses, port_in_[static_cast<size_t>(owner)], 1);
  }
  add_read(owner, owner, uses);
}

double Fabric::latency_s(int from, int to) const {
  if (from == to) return 0;
  return topology_.rank(from).host == topology_.rank(to).host
             ? topology_.host_of(from).inner_alpha_s
             : topology_.network_alpha_s();
}

int Fabric::rail_of(int from, int to) const {
  const Ends ends = ends_of(from, to);
  const Nic& out = nics_[static_cast<size_t>(ends.from_nic)];
  if (topology_.rails().empty() || crosses(out, nics_[static_cast<size_t>(ends.to_nic)])) return -1;
  return out.leaf;
}

std::pair<int, int> Fabric::nic_links(int host, int nic) const {
  const auto found = nic_at_.find({host, nic});
  if (found == nic_at_.end()) return {-1, -1};
  const Nic& at = nics_[static_cast<size_t>(found->second)];
  return {at.out, at.in};
}

}  // namespace railccl::simulator
