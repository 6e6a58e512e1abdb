// Discover: what is to be measured, and rails out of leaves.
#include "topology/discover.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "base/interfaces.h"
#include "topology/leaves.h"
#include "topology/rails.h"

namespace railccl::topology {

namespace {

// Hosts of so many NICs are compared with two others, for the price of as many rounds more.
constexpr size_t kTwiceUpTo = 4;

/// Sets rails of one NIC per host: of each leaf as many as it has NICs of one host, and leaves that
/// no host shares put together, since their hosts have no better way to each other.
void form(const std::map<size_t, std::vector<NicAt>>& leaves, Discovery* found) {
  struct Part {
    std::vector<NicAt> nics;
    int leaf = 0;
    std::set<int> hosts;
  };
  std::vector<Part> parts;
  for (const auto& [leaf, nics] : leaves) {
    std::map<int, size_t> next;  // of each host
    const size_t first = parts.size();
    for (const NicAt& at : nics) {
      const size_t part = first + next[at.host]++;
      if (part == parts.size()) parts.push_back({{}, static_cast<int>(leaf), {}});
      parts[part].nics.push_back(at);
    }
  }
  std::stable_sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) {
    return a.nics.size() != b.nics.size() ? a.nics.size() > b.nics.size()
                                          : a.nics.front() < b.nics.front();
  });
  std::vector<Part> rails;
  for (const Part& part : parts) {
    auto rail = std::find_if(rails.begin(), rails.end(), [&](const Part& candidate) {
      return std::none_of(part.nics.begin(), part.nics.end(),
                          [&](const NicAt& at) { return candidate.hosts.count(at.host) > 0; });
    });
    if (rail == rails.end()) rail = rails.insert(rail, {{}, part.leaf, {}});
    rail->nics.insert(rail->nics.end(), part.nics.begin(), part.nics.end());
    for (const NicAt& at : part.nics) rail->hosts.insert(at.host);
  }
  for (Part& rail : rails) std::sort(rail.nics.begin(), rail.nics.end());
  std::sort(rails.begin(), rails.end(),
            [](const Part& a, const Part& b) { return a.nics.front() < b.nics.front(); });
  std::map<int, int> leaf_numbers;
  for (Part& rail : rails) {
    const int next = static_cast<int>(leaf_numbers.size());
    found->leaves.push_back(leaf_numbers.emplace(rail.leaf, next).first->second);
    found->rails.push_back(std::move(rail.nics));
  }
}

/// Hosts with NICs to measure, in order.
std::vector<int> hosts_of(const FlatNetwork& network) {
  std::vector<int> hosts;
  for (size_t h = 0; h < network.hosts.size(); h++)
    if (std::any_of(network.hosts[h].begin(), network.hosts[h].end(),
                    [](const FlatNetwork::Port& port) { return port.up; }))
      hosts.push_back(static_cast<int>(h));
  return hosts;
}

std::vector<NicAt> nics_up(const FlatNetwork& network, int host) {
  std::vector<NicAt> nics;
  for (const FlatNetwork::Port& port : network.hosts[static_cast<size_t>(host)])
    if (port.up) nics.push_back({host, port.nic});
  return nics;
}

/// From each NIC of each rail to the next host's NIC of the rail that `partner` names for it.
std::vector<Flow> flows_between(const FlatNetwork& network, const Discovery& found,
                                const std::vector<size_t>& partner) {
  const std::vector<int> hosts = hosts_of(network);
  std::map<std::pair<int, size_t>, NicAt> at;  // by host and rail
  std::set<NicAt> up;
  for (const int host : hosts)
    for (const NicAt& nic : nics_up(network, host)) up.insert(nic);
  for (size_t r = 0; r < found.rails.size(); r++)
    for (const NicAt& nic : found.rails[r])
      if (up.count(nic) > 0) at[{nic.host, r}] = nic;
  std::vector<Flow> flows;
  for (size_t h = 0; h < hosts.size(); h++)
    for (size_t r = 0; r < partner.size(); r++) {
      const auto from = at.find({hosts[h], r});
      const auto to = at.find({hosts[(h + 1) % hosts.size()], partner[r]});
      if (from != at.end() && to != at.end()) flows.push_back({from->second, to->second});
    }
  return flows;
}

bool measured(double value) { return value > 0 && std::isfinite(value); }

/// What was measured inside leaves and between them: [0] between, [1] inside.
struct Figures {
  std::vector<double> bytes_per_s[2];
  std::vector<double> seconds[2];
};

