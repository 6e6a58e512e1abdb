// Forming rails from neighbourhoods, or as RAILCCL_RAILS says.
#include "topology/rails.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/interfaces.h"
#include "base/log.h"
#include "topology/host_records.h"

namespace railccl::topology {

namespace {

/// A NIC by place: index of its host, index among the host's NICs. Orders by both.
using Place = std::pair<size_t, size_t>;

Nic& at(std::vector<Host>& hosts, const Place& place) {
  return hosts[place.first].nics[place.second];
}

/// A neighbourhood with the NICs that name it.
struct Candidate {
  std::string name;
  int preference = 0;  // smallest position at which a NIC names it: 0 is what it likes best
  std::vector<Place> nics;
  size_t hosts = 0;  // how many the NICs are on

  void count_hosts() {
    std::set<size_t> distinct;
    for (const Place& place : nics) distinct.insert(place.first);
    hosts = distinct.size();
  }
};

std::string plural(size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

double slowest(std::vector<Host>& hosts, const std::vector<Place>& nics) {
  double speed = 0;
  for (const Place& place : nics) {
    const Nic& nic = at(hosts, place);
    if (nic.up && nic.bytes_per_s > 0)
      speed = speed > 0 ? std::min(speed, nic.bytes_per_s) : nic.bytes_per_s;
  }
  return speed;
}

/// "eth0 of 4 hosts", "eth0 of a and eth1 of b", "nic0, nic4 (72 NICs) of 8 hosts".
std::string members_text(std::vector<Host>& hosts, const std::vector<Place>& nics) {
  constexpr size_t kNamesShown = 4;
  std::set<size_t> where;
  std::vector<std::string> names;
  for (const Place& place : nics) {
    where.insert(place.first);
    const std::string& name = at(hosts, place).name;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), kNamesShown); i++)
    list += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kNamesShown) list += ", ...";
  if (nics.size() != where.size()) list += fmt::format(" ({})", plural(nics.size(), "NIC"));
  return fmt::format("{} of {}", list, plural(where.size(), "host"));
}

/// Addresses (without prefix length) that NICs of more than one host have.
std::set<std::string> repeated_addresses(const std::vector<Host>& hosts) {
  std::map<std::string, size_t> first_host;
  std::set<std::string> repeated;
  for (size_t h = 0; h < hosts.size(); h++)
    for (const Nic& nic : hosts[h].nics)
      for (const std::string& address : nic.addresses) {
        const auto [seen, fresh] = first_host.emplace(address.substr(0, address.find('/')), h);
        if (!fresh && seen->second != h) repeated.insert(seen->first);
      }
  return repeated;
}

bool has_repeated(const Nic& nic, const std::set<std::string>& repeated) {
  return std::any_of(nic.addresses.begin(), nic.addresses.end(), [&](const std::string& address) {
    return repeated.count(address.substr(0, address.find('/'))) > 0;
  });
}

