// The RDMA probe: devices under /sys/class/infiniband, their speed, state and GID prefixes.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <vector>

#include "base/interfaces.h"
#include "topology/host_records.h"
#include "topology/probes.h"

namespace railccl::topology {

namespace {

namespace fs = std::filesystem;

// A port's GID table may have 256 rows; the first few hold what the addresses made.
constexpr int kGidsRead = 16;

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename().string());
  std::sort(names.begin(), names.end());  // the kernel's order is not the same everywhere
  return names;
}

/// Bytes per second out of "400 Gb/sec (4X NDR)".
double parse_rate(const std::string& text) {
  double gbit = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), gbit);
  if (error != std::errc() || !std::string_view(end).starts_with(" Gb/sec")) return 0;
  return gbit * 1e9 / 8;
}

/// Network interfaces that a port's GIDs belong to; where the kernel does not say, those of its
/// device. A device in software (Soft-RoCE) has no other device below it.
std::vector<std::string> interfaces_of(const fs::path& device, const std::string& port) {
  const fs::path rows = device / "ports" / port / "gid_attrs" / "ndevs";
  std::vector<std::string> names;
  for (int i = 0; i < kGidsRead; i++) {
    const std::string name = read_line((rows / std::to_string(i)).string());
    if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end())
      names.push_back(name);
  }
  return names.empty() ? names_in(device / "device" / "net") : names;
}

struct Port {
  bool infiniband = false;
  bool active = false;
  double bytes_per_s = 0;
  std::vector<std::string> gids;  // as IPv6 text, empty rows left out
};

Port read_port(const fs::path& directory) {
  Port port;
  port.infiniband = read_line((directory / "link_layer").string()) == "InfiniBand";
  port.active = read_line((directory / "state").string()).find("ACTIVE") != std::string::npos;
  port.bytes_per_s = parse_rate(read_line((directory / "rate").string()));
  for (int i = 0; i < kGidsRead; i++) {
    const Result<InterfaceAddress> gid =
        parse_address(read_line((directory / "gids" / std::to_string(i)).string()));
    if (!gid.is_ok()) continue;
    const std::string text = text_of(gid->address);
    if (text != "::" && std::find(port.gids.begin(), port.gids.end(), text) == port.gids.end())
      port.gids.push_back(text);
  }
  return port;
}

/// Adds what decides the rail. On InfiniBand that is the subnet prefix, the upper half of the first
/// GID; RoCE GIDs made of an IPv4 address or a link-local one say nothing an address does not.
void add_neighbourhood(const Port& port, Nic& nic) {
  if (port.infiniband) {
    if (port.gids.empty()) return;
    InterfaceAddress gid = std::move(parse_address(port.gids.front() + "/64")).value();
    nic.neighbourhood = "ib subnet " + subnet_of(gid);
    return;
  }
  for (const std::string& text : port.gids) {
    const InterfaceAddress gid = std::move(parse_address(text)).value();
    if (is_link_local(gid.address) || text.find('.') != std::string::npos) continue;
    const std::string entry = "gid " + text + "/64";
    if (nic.addresses.size() < static_cast<size_t>(kAddressesPerNicMax))
      nic.addresses.push_back(entry);
  }
}

}  // namespace

Status probe_rdma(const std::string& sysfs, const NumaIndex& numas, Facts& facts) {
  const fs::path root = fs::path(sysfs) / "class" / "infiniband";
  for (const std::string& device : names_in(root)) {
    for (const std::string& number : names_in(root / device / "ports")) {
      if (facts.host.nics.size() == static_cast<size_t>(kPartsPerHostMax)) return ok();
      const Port port = read_port(root / device / "ports" / number);
      // A second port is a second wire; the first keeps the plain name, as all tools write it.
      const std::string name = number == "1" ? device : device + ":" + number;
      const std::vector<std::string> netdevs = interfaces_of(root / device, number);
      const auto same =
          std::find_if(facts.host.nics.begin(), facts.host.nics.end(), [&](const Nic& nic) {
            return nic.rdma.empty() &&
                   std::find(netdevs.begin(), netdevs.end(), nic.name) != netdevs.end();
          });
      // An interface that the settings keep away from is kept away from over RDMA, too.
      if (same == facts.host.nics.end() && !netdevs.empty()) continue;
      Nic fresh;
      fresh.name = name;
      fresh.up = port.active;
      Nic& nic = same != facts.host.nics.end() ? *same : fresh;
      nic.rdma = name;
      if (port.bytes_per_s > 0) nic.bytes_per_s = port.bytes_per_s;
      add_neighbourhood(port, nic);
      if (&nic != &fresh) continue;
      PciPlace place = pci_place((root / device / "device").string(), numas);
      fresh.pci = std::move(place.address);
      fresh.upstream = std::move(place.upstream);
      fresh.numa = place.numa;
      facts.host.nics.push_back(std::move(fresh));
    }
  }
  return ok();
}

}  // namespace railccl::topology