Figures figures_of(const std::vector<Sample>& samples, const Discovery& found) {
  std::map<NicAt, int> leaf_of;
  for (size_t r = 0; r < found.rails.size(); r++)
    for (const NicAt& at : found.rails[r]) leaf_of[at] = found.leaves[r];
  Figures figures;
  for (const Sample& sample : samples) {
    const auto from = leaf_of.find(sample.from), to = leaf_of.find(sample.to);
    if (from == leaf_of.end() || to == leaf_of.end()) continue;
    const bool inside = from->second == to->second;
    if (measured(sample.bytes_per_s)) figures.bytes_per_s[inside].push_back(sample.bytes_per_s);
    if (measured(sample.round_trip_s)) figures.seconds[inside].push_back(sample.round_trip_s);
  }
  return figures;
}

/// "24 MB/s and 0.04 ms"; empty when nothing was measured.
std::string figures_text(double bytes_per_s, double seconds) {
  std::string text;
  if (bytes_per_s > 0) text = fmt::format("{:.3g} MB/s", bytes_per_s / 1e6);
  if (seconds > 0) text += fmt::format("{}{:.2g} ms", text.empty() ? "" : " and ", seconds * 1e3);
  return text;
}

}  // namespace

size_t FlatNetwork::ports_max() const {
  size_t most = 0;
  for (const std::vector<Port>& ports : hosts)
    most =
        std::max(most, static_cast<size_t>(std::count_if(
                           ports.begin(), ports.end(), [](const Port& port) { return port.up; })));
  return most;
}

std::optional<FlatNetwork> flat_network(const std::vector<Host>& hosts) {
  std::vector<Host> formed = hosts;
  for (const Host& host : hosts)
    for (const Nic& nic : host.nics)
      if (nic.rail >= 0) return std::nullopt;
  const size_t rails = form_rails(formed).size();
  std::optional<FlatNetwork> best;
  size_t best_ports = 0;
  for (size_t r = 0; r < rails; r++) {
    FlatNetwork network;
    network.hosts.resize(hosts.size());
    size_t ports = 0, used_hosts = 0;
    for (size_t h = 0; h < hosts.size(); h++) {
      for (size_t n = 0; n < formed[h].nics.size(); n++) {
        const Nic& nic = formed[h].nics[n];
        if (nic.rail != static_cast<int>(r)) continue;
        network.name = nic.neighbourhood;
        const auto usable = [](const std::string& text) {
          const Result<InterfaceAddress> address = parse_address(text);
          return address.is_ok() && !is_loopback(address->address) &&
                 !is_link_local(address->address);
        };
        // Where the neighbourhood is a subnet, the address that is in it; else any.
        std::string chosen;
        for (const std::string& text : nic.addresses) {
          if (!usable(text)) continue;
          const bool inside = "subnet " + subnet_of(*parse_address(text)) == network.name;
          if (inside || (chosen.empty() && !network.name.starts_with("subnet "))) chosen = text;
        }
        if (!chosen.empty())
          network.hosts[h].push_back({static_cast<int>(n), nic.up, std::move(chosen)});
      }
      ports += network.hosts[h].size();
      used_hosts += network.hosts[h].empty() ? 0 : 1;
    }
    if (used_hosts < 2 || network.ports_max() < 2 || ports <= best_ports) continue;
    best_ports = ports;
    best = std::move(network);
  }
  return best;
}

Discovery discover(const FlatNetwork& network, const std::vector<Sample>& samples) {
  std::map<NicAt, size_t> numbers;
  std::vector<NicAt> nics;
  for (size_t h = 0; h < network.hosts.size(); h++)
    for (const FlatNetwork::Port& port : network.hosts[h]) {
      nics.push_back({static_cast<int>(h), port.nic});
      numbers[nics.back()] = nics.size() - 1;
    }
  std::vector<int> hosts_of_nics;
  for (const NicAt& at : nics) hosts_of_nics.push_back(at.host);
  std::vector<NicPair> speeds, latencies;
  for (const Sample& sample : samples) {
    const auto from = numbers.find(sample.from), to = numbers.find(sample.to);
    if (from == numbers.end() || to == numbers.end() || sample.from.host == sample.to.host)
      continue;
    // A connection that failed says nothing: on a busy host any may come too late.
    if (measured(sample.bytes_per_s))
      speeds.push_back({from->second, to->second, sample.bytes_per_s});
    if (measured(sample.round_trip_s))
      latencies.push_back({from->second, to->second, 1 / sample.round_trip_s});
  }
  Discovery found;
  found.by = FoundBy::bandwidth;
  std::optional<LeafOf> leaf = leaves_of(hosts_of_nics, std::move(speeds), true);
  if (!leaf) {
    leaf = leaves_of(hosts_of_nics, std::move(latencies), false);
    found.by = leaf ? FoundBy::latency : FoundBy::order;
  }
  std::map<size_t, std::vector<NicAt>> leaves;
  for (size_t n = 0; n < nics.size(); n++) leaves[leaf ? (*leaf)[n] : n].push_back(nics[n]);
  form(leaves, &found);
  const Figures figures = figures_of(samples, found);
  found.inside_bytes_per_s = median(figures.bytes_per_s[1]);
  found.across_bytes_per_s = median(figures.bytes_per_s[0]);
  found.inside_s = median(figures.seconds[1]);
  found.across_s = median(figures.seconds[0]);
  return found;
}

