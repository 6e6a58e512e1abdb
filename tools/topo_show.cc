// Tree, reasons and JSON of a topology.
#include "topo_show.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "topology/draw.h"
#include "topology/merge.h"
#include "topology/rails.h"

namespace railccl::tools {

namespace {

using topology::Gpu;
using topology::Host;
using topology::Nic;
using topology::Rank;
using topology::speed_text;
using topology::Topology;

struct Node {
  std::string text;
  std::vector<Node> children;
};

void print(const Node& node, const std::string& indent, std::string& out) {
  for (size_t i = 0; i < node.children.size(); i++) {
    const bool last = i + 1 == node.children.size();
    out += indent + (last ? "└─ " : "├─ ") + node.children[i].text + '\n';
    print(node.children[i], indent + (last ? "   " : "│  "), out);
  }
}

std::string plural(size_t count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string bytes_text(uint64_t bytes) {
  if (bytes >= uint64_t{1} << 30)
    return fmt::format("{:.4g} GiB", static_cast<double>(bytes) / 0x1p30);
  return fmt::format("{:.4g} MiB", static_cast<double>(bytes) / 0x1p20);
}

std::string list_text(const std::vector<int>& numbers) {
  std::string list;
  for (size_t i = 0; i < numbers.size(); i++) {
    size_t end = i;
    while (end + 1 < numbers.size() && numbers[end + 1] == numbers[end] + 1) end++;
    if (!list.empty()) list += ',';
    list += std::to_string(numbers[i]);
    if (end > i) list += '-' + std::to_string(numbers[end]);
    i = end;
  }
  return list;
}

std::string ranks_text(const std::vector<int>& ranks) {
  return (ranks.size() == 1 ? "rank " : "ranks ") + list_text(ranks);
}

std::string time_text(double seconds) {
  if (seconds < 1e-6) return fmt::format("{:.3g} ns", seconds * 1e9);
  return fmt::format("{:.3g} us", seconds * 1e6);
}

/// What was measured on the host, a line each.
Node speeds_node(const topology::Speeds& speeds) {
  Node node{"measured speeds", {}};
  for (const topology::SpeedRow& row : topology::kSpeedRows) {
    const double value = speeds.*row.member;
    node.children.push_back(
        {fmt::format(
             "{:<14} {:>11}  {}", row.key,
             row.unit == topology::SpeedUnit::seconds ? time_text(value) : speed_text(value),
             row.meaning),
         {}});
  }
  return node;
}

/// The ranks of host h that `wanted` picks.
template <typename Wanted>
std::vector<int> ranks_where(const Topology& topology, size_t h, Wanted wanted) {
  std::vector<int> ranks;
  for (const int r : topology.ranks_of_host(static_cast<int>(h)))
    if (wanted(topology.rank(r))) ranks.push_back(r);
  return ranks;
}

Node gpu_node(const Topology& topology, size_t h, size_t g) {
  const Gpu& gpu = topology.hosts()[h].gpus[g];
  std::string text = fmt::format("gpu {} {}", g, gpu.name);
  if (!gpu.pci.empty()) text += " at " + gpu.pci;
  const std::vector<int> ranks =
      ranks_where(topology, h, [&](const Rank& rank) { return rank.gpu == static_cast<int>(g); });
  if (!ranks.empty()) text += ": " + ranks_text(ranks);
  return {text, {}};
}

Node nic_node(const Topology& topology, size_t h, size_t n) {
  const Nic& nic = topology.hosts()[h].nics[n];
  std::string text = fmt::format("nic {}", nic.name);
  if (!nic.rdma.empty() && nic.rdma != nic.name) text += fmt::format(" ({})", nic.rdma);
  if (!nic.pci.empty()) text += " at " + nic.pci;
  text += fmt::format(", {}{}", speed_text(nic.bytes_per_s), nic.up ? "" : ", DOWN");
  for (const std::string& address : nic.addresses) text += ", " + address;
  text += nic.rail < 0 ? ", no rail" : fmt::format(", rail {}", nic.rail);
  const std::vector<int> ranks =
      ranks_where(topology, h, [&](const Rank& rank) { return rank.nic == static_cast<int>(n); });
  if (!ranks.empty()) text += ": used by " + ranks_text(ranks);
  return {text, {}};
}

/// By the last-level cache, where any is known that not all ranks of the host share.
std::map<int, std::vector<int>> by_cache(const Topology& topology, const std::vector<int>& ranks) {
  std::map<int, std::vector<int>> caches;
  for (const int r : ranks) {
    const bool several = topology.domains_of_host(topology.rank(r).host) > 1;
    caches[several ? topology.rank(r).cache : -1].push_back(r);
  }
  return caches;
}

/// What sits on NUMA node `numa` of host h (-1: what sits on none that is known).
std::vector<Node> parts_on(const Topology& topology, size_t h, int numa) {
  const Host& host = topology.hosts()[h];
  std::vector<Node> nodes;
  const std::vector<int> plain =
      ranks_where(topology, h, [&](const Rank& rank) { return rank.gpu < 0 && rank.numa == numa; });
  for (const auto& [cache, ranks] : by_cache(topology, plain))
    nodes.push_back({ranks_text(ranks) + " on host memory" +
                         (cache < 0 ? "" : fmt::format(", last-level cache of cpu {}", cache)),
                     {}});
  for (size_t g = 0; g < host.gpus.size(); g++)
    if (host.gpus[g].numa == numa) nodes.push_back(gpu_node(topology, h, g));
  for (size_t n = 0; n < host.nics.size(); n++)
    if (host.nics[n].numa == numa) nodes.push_back(nic_node(topology, h, n));
  return nodes;
}

Node host_node(const Topology& topology, size_t h) {
  const Host& host = topology.hosts()[h];
  Node node;
  node.text = fmt::format(
      "host {}: {}, {}, {} last-level cache, {} inside", host.name,
      plural(static_cast<size_t>(host.cores), "core"), plural(host.numas.size(), "NUMA node"),
      bytes_text(host.last_level_cache_bytes), speed_text(host.inner_bytes_per_s));
  const int domains = topology.domains_of_host(static_cast<int>(h));
  if (domains > 1) node.text += fmt::format(", ranks in {} domains", domains);
  if (host.speeds.known()) node.children.push_back(speeds_node(host.speeds));
  for (size_t i = 0; i < host.numas.size(); i++)
    node.children.push_back(
        {fmt::format("numa {}: {}{}", i, bytes_text(host.numas[i].memory_bytes),
                     host.numas[i].cpus.empty() ? "" : ", cpus " + host.numas[i].cpus),
         parts_on(topology, h, static_cast<int>(i))});
  for (Node& loose : parts_on(topology, h, -1)) node.children.push_back(std::move(loose));
  return node;
}

/// Equal apart from what must differ between two hosts of one kind.
bool same_build(const Topology& topology, size_t a, size_t b) {
  const auto plain = [](Host host) {
    host.name.clear();
    host.id = 0;
    for (Nic& nic : host.nics) nic.addresses.clear();
    return host;
  };
  return topology.ranks_of_host(static_cast<int>(a)).size() ==
             topology.ranks_of_host(static_cast<int>(b)).size() &&
         plain(topology.hosts()[a]) == plain(topology.hosts()[b]);
}

Node folded_node(const Topology& topology, size_t first, size_t last) {
  std::vector<int> ranks;
  for (size_t h = first; h <= last; h++)
    for (const int r : topology.ranks_of_host(static_cast<int>(h))) ranks.push_back(r);
  std::sort(ranks.begin(), ranks.end());
  std::string text = first == last ? fmt::format("host {}", topology.hosts()[first].name)
                                   : fmt::format("hosts {} to {}", topology.hosts()[first].name,
                                                 topology.hosts()[last].name);
  text += fmt::format(": built as {}", topology.hosts()[first - 1].name);
  if (!ranks.empty()) text += ", " + ranks_text(ranks);
  return {text, {}};
}

nlohmann::json json_of_host(const Host& host) {
  nlohmann::json numas = nlohmann::json::array(), gpus = numas, nics = numas;
  for (const topology::Numa& numa : host.numas)
    numas.push_back({{"memory_bytes", numa.memory_bytes}, {"cpus", numa.cpus}});
  for (const Gpu& gpu : host.gpus)
    gpus.push_back(
        {{"name", gpu.name}, {"pci", gpu.pci}, {"upstream", gpu.upstream}, {"numa", gpu.numa}});
  for (const Nic& nic : host.nics)
    nics.push_back({{"name", nic.name},
                    {"rdma", nic.rdma},
                    {"pci", nic.pci},
                    {"upstream", nic.upstream},
                    {"numa", nic.numa},
                    {"bytes_per_s", nic.bytes_per_s},
                    {"up", nic.up},
                    {"addresses", nic.addresses},
                    {"neighbourhood", nic.neighbourhood},
                    {"rail", nic.rail}});
  nlohmann::json speeds = nlohmann::json::object();
  if (host.speeds.known())
    for (const topology::SpeedRow& row : topology::kSpeedRows)
      speeds[row.name] = host.speeds.*row.member;
  return {{"name", host.name},
          {"id", fmt::format("{:#x}", host.id)},
          {"cores", host.cores},
          {"last_level_cache_bytes", host.last_level_cache_bytes},
          {"cores_per_cache", host.cores_per_cache},
          {"copy_bytes_per_s", host.copy_bytes_per_s},
          {"inner_bytes_per_s", host.inner_bytes_per_s},
          {"inner_alpha_s", host.inner_alpha_s},
          {"speeds", speeds},
          {"numas", numas},
          {"gpus", gpus},
          {"nics", nics}};
}

}  // namespace

std::string tree_of(const Topology& topology, bool all) {
  Node cluster;
  cluster.text =
      fmt::format("{}, {}, {}; network latency {:.4g} us, spine 1:{:g}",
                  plural(topology.hosts().size(), "host"), plural(topology.ranks().size(), "rank"),
                  plural(topology.rails().size(), "rail"), topology.network_alpha_s() * 1e6,
                  topology.oversubscription());
  const size_t hosts = topology.hosts().size();
  for (size_t h = 0; h < hosts; h++) {
    size_t last = h;
    if (!all && h > 0)
      while (last < hosts && same_build(topology, h - 1, last)) last++;
    if (last > h) {
      cluster.children.push_back(folded_node(topology, h, last - 1));
      h = last - 1;
    } else {
      cluster.children.push_back(host_node(topology, h));
    }
  }
  for (size_t r = 0; r < topology.rails().size(); r++)
    cluster.children.push_back(
        {fmt::format("rail {}: {}, {}", r, speed_text(topology.rails()[r].bytes_per_s),
                     topology.rails()[r].reason),
         {}});
  std::string out = cluster.text + '\n';
  print(cluster, "", out);
  return out;
}

std::string reasons_of(const Topology& topology) {
  std::string out;
  for (size_t r = 0; r < topology.rails().size(); r++)
    out += fmt::format("rail {}: {}\n", r, topology.rails()[r].reason);
  if (topology.rails().empty()) out += "no rails were formed\n";
  for (size_t h = 0; h < topology.hosts().size(); h++)
    for (size_t n = 0; n < topology.hosts()[h].nics.size(); n++)
      if (topology.hosts()[h].nics[n].rail < 0)
        out += fmt::format("{} of {} is on no rail: {}\n", topology.hosts()[h].nics[n].name,
                           topology.hosts()[h].name, topology::why_no_rail(topology.hosts(), h, n));
  for (int r = 0; r < topology.size(); r++)
    out += fmt::format("rank {} on {}: {}\n", r, topology.host_of(r).name,
                       topology::why_nic(topology, r));
  return out;
}

std::string json_of(const Topology& topology) {
  nlohmann::json hosts = nlohmann::json::array(), rails = hosts, ranks = hosts;
  for (const Host& host : topology.hosts()) hosts.push_back(json_of_host(host));
  for (const topology::Rail& rail : topology.rails())
    rails.push_back({{"reason", rail.reason}, {"bytes_per_s", rail.bytes_per_s}});
  for (int r = 0; r < topology.size(); r++) {
    const Rank& rank = topology.rank(r);
    ranks.push_back({{"host", rank.host},
                     {"local", rank.local},
                     {"process", fmt::format("{:#x}", rank.process)},
                     {"numa", rank.numa},
                     {"cache", rank.cache},
                     {"domain", rank.domain},
                     {"gpu", rank.gpu},
                     {"nic", rank.nic},
                     {"rail", rank.rail},
                     {"why", topology::why_nic(topology, r)}});
  }
  const nlohmann::json all = {{"network_alpha_s", topology.network_alpha_s()},
                              {"oversubscription", topology.oversubscription()},
                              {"rails", rails},
                              {"hosts", hosts},
                              {"ranks", ranks}};
  // Names come from machines and files: bytes that are not UTF-8 are replaced, not fatal.
  return all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

}  // namespace railccl::tools
