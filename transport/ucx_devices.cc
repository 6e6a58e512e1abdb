// Ports from sysfs, and rows.
#include "transport/ucx_devices.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "transport/verbs_choice.h"

namespace railccl::transport {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> entries(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error))
    names.push_back(entry.path().filename());
  return names;
}

std::string first_line(const fs::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

/// The interface of a port: its first GID's, or the only one of the device.
std::string interface_of(const fs::path& device, const fs::path& port) {
  std::string name = first_line(port / "gid_attrs/ndevs/0");
  if (!name.empty()) return name;
  const std::vector<std::string> all = entries(device / "device/net");
  return all.size() == 1 ? all.front() : std::string();
}

}  // namespace

std::vector<UcxPort> active_ports(const std::string& root) {
  const fs::path folder = root + "/sys/class/infiniband";
  std::vector<UcxPort> ports;
  for (const std::string& device : entries(folder)) {
    for (const std::string& number : entries(folder / device / "ports")) {
      const fs::path port = folder / device / "ports" / number;
      // "4: ACTIVE"
      if (!first_line(port / "state").starts_with("4")) continue;
      ports.push_back({device, std::atoi(number.c_str()), interface_of(folder / device, port)});
    }
  }
  std::sort(ports.begin(), ports.end(), [](const UcxPort& a, const UcxPort& b) {
    return std::tie(a.device, a.number) < std::tie(b.device, b.number);
  });
  return ports;
}

Result<std::vector<UcxDevices>> ucx_devices(const Settings& settings,
                                            const std::vector<std::string>& interfaces,
                                            const std::vector<UcxPort>& ports) {
  const std::string& asked = settings.ucx_net_devices;
  if (!asked.empty() && asked != "all")
    return std::vector<UcxDevices>{{asked.substr(0, asked.find_first_of(":,")), asked}};
  RAILCCL_TRY(const HcaFilter filter, HcaFilter::parse(settings.ib_hca));
  std::vector<UcxDevices> rows;
  for (const std::string& interface : interfaces)
    if (std::none_of(rows.begin(), rows.end(), [&](auto& row) { return row.nic == interface; }))
      rows.push_back({interface, interface});
  for (const UcxPort& port : ports) {
    if (settings.ib_disable || !filter.allows(port.device, port.number)) continue;
    const std::string name = fmt::format("{}:{}", port.device, port.number);
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const UcxDevices& one) {
      return !port.interface.empty() && one.nic == port.interface;
    });
    if (row != rows.end())
      row->names += "," + name;
    else
      rows.push_back({port.interface.empty() ? port.device : port.interface, name});
  }
  const auto slow = [](const UcxDevices& row) { return row.nic == row.names; };
  if (!std::all_of(rows.begin(), rows.end(), slow)) std::erase_if(rows, slow);
  return rows;
}

}  // namespace railccl::transport
