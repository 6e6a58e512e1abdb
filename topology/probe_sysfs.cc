// The sysfs probe: network interfaces as NICs, and where in the PCI tree a device sits.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "base/interfaces.h"
#include "topology/host_records.h"
#include "topology/probes.h"

namespace railccl::topology {

namespace {

/// "0000:17:00.0": domain (4 or more digits), bus, device, function.
bool is_pci_address(std::string_view text) {
  const size_t domain = text.find(':');
  if (domain == std::string_view::npos || domain < 4) return false;
  const std::string_view rest = text.substr(domain);
  constexpr std::string_view kForm = ":hh:hh.h";
  if (rest.size() != kForm.size()) return false;
  const auto hex = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  };
  for (size_t i = 0; i < rest.size(); i++)
    if (kForm[i] == 'h' ? !hex(rest[i]) : rest[i] != kForm[i]) return false;
  return std::all_of(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(domain), hex);
}

/// The interfaces the settings select as things are, and, beside them, those that are down but
/// have an address and would be selected if they were up: a pulled cable shows as a NIC that is
/// down, not as a NIC that never was.
Result<std::vector<Interface>> selected(const Settings& settings) {
  RAILCCL_TRY(const std::vector<Interface> all, all_interfaces());
  std::vector<Interface> raised = all;
  for (Interface& i : raised) i.up = true;
  const Result<std::vector<Interface>> now = select_interfaces(all, settings);
  const Result<std::vector<Interface>> could_be = select_interfaces(raised, settings);
  if (!could_be.is_ok()) {
    // No interface with an address at all: a host without network, which is fine for one host.
    if (could_be.status().code() == Code::system) return std::vector<Interface>();
    return could_be.status();
  }
  const auto among = [](const std::vector<Interface>& list, const std::string& name) {
    return std::any_of(list.begin(), list.end(),
                       [&](const Interface& i) { return i.name == name; });
  };
  std::vector<Interface> chosen;
  for (const Interface& i : all)
    if ((now.is_ok() && among(*now, i.name)) || (!i.up && among(*could_be, i.name)))
      chosen.push_back(i);
  return chosen;
}

}  // namespace

Status probe_interfaces(const Settings& settings, const NumaIndex& numas, Facts& facts) {
  RAILCCL_TRY(const std::vector<Interface> interfaces, selected(settings));
  for (const Interface& interface : interfaces) {
    if (facts.host.nics.size() == static_cast<size_t>(kPartsPerHostMax)) break;
    Nic nic;
    nic.name = interface.name;
    nic.bytes_per_s = interface.bytes_per_s;
    nic.up = interface.up;
    for (const InterfaceAddress& address : interface.addresses)
      if (nic.addresses.size() < static_cast<size_t>(kAddressesPerNicMax))
        nic.addresses.push_back(text_of(address));
    PciPlace place = pci_place(std::string(kSysfs) + "/class/net/" + nic.name + "/device", numas);
    nic.pci = std::move(place.address);
    nic.upstream = std::move(place.upstream);
    nic.numa = place.numa;
    facts.host.nics.push_back(std::move(nic));
  }
  return ok();
}

PciPlace pci_place(const std::string& path, const NumaIndex& numas) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(path, error);
  if (error) return {};
  // /sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/virtio3: the last address is the device's,
  // those before it are the bridges on the way.
  PciPlace place;
  std::filesystem::path walked, directory;
  for (const auto& part : real) {
    walked /= part;
    if (!is_pci_address(part.string())) continue;
    if (!place.address.empty())
      place.upstream += (place.upstream.empty() ? "" : "/") + place.address;
    place.address = part.string();
    directory = walked;
  }
  if (place.address.empty()) return place;
  const std::string text = read_line((directory / "numa_node").string());
  int node = -1;  // what the kernel writes when the firmware does not say
  std::from_chars(text.data(), text.data() + text.size(), node);
  const auto found = numas.find(node);
  if (found != numas.end())
    place.numa = found->second;
  else if (node < 0 && numas.size() == 1)
    place.numa = 0;  // there is nowhere else to be
  return place;
}

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\n' || line.back() == '\r'))
    line.pop_back();
  return line;
}

}  // namespace railccl::topology
