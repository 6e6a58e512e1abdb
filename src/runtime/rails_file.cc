// Rails file: key, JSON, file and what the process remembers.
#include "runtime/rails_file.h"

#include <cmath>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/log.h"
#include "base/random.h"
#include "runtime/cache_folder.h"

namespace railccl::runtime {

using nlohmann::json;
using topology::Discovery;
using topology::FlatNetwork;
using topology::FoundBy;
using topology::NicAt;

namespace {

// To be raised when the same fabric would be judged otherwise.
constexpr int kProbeVersion = 1;
constexpr size_t kFileBytesMax = 4 << 20;  // a line for each of some ten thousand NICs
constexpr size_t kFilesKept = 64;          // jobs run on ever other sets of hosts

struct FigureRow {
  const char* name;
  double Discovery::*member;
  double least, most;
};
constexpr FigureRow kFigures[] = {
    {"inside_bytes_per_s", &Discovery::inside_bytes_per_s, 0, 1e15},
    {"across_bytes_per_s", &Discovery::across_bytes_per_s, 0, 1e15},
    {"inside_s", &Discovery::inside_s, 0, 1e3},
    {"across_s", &Discovery::across_s, 0, 1e3},
    {"oversubscription", &Discovery::oversubscription, 1, 1e6},
};
constexpr std::pair<const char*, FoundBy> kFoundBy[] = {
    {"bandwidth", FoundBy::bandwidth}, {"latency", FoundBy::latency}, {"order", FoundBy::order}};

std::string file_name(const std::string& key) { return "rails-" + key + ".json"; }

/// By folder and key. Where no file can be kept, a process still probes a fabric only once.
std::mutex memory_mutex;
std::map<std::string, std::string>& memory() {
  static auto* texts = new std::map<std::string, std::string>;
  return *texts;
}
std::string memory_key(const Settings& settings, const std::string& key) {
  return fmt::format("{}\n{}\n{}", settings.cache_home, settings.home, key);
}

Result<int> index_of(const json& value) {
  if (!value.is_number_integer() || value < 0 || value > (1 << 30))
    return Status(Code::invalid_argument, "a number of a host, NIC or leaf is out of range");
  return value.get<int>();
}

/// One rail's NICs; takes each out of `free`.
Result<std::vector<NicAt>> parse_rail(const json& list, std::set<NicAt>* free) {
  if (!list.is_array() || list.empty())
    return Status(Code::invalid_argument, "a rail is not a list of NICs");
  std::vector<NicAt> rail;
  std::set<int> hosts;
  for (const json& pair : list) {
    if (!pair.is_array() || pair.size() != 2)
      return Status(Code::invalid_argument, "a NIC is not a pair of numbers");
    NicAt at;
    RAILCCL_TRY(at.host, index_of(pair[0]));
    RAILCCL_TRY(at.nic, index_of(pair[1]));
    if (free->erase(at) == 0)
      return Status(Code::invalid_argument, "NIC {} of host {} is not in the network, or twice",
                    at.nic, at.host);
    if (!hosts.insert(at.host).second)
      return Status(Code::invalid_argument, "a rail has two NICs of host {}", at.host);
    rail.push_back(at);
  }
  return rail;
}

}  // namespace

std::string fabric_key(const std::vector<topology::Host>& hosts, const FlatNetwork& network) {
  std::string text = fmt::format("version={}\nnetwork={}\n", kProbeVersion, network.name);
  for (size_t h = 0; h < hosts.size(); h++) {
    text += fmt::format("host={:x}\n", hosts[h].id);
    for (const FlatNetwork::Port& port : network.hosts[h]) {
      const topology::Nic& nic = hosts[h].nics[static_cast<size_t>(port.nic)];
      text += fmt::format("nic={} {} {} {} {}\n", port.nic, nic.name, port.address, nic.bytes_per_s,
                          port.up);
    }
  }
  return fmt::format("{:016x}{:016x}", hash_bytes(text.data(), text.size()),
                     hash_bytes(text.data(), text.size(), 1));
}

std::string rails_text(const Discovery& found, const std::string& key) {
  json rails = json::array();
  for (const std::vector<NicAt>& rail : found.rails) {
    json list = json::array();
    for (const NicAt& at : rail) list.push_back({at.host, at.nic});
    rails.push_back(std::move(list));
  }
  json root = {{"fabric", key}, {"rails", std::move(rails)}, {"leaves", found.leaves}};
  for (const auto& [name, by] : kFoundBy)
    if (by == found.by) root["by"] = name;
  for (const FigureRow& row : kFigures) root[row.name] = found.*row.member;
  return root.dump() + '\n';
}

Result<Discovery> parse_rails(const std::string& text, const std::string& key,
                              const FlatNetwork& network) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Status(Code::invalid_argument, "it is not a JSON object");
  const auto field = [&](const char* name) -> const json& {
    static const json nothing;
    const auto found = root.find(name);
    return found == root.end() ? nothing : *found;
  };
  if (field("fabric") != key) return Status(Code::invalid_argument, "it is about another fabric");
  Discovery found;
  bool known = false;
  for (const auto& [name, by] : kFoundBy)
    if (field("by") == name) {
      found.by = by;
      known = true;
    }
  if (!known) return Status(Code::invalid_argument, "it does not say what told the rails");
  for (const FigureRow& row : kFigures) {
    const json& value = field(row.name);
    if (!value.is_number()) return Status(Code::invalid_argument, "{} is not a number", row.name);
    found.*row.member = value.get<double>();
    if (!(found.*row.member >= row.least && found.*row.member <= row.most))
      return Status(Code::invalid_argument, "{}: no fabric has {}", row.name, found.*row.member);
  }
  std::set<NicAt> free;
  for (size_t h = 0; h < network.hosts.size(); h++)
    for (const FlatNetwork::Port& port : network.hosts[h])
      free.insert({static_cast<int>(h), port.nic});
  const json& rails = field("rails");
  const json& leaves = field("leaves");
  if (!rails.is_array() || !leaves.is_array() || rails.size() != leaves.size())
    return Status(Code::invalid_argument, "it lacks rails, or a leaf for each");
  for (size_t r = 0; r < rails.size(); r++) {
    RAILCCL_TRY(std::vector<NicAt> rail, parse_rail(rails[r], &free));
    found.rails.push_back(std::move(rail));
    RAILCCL_TRY(const int leaf, index_of(leaves[r]));
    found.leaves.push_back(leaf);
  }
  if (!free.empty())
    return Status(Code::invalid_argument, "NIC {} of host {} is on no rail", free.begin()->nic,
                  free.begin()->host);
  return found;
}