std::vector<Candidate> candidates_of(const std::vector<Host>& hosts) {
  const std::set<std::string> repeated = repeated_addresses(hosts);
  std::map<std::string, Candidate> by_name;
  for (size_t h = 0; h < hosts.size(); h++) {
    for (size_t n = 0; n < hosts[h].nics.size(); n++) {
      const Nic& nic = hosts[h].nics[n];
      if (nic.neighbourhood.empty() && has_repeated(nic, repeated)) continue;
      const std::vector<std::string> names = neighbourhoods_of(nic);
      for (size_t i = 0; i < names.size(); i++) {
        Candidate& candidate = by_name[names[i]];
        const int preference = static_cast<int>(i);
        candidate.preference =
            candidate.nics.empty() ? preference : std::min(candidate.preference, preference);
        candidate.name = names[i];
        candidate.nics.push_back({h, n});
      }
    }
  }
  std::vector<Candidate> candidates;
  for (auto& [name, candidate] : by_name) {
    candidate.count_hosts();
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

/// One rail before it has a number.
struct RailDraft {
  std::vector<Place> nics;
  std::string reason;
};

/// Takes candidates with the most hosts first, so that a NIC with several addresses goes where it
/// meets the most others; each NIC joins one rail only.
std::vector<RailDraft> detected(std::vector<Host>& hosts) {
  std::vector<Candidate> candidates = candidates_of(hosts);
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) {
                     return std::tuple(b.hosts, a.preference, a.nics.front()) <
                            std::tuple(a.hosts, b.preference, b.nics.front());
                   });
  std::set<Place> taken;
  std::vector<RailDraft> drafts;
  for (Candidate& candidate : candidates) {
    std::erase_if(candidate.nics, [&](const Place& place) { return taken.count(place) > 0; });
    candidate.count_hosts();
    if (candidate.hosts < 2) continue;
    taken.insert(candidate.nics.begin(), candidate.nics.end());
    for (const Place& place : candidate.nics) at(hosts, place).neighbourhood = candidate.name;
    std::string reason =
        fmt::format("{} joins {}", candidate.name, members_text(hosts, candidate.nics));
    drafts.push_back({std::move(candidate.nics), std::move(reason)});
  }
  return drafts;
}

/// Hosts of which RAILCCL_RAILS says nothing: it was not set there, or for other names.
std::vector<size_t> hosts_without_hand(const std::vector<Host>& hosts) {
  std::vector<size_t> without;
  for (size_t h = 0; h < hosts.size(); h++)
    if (std::none_of(hosts[h].nics.begin(), hosts[h].nics.end(),
                     [](const Nic& nic) { return nic.rail >= 0; }))
      without.push_back(h);
  return without;
}

bool on_host(const std::vector<Place>& nics, size_t host) {
  return std::any_of(nics.begin(), nics.end(),
                     [&](const Place& place) { return place.first == host; });
}

/// Does `nic` share a neighbourhood with one of `nics`?
bool neighbours(std::vector<Host>& hosts, const std::vector<Place>& nics, const Nic& nic) {
  const std::vector<std::string> mine = neighbourhoods_of(nic);
  return std::any_of(nics.begin(), nics.end(), [&](const Place& place) {
    const std::vector<std::string> theirs = neighbourhoods_of(at(hosts, place));
    return std::any_of(theirs.begin(), theirs.end(), [&](const std::string& name) {
      return std::find(mine.begin(), mine.end(), name) != mine.end();
    });
  });
}

std::vector<RailDraft> by_hand(std::vector<Host>& hosts) {
  std::map<int, RailDraft> numbered;
  for (size_t h = 0; h < hosts.size(); h++)
    for (size_t n = 0; n < hosts[h].nics.size(); n++)
      if (hosts[h].nics[n].rail >= 0) numbered[hosts[h].nics[n].rail].nics.push_back({h, n});
  const std::vector<size_t> silent = hosts_without_hand(hosts);
  std::map<int, std::vector<Place>> joined;
  for (const size_t h : silent)
    for (size_t n = 0; n < hosts[h].nics.size(); n++)
      for (const auto& [number, draft] : numbered)
        if (!on_host(joined[number], h) && neighbours(hosts, draft.nics, hosts[h].nics[n])) {
          joined[number].push_back({h, n});
          break;
        }
  std::vector<RailDraft> drafts;
  for (auto& [number, draft] : numbered) {
    draft.reason =
        fmt::format("RAILCCL_RAILS puts {} on rail {}", members_text(hosts, draft.nics), number);
    const std::vector<Place>& more = joined[number];
    if (!more.empty())
      draft.reason += fmt::format("; by their network also {}", members_text(hosts, more));
    draft.nics.insert(draft.nics.end(), more.begin(), more.end());
    std::sort(draft.nics.begin(), draft.nics.end());
    drafts.push_back(std::move(draft));
  }
  return drafts;
}

}  // namespace