std::vector<std::vector<Flow>> probe_rounds(const FlatNetwork& network) {
  const std::vector<int> hosts = hosts_of(network);
  const size_t ports = network.ports_max();
  const size_t hops = hosts.size() > 2 && ports <= kTwiceUpTo ? 2 : 1;
  std::vector<std::vector<Flow>> rounds(ports * hops);
  for (size_t round = 0; round < rounds.size(); round++)
    for (size_t h = 0; h < hosts.size(); h++) {
      const std::vector<NicAt> from = nics_up(network, hosts[h]);
      const std::vector<NicAt> to = nics_up(network, hosts[(h + 1 + round / ports) % hosts.size()]);
      for (size_t i = 0; i < from.size(); i++)
        if (const size_t j = (i + round) % ports; j < to.size())
          rounds[round].push_back({from[i], to[j]});
    }
  return rounds;
}

std::vector<Flow> flows_inside(const FlatNetwork& network, const Discovery& found) {
  std::vector<size_t> same(found.rails.size());
  std::iota(same.begin(), same.end(), size_t{0});
  return flows_between(network, found, same);
}

std::vector<Flow> flows_across(const FlatNetwork& network, const Discovery& found) {
  // Rails by leaf, shifted by as many as one leaf has: nobody stays on its own, where that can be.
  std::vector<size_t> order(found.rails.size()), partner(found.rails.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return found.leaves[a] < found.leaves[b]; });
  std::ptrdiff_t shift = 1;
  for (const int leaf : found.leaves)
    shift = std::max(shift, std::count(found.leaves.begin(), found.leaves.end(), leaf));
  for (size_t k = 0; k < order.size(); k++)
    partner[order[k]] = order[(k + static_cast<size_t>(shift)) % order.size()];
  return flows_between(network, found, partner);
}

bool confirm(const std::vector<Sample>& samples, Discovery* found) {
  const Figures figures = figures_of(samples, *found);
  const double inside = median(figures.bytes_per_s[1]), across = median(figures.bytes_per_s[0]);
  // Medians of values that scatter may differ by chance; the bulk of both does not.
  const bool differ =
      inside > 0 && across > 0 && inside >= kGap * across &&
      quantile(figures.bytes_per_s[1], 0.25) > quantile(figures.bytes_per_s[0], 0.75);
  if (!differ && found->by == FoundBy::bandwidth) return false;
  found->inside_bytes_per_s = inside;
  found->across_bytes_per_s = across;
  // To a tenth: more is not known, and the figure is shown to people.
  if (differ) found->oversubscription = std::round(10 * inside / across) / 10;
  return true;
}

void mark_rails(const Discovery& found, const std::vector<Host*>& hosts) {
  const std::string inside = figures_text(found.inside_bytes_per_s, found.inside_s);
  const std::string across = figures_text(found.across_bytes_per_s, found.across_s);
  for (size_t r = 0; r < found.rails.size(); r++) {
    const std::string name =
        found.by == FoundBy::order
            ? fmt::format("order {} of NICs that a probe found alike{}", r,
                          inside.empty() ? "" : " (" + inside + ")")
            : fmt::format("probed rail {} ({} inside, {} to others)", r, inside, across);
    for (const NicAt& at : found.rails[r]) {
      if (at.host < 0 || static_cast<size_t>(at.host) >= hosts.size()) continue;
      std::vector<Nic>& nics = hosts[static_cast<size_t>(at.host)]->nics;
      if (at.nic >= 0 && static_cast<size_t>(at.nic) < nics.size())
        nics[static_cast<size_t>(at.nic)].neighbourhood = name;
    }
  }
}

std::string text_of(const Discovery& found) {
  const std::string inside = figures_text(found.inside_bytes_per_s, found.inside_s);
  const std::string across = figures_text(found.across_bytes_per_s, found.across_s);
  switch (found.by) {
    case FoundBy::bandwidth:
    case FoundBy::latency:
      return fmt::format("{} rails, told by {}: {} inside, {} to others; spine 1:{:g}",
                         found.rails.size(),
                         found.by == FoundBy::bandwidth ? "bandwidth" : "latency", inside, across,
                         found.oversubscription);
    case FoundBy::order:
      break;
  }
  return fmt::format("all pairs of NICs are alike ({}): {} rails by order of NICs",
                     inside.empty() ? "none could be measured" : inside, found.rails.size());
}

}  // namespace railccl::topology
