// Gathering a host's report, and its JSON.
#include "doctor/host_report.h"

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/host_id.h"
#include "base/interfaces.h"
#include "base/owners.h"
#include "transport/verbs_choice.h"

extern char** environ;

namespace railccl::doctor {
namespace {

using nlohmann::json;

/// What the network namespace says of an interface: /sys may show another one's.
void ask_kernel(NicReport* nic) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, nic->name.c_str(), IFNAMSIZ - 1);
  if (ioctl(socket.get(), SIOCGIFMTU, &request) == 0) nic->mtu = request.ifr_mtu;
  if (ioctl(socket.get(), SIOCGIFHWADDR, &request) != 0) return;
  for (int i = 0; i < 6; i++)
    nic->hardware_address += fmt::format("{}{:02x}", i > 0 ? ":" : "",
                                         static_cast<uint8_t>(request.ifr_hwaddr.sa_data[i]));
}

void add_nics(const Settings& settings, HostReport* report) {
  const auto all = all_interfaces();
  if (!all.is_ok()) {
    report->interfaces_error = all.status().text();
    return;
  }
  const auto usable = usable_interfaces(settings);
  if (!usable.is_ok()) report->interfaces_error = usable.status().text();
  for (const Interface& interface : *all) {
    if (interface.loopback) continue;
    NicReport nic;
    nic.name = interface.name;
    nic.bytes_per_s = interface.bytes_per_s;
    nic.up = interface.up;
    for (const InterfaceAddress& address : interface.addresses)
      nic.addresses.push_back(text_of(address));
    ask_kernel(&nic);
    nic.usable =
        usable.is_ok() && std::any_of(usable->begin(), usable->end(),
                                      [&](const auto& one) { return one.name == nic.name; });
    report->nics.push_back(std::move(nic));
  }
}

std::string first_line(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

/// The rows that are in use; tables are long, and what addresses made is at the front.
std::vector<GidReport> gids_of(const std::filesystem::path& port) {
  constexpr int kRead = 64;
  std::vector<GidReport> rows;
  for (int index = 0; index < kRead; index++) {
    const std::string gid = first_line(port / "gids" / std::to_string(index));
    const std::string type = first_line(port / "gid_attrs/types" / std::to_string(index));
    const bool empty = gid.find_first_not_of("0:") == std::string::npos;
    if (!empty && !type.empty()) rows.push_back({index, type, !gid.starts_with("fe80:")});
  }
  return rows;
}

void add_rdma(const Settings& settings, HostReport* report) {
  if (settings.ib_disable) return;
  const auto filter = transport::HcaFilter::parse(settings.ib_hca);
  std::error_code error;
  for (const auto& device : std::filesystem::directory_iterator("/sys/class/infiniband", error)) {
    for (const auto& port : std::filesystem::directory_iterator(device.path() / "ports", error)) {
      const std::string name = device.path().filename(), number = port.path().filename();
      if (filter.is_ok() && !filter->allows(name, std::atoi(number.c_str()))) continue;
      const std::string state = first_line(port.path() / "state");  // "4: ACTIVE"
      const size_t colon = state.find(": ");
      report->rdma.push_back(
          {name + "/" + number, colon == std::string::npos ? state : state.substr(colon + 2),
           first_line(port.path() / "link_layer") == "Ethernet", gids_of(port.path())});
    }
  }
}

}  // namespace

HostReport look_at_host(const std::string& version) {
  HostReport report;
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  report.name = name;
  report.version = version;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    report.files_soft = limit.rlim_cur;
    report.files_hard = limit.rlim_max;
  }
  if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0) report.locked_soft = limit.rlim_cur;
  struct statvfs shm {};
  if (statvfs("/dev/shm", &shm) == 0) report.shm_bytes = uint64_t{shm.f_blocks} * shm.f_frsize;
  cpu_set_t cores;
  if (sched_getaffinity(0, sizeof cores, &cores) == 0) report.cores = CPU_COUNT(&cores);
  for (char** entry = environ; *entry != nullptr; entry++) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (equals != text.npos && (text.starts_with("NCCL_") || text.starts_with("RAILCCL_")))
      report.settings[std::string(text.substr(0, equals))] = text.substr(equals + 1);
  }
  const auto settings = Settings::load();
  if (!settings.is_ok()) report.settings_error = settings.status().text();
  const Settings used = settings.is_ok() ? *settings : Settings();
  report.id = host_id(used);
  add_nics(used, &report);
  add_rdma(used, &report);
  return report;
}

std::string encode(const HostReport& report) {
  json nics = json::array(), rdma = json::array();
  for (const NicReport& nic : report.nics)
    nics.push_back({{"name", nic.name},
                    {"addresses", nic.addresses},
                    {"hardware", nic.hardware_address},
                    {"mtu", nic.mtu},
                    {"bytes_per_s", nic.bytes_per_s},
                    {"up", nic.up},
                    {"usable", nic.usable}});
  for (const RdmaReport& port : report.rdma) {
    json gids = json::array();
    for (const GidReport& gid : port.gids)
      gids.push_back({{"index", gid.index}, {"type", gid.type}, {"of_subnet", gid.of_subnet}});
    rdma.push_back(
        {{"name", port.name}, {"state", port.state}, {"ethernet", port.ethernet}, {"gids", gids}});
  }
  return json{{"name", report.name},
              {"id", report.id},
              {"version", report.version},
              {"processes", report.processes},
              {"cores", report.cores},
              {"files_soft", report.files_soft},
              {"files_hard", report.files_hard},
              {"locked_soft", report.locked_soft},
              {"shm_bytes", report.shm_bytes},
              {"settings_error", report.settings_error},
              {"interfaces_error", report.interfaces_error},
              {"settings", report.settings},
              {"nics", nics},
              {"rdma", rdma},
              {"tcp", report.tcp}}
      .dump(-1, ' ', true, json::error_handler_t::replace);
}

Result<HostReport> decode_host_report(std::string_view text) try {
  const json from = json::parse(text);
  HostReport report;
  report.name = from.at("name");
  report.id = from.at("id");
  report.version = from.at("version");
  report.processes = from.at("processes");
  report.cores = from.at("cores");
  report.files_soft = from.at("files_soft");
  report.files_hard = from.at("files_hard");
  report.locked_soft = from.at("locked_soft");
  report.shm_bytes = from.at("shm_bytes");
  report.settings_error = from.at("settings_error");
  report.interfaces_error = from.at("interfaces_error");
  report.settings = from.at("settings").get<std::map<std::string, std::string>>();
  for (const json& nic : from.at("nics"))
    report.nics.push_back({nic.at("name"), nic.at("addresses"), nic.at("hardware"), nic.at("mtu"),
                           nic.at("bytes_per_s"), nic.at("up"), nic.at("usable")});
  for (const json& port : from.at("rdma")) {
    RdmaReport one{port.at("name"), port.at("state"), port.at("ethernet"), {}};
    for (const json& gid : port.at("gids"))
      one.gids.push_back({gid.at("index"), gid.at("type"), gid.at("of_subnet")});
    report.rdma.push_back(std::move(one));
  }
  report.tcp = from.at("tcp").get<std::vector<uint8_t>>();
  return report;
} catch (const nlohmann::json::exception& bad) {
  return Status(Code::remote, "not a host's report: {}", bad.what());
}

}  // namespace railccl::doctor