std::vector<std::string> neighbourhoods_of(const Nic& nic) {
  if (!nic.neighbourhood.empty()) return {nic.neighbourhood};
  std::vector<std::string> names;
  for (const std::string& address : nic.addresses) {
    const bool gid = address.starts_with("gid ");
    const Result<InterfaceAddress> parsed = parse_address(gid ? address.substr(4) : address);
    if (!parsed.is_ok() || is_loopback(parsed->address) || is_link_local(parsed->address)) continue;
    // A host route (/32, /128) names this host alone.
    if (parsed->prefix_bits == (parsed->address.ss_family == AF_INET ? 32 : 128)) continue;
    std::string name = (gid ? "gid prefix " : "subnet ") + subnet_of(*parsed);
    if (std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(std::move(name));
  }
  return names;
}

std::vector<Rail> form_rails(std::vector<Host>& hosts) {
  const bool manual = std::any_of(hosts.begin(), hosts.end(), [](const Host& host) {
    return std::any_of(host.nics.begin(), host.nics.end(),
                       [](const Nic& nic) { return nic.rail >= 0; });
  });
  std::vector<RailDraft> drafts = manual ? by_hand(hosts) : detected(hosts);
  if (!manual)
    std::sort(drafts.begin(), drafts.end(), [](const RailDraft& a, const RailDraft& b) {
      return a.nics.front() < b.nics.front();
    });
  for (Host& host : hosts)
    for (Nic& nic : host.nics) nic.rail = -1;
  std::vector<Rail> rails;
  for (RailDraft& draft : drafts) {
    if (rails.size() == static_cast<size_t>(kRailsMax)) break;
    for (const Place& place : draft.nics) at(hosts, place).rail = static_cast<int>(rails.size());
    rails.push_back({std::move(draft.reason), slowest(hosts, draft.nics)});
  }
  return rails;
}

Status set_rails_by_hand(const std::string& setting, Host& host) {
  std::string_view rest = setting;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(item.size() + 1, rest.size()));
    const size_t equals = item.find('=');
    int rail = -1;
    if (equals != std::string_view::npos) {
      const std::string_view number = item.substr(equals + 1);
      const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), rail);
      if (error != std::errc() || end != number.data() + number.size()) rail = -1;
    }
    if (equals == 0 || rail < 0 || rail >= kRailsMax)
      return Status(Code::invalid_argument,
                    "RAILCCL_RAILS=\"{}\": \"{}\" is not interface=rail with a rail from 0 to {}",
                    setting, item, kRailsMax - 1);
    const std::string_view name = item.substr(0, equals);
    bool known = false;
    for (Nic& nic : host.nics)
      if (nic.name == name || nic.rdma == name) {
        nic.rail = rail;
        known = true;
      }
    if (!known) log::info("RAILCCL_RAILS names {}, which {} does not have or use", name, host.name);
  }
  return ok();
}

std::string why_no_rail(const std::vector<Host>& hosts, size_t host, size_t nic) {
  const Nic& me = hosts[host].nics[nic];
  if (me.neighbourhood.empty() && has_repeated(me, repeated_addresses(hosts)))
    return "another host has the same address, as container bridges do";
  const std::vector<std::string> names = neighbourhoods_of(me);
  if (names.empty())
    return me.addresses.empty() ? "it has no address and no known leaf switch"
                                : "its addresses are loopback, link-local or host routes";
  if (hosts.size() < 2) return "there is one host only";
  for (size_t h = 0; h < hosts.size(); h++) {
    if (h == host) continue;
    for (const Nic& other : hosts[h].nics)
      for (const std::string& name : neighbourhoods_of(other))
        if (std::find(names.begin(), names.end(), name) != names.end())
          return "RAILCCL_RAILS leaves it out, though others share " + name;
  }
  return fmt::format("no NIC of another host is in {}", names.front());
}

}  // namespace railccl::topology