std::string remembered_rails(const Settings& settings, const std::string& key,
                             const FlatNetwork& network) {
  {
    std::lock_guard lock(memory_mutex);
    const auto known = memory().find(memory_key(settings, key));
    if (known != memory().end()) return known->second;
  }
  auto folder = CacheFolder::open(settings);
  if (!folder.is_ok()) return {};
  auto text = folder->read(file_name(key), kFileBytesMax);
  Status status = text.status();
  if (status.is_ok()) {
    if (!text->has_value()) return {};
    status = parse_rails(**text, key, network).status();
    if (status.is_ok()) return **text;
  }
  log::warn("not using the rails in {}/{}: {}", folder->path(), file_name(key), status.text());
  return {};
}

void remember_rails(const Settings& settings, const std::string& key, const std::string& text,
                    std::string* where) {
  {
    std::lock_guard lock(memory_mutex);
    memory()[memory_key(settings, key)] = text;
  }
  auto folder = CacheFolder::open(settings);
  if (!folder.is_ok()) {
    *where = "this process only: " + folder.status().text();
    return;
  }
  const Status saved = folder->write(file_name(key), text);
  *where = folder->path() + '/' + file_name(key);
  if (saved.is_ok()) {
    folder->prune("rails-", kFilesKept);
  } else {
    log::warn("found rails cannot be kept in {}: {}", *where, saved.text());
  }
}

std::optional<Discovery> remembered_rails(const Settings& settings,
                                          const std::vector<topology::Host>& hosts) {
  const std::optional<FlatNetwork> network = topology::flat_network(hosts);
  if (!network) return std::nullopt;
  const std::string key = fabric_key(hosts, *network);
  auto found = parse_rails(remembered_rails(settings, key, *network), key, *network);
  if (!found.is_ok()) return std::nullopt;
  return std::move(found).value();
}

}  // namespace railccl::runtime
