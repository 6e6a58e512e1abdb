// Limits, interfaces, settings; and where hosts differ that should not.
#include "doctor/host_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "base/interfaces.h"

namespace railccl::doctor {
namespace {

using Severity = Finding::Severity;

// A rank may have a socket to every other one, for each pair of NICs, and files of its own.
constexpr uint64_t kFilesOwn = 256;
constexpr uint64_t kFilesPerRank = 8;
// What a job with RDMA pins for its rings and registers of the caller's buffers.
constexpr uint64_t kLockedLeast = uint64_t{1} << 30;
constexpr uint64_t kShmUsual = uint64_t{64} << 20;

std::string mebibytes(uint64_t bytes) { return fmt::format("{} MiB", bytes >> 20); }

/// Subnets of an address list, without loopback and link-local ones.
std::set<std::string> subnets_of(const NicReport& nic) {
  std::set<std::string> subnets;
  for (const std::string& text : nic.addresses) {
    const auto address = parse_address(text);
    if (address.is_ok() && !is_loopback(address->address) && !is_link_local(address->address))
      subnets.insert(subnet_of(*address));
  }
  return subnets;
}

void check_limits(const HostReport& host, int ranks, Findings* found) {
  const uint64_t files = kFilesOwn + kFilesPerRank * static_cast<uint64_t>(ranks);
  if (host.files_soft < files)
    found->push_back({Severity::error, "open-files",
                      fmt::format("host {}: {} open files are too few", host.name, host.files_soft),
                      fmt::format("{} ranks may need {} in each process", ranks, files),
                      fmt::format("ulimit -n {} (the hard limit here is {}; more is given in "
                                  "/etc/security/limits.conf or the scheduler's settings)",
                                  std::max<uint64_t>(files, 65536), host.files_hard)});
  if (!host.rdma.empty() && host.locked_soft < kLockedLeast)
    found->push_back(
        {Severity::error, "memlock",
         fmt::format("host {}: only {} may be locked in memory", host.name,
                     mebibytes(host.locked_soft)),
         "RDMA registers memory, which locks it; registrations will fail",
         "ulimit -l unlimited for the job (LimitMEMLOCK=infinity for a service, --ulimit "
         "memlock=-1 for a container)"});
  if (host.shm_bytes > 0 && host.shm_bytes < kShmUsual)
    found->push_back(
        {Severity::warning, "dev-shm",
         fmt::format("host {}: /dev/shm has {} only", host.name, mebibytes(host.shm_bytes)),
         "railccl does not need it, but other libraries of a job do, data loaders "
         "among them",
         "mount it larger (--shm-size for a container)"});
  if (host.processes > host.cores)
    found->push_back(
        {Severity::warning, "few-cores",
         fmt::format("host {}: {} processes on {} cores", host.name, host.processes, host.cores),
         "ranks that share a core wait for each other",
         "start fewer, or let the launcher bind them less strictly (--bind-to none)"});
}

void check_nics(const HostReport& host, Findings* found) {
  if (!host.settings_error.empty())
    found->push_back({Severity::error, "setting",
                      fmt::format("host {}: a setting is malformed", host.name),
                      host.settings_error, "correct it: railccl-env lists all with their meaning"});
  if (!host.interfaces_error.empty())
    found->push_back(
        {Severity::error, "interface-choice",
         fmt::format("host {}: no network interface can be used", host.name), host.interfaces_error,
         "NCCL_SOCKET_IFNAME and NCCL_SOCKET_FAMILY choose them; ip address lists what "
         "there is"});
  std::map<std::string, std::vector<std::string>> by_subnet;
  for (const NicReport& nic : host.nics) {
    if (!nic.up && !subnets_of(nic).empty())
      found->push_back({Severity::error, "no-carrier",
                        fmt::format("host {}, {}: no carrier", host.name, nic.name),
                        "it has an address, but the link is down: " +
                            fmt::format("{}", fmt::join(nic.addresses, ", ")),
                        "look at cable, transceiver and switch port; ip link shows its state"});
    if (nic.usable)
      for (const std::string& subnet : subnets_of(nic)) by_subnet[subnet].push_back(nic.name);
  }
  for (const auto& [subnet, nics] : by_subnet)
    if (nics.size() > 1)
      found->push_back(
          {Severity::warning, "shared-subnet",
           fmt::format("host {}: {} are in one subnet", host.name, fmt::join(nics, ", ")),
           subnet + " does not tell which of them are joined by a leaf switch; hosts may "
                    "answer for each other's NICs",
           "give each rail a subnet of its own, or say RAILCCL_RAILS=name=rail,... and "
           "set net.ipv4.conf.all.arp_ignore=1 and arp_announce=2"});
  for (const RdmaReport& port : host.rdma)
    if (port.state != "ACTIVE")
      found->push_back(
          {Severity::warning, "rdma-port",
           fmt::format("host {}, {}: the port is {}", host.name, port.name, port.state),
           "only active ports carry anything",
           "look at cable and subnet manager; or leave it out: NCCL_IB_HCA=^name"});
}

// What "unhandled system error" mostly means on RoCE: packets bear an address that leads nowhere.
void check_gids(const HostReport& host, Findings* found) {
  const auto setting = host.settings.find("NCCL_IB_GID_INDEX");
  const int wanted = setting == host.settings.end() ? -1 : std::atoi(setting->second.c_str());
  for (const RdmaReport& port : host.rdma) {
    if (port.state != "ACTIVE" || !port.ethernet) continue;
    const std::string place = fmt::format("host {}, {}", host.name, port.name);
    const auto good = std::find_if(port.gids.begin(), port.gids.end(), [](const GidReport& gid) {
      return gid.type == "RoCE v2" && gid.of_subnet;
    });
    if (good == port.gids.end()) {
      found->push_back(
          {Severity::error, "rdma-no-address",
           place + ": the port has no address that leads to other hosts",
           "its table has no row of RoCE v2 made of an interface's address",
           "give the interface that belongs to it an address (ip address add), or leave "
           "it out: NCCL_IB_HCA=^name"});
      continue;
    }
    if (wanted < 0) continue;
    const auto row = std::find_if(port.gids.begin(), port.gids.end(),
                                  [&](const GidReport& gid) { return gid.index == wanted; });
    if (row != port.gids.end() && row->type == good->type && row->of_subnet) continue;
    found->push_back(
        {row == port.gids.end() ? Severity::error : Severity::warning, "gid-index",
         fmt::format("{}: NCCL_IB_GID_INDEX={} is {}", place, wanted,
                     row == port.gids.end() ? "an empty row"
                     : row->of_subnet       ? "a row of " + row->type
                                            : "a row of an address of the link alone"),
         fmt::format(
             "row {} is RoCE v2 with the interface's address; rows differ from host to host",
             good->index),
         "leave NCCL_IB_GID_INDEX out: the row is found by itself"});
  }
}

/// The values that most hosts have in common, and who has another.
template <typename Value>
std::map<Value, std::vector<std::string>> grouped(const std::map<std::string, Value>& by_host) {
  std::map<Value, std::vector<std::string>> groups;
  for (const auto& [host, value] : by_host) groups[value].push_back(host);
  return groups;
}

template <typename Value>
std::string groups_text(const std::map<Value, std::vector<std::string>>& groups) {
  std::string text;
  for (const auto& [value, hosts] : groups)
    text += fmt::format("{}{} on {}", text.empty() ? "" : "; ", value, fmt::join(hosts, ", "));
  return text;
}

void compare_settings(const std::vector<HostReport>& hosts, Findings* found) {
  // These may well differ: they name what is each host's own.
  static const std::set<std::string> own = {"NCCL_HOSTID", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA",
                                            "NCCL_DEBUG",  "NCCL_DEBUG_FILE",    "NCCL_TOPO_FILE"};
  std::set<std::string> names;
  for (const HostReport& host : hosts)
    for (const auto& [name, value] : host.settings)
      if (!own.contains(name)) names.insert(name);
  for (const std::string& name : names) {
    std::map<std::string, std::string> by_host;
    for (const HostReport& host : hosts) {
      const auto set = host.settings.find(name);
      by_host[host.name] =
          set == host.settings.end() ? "not set" : fmt::format("\"{}\"", set->second);
    }
    const auto groups = grouped(by_host);
    if (groups.size() > 1)
      found->push_back({Severity::error, "settings-differ",
                        fmt::format("{} differs between hosts", name), groups_text(groups),
                        "all ranks must choose alike: give it to all (mpirun -x NAME)"});
  }
}

/// NICs that belong together, by subnet.
std::map<std::string, std::map<std::string, const NicReport*>> rails_of(
    const std::vector<HostReport>& hosts) {
  std::map<std::string, std::map<std::string, const NicReport*>> rails;
  for (const HostReport& host : hosts)
    for (const NicReport& nic : host.nics)
      if (nic.usable)
        for (const std::string& subnet : subnets_of(nic)) rails[subnet][host.name] = &nic;
  return rails;
}

void compare_rails(const std::vector<HostReport>& hosts, Findings* found) {
  for (const auto& [subnet, nics] : rails_of(hosts)) {
    if (nics.size() < 2) continue;
    std::map<std::string, int> mtus;
    std::map<std::string, double> speeds;
    std::vector<std::string> missing;
    for (const HostReport& host : hosts) {
      const auto nic = nics.find(host.name);
      if (nic == nics.end()) {
        // One without a carrier has been told of already.
        const bool told =
            std::any_of(host.nics.begin(), host.nics.end(), [&rail = subnet](const auto& other) {
              return !other.up && subnets_of(other).contains(rail);
            });
        if (!told) missing.push_back(host.name);
        continue;
      }
      mtus[host.name] = nic->second->mtu;
      if (nic->second->bytes_per_s > 0) speeds[host.name] = nic->second->bytes_per_s * 8e-9;
    }
    if (const auto groups = grouped(mtus); groups.size() > 1)
      found->push_back(
          {Severity::error, "mtu-differs", fmt::format("{}: NICs have different MTUs", subnet),
           groups_text(groups),
           "set them alike (ip link set NAME mtu N): a switch drops what is too long for "
           "the receiver, without a word"});
    if (const auto groups = grouped(speeds); groups.size() > 1)
      found->push_back(
          {Severity::warning, "speed-differs",
           fmt::format("{}: NICs run at different speeds (Gbit/s)", subnet), groups_text(groups),
           "a cable or transceiver may have fallen back to a lower speed: ethtool NAME"});
    if (!missing.empty() && 2 * missing.size() <= hosts.size())
      found->push_back(
          {Severity::error, "rail-missing",
           fmt::format("{}: {} has no usable NIC there", subnet, fmt::join(missing, ", ")),
           fmt::format("{} other hosts have one", nics.size()),
           "is the NIC down, without an address, or left out by NCCL_SOCKET_IFNAME "
           "there?"});
  }
}

void compare_addresses(const std::vector<HostReport>& hosts, Findings* found) {
  std::map<std::string, std::set<std::string>> by_address;
  for (const HostReport& host : hosts) {
    for (const NicReport& nic : host.nics)
      for (const std::string& text : nic.addresses) {
        const auto address = parse_address(text);
        if (!nic.usable || !address.is_ok() || is_link_local(address->address)) continue;
        by_address[text_of(address->address)].insert(host.name + " (" + nic.name + ")");
      }
  }
  for (const auto& [address, places] : by_address)
    if (places.size() > 1)
      found->push_back(
          {Severity::error, "address-taken", fmt::format("{} belongs to several hosts", address),
           fmt::format("{}", fmt::join(places, ", ")),
           "give one of them another address; where it is a bridge for containers, leave "
           "it out: NCCL_SOCKET_IFNAME=^name"});
}

}  // namespace

Findings check_host(const HostReport& host, int ranks) {
  Findings found;
  check_limits(host, ranks, &found);
  check_nics(host, &found);
  check_gids(host, &found);
  return found;
}

Findings compare_hosts(const std::vector<HostReport>& hosts) {
  Findings found;
  std::map<std::string, std::string> versions;
  for (const HostReport& host : hosts) versions[host.name] = host.version;
  if (const auto groups = grouped(versions); groups.size() > 1)
    found.push_back({Severity::error, "version-differs", "hosts have different versions of railccl",
                     groups_text(groups),
                     "install the same on all: ranks must make the same plans"});
  compare_settings(hosts, &found);
  compare_rails(hosts, &found);
  compare_addresses(hosts, &found);
  return found;
}

}  // namespace railccl::doctor
