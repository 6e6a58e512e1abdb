// Parsing of synthetic descriptions, and the clusters they stand for.
#include "topology/synthetic.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "topology/host_records.h"
#include "topology/merge.h"
#include "topology/text.h"

namespace railccl::topology {

namespace {

/// What a description says; one row per key in kKeys below.
struct Spec {
  int hosts = 1;
  std::vector<int> gpus;   // per host: one value for all, or one each
  std::vector<int> ranks;  // per host without GPUs
  std::vector<int> nics;
  std::vector<int> numas = {2};
  std::vector<int> caches = {1};  // of each NUMA node
  int rails = -1;
  int cores = 64;
  double nic_bytes_per_s = 25e9;
  double inner_bytes_per_s = 0;  // 0: by kind of rank
  double copy_bytes_per_s = 0;
  double alpha_s = 15e-6;
  double inner_alpha_s = 0;
  double oversubscription = 1;
  std::string gpu_name = "generic";
};

// By kind of rank, when a description does not say: NVLink of an H100 as collectives see it and a
// copy in its memory; between CPU ranks, a copy through memory either way.
constexpr double kGpuInnerBytesPerS = 370e9, kGpuCopyBytesPerS = 1300e9, kGpuInnerAlphaS = 2e-6;
constexpr double kCpuInnerBytesPerS = 10e9, kCpuCopyBytesPerS = 10e9, kCpuInnerAlphaS = 0.5e-6;

Status parse_count(std::string_view text, int low, int high, int& value) {
  int read = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), read);
  if (error != std::errc() || end != text.data() + text.size() || read < low || read > high)
    return Status(Code::invalid_argument, "expected an integer from {} to {}, got \"{}\"", low,
                  high, text.substr(0, 40));
  value = read;
  return ok();
}

/// "8" or "8:8:4:8".
Status parse_counts(std::string_view text, int low, std::vector<int>& values) {
  std::vector<int> read;
  for (;;) {
    const size_t colon = text.find(':');
    int value = 0;
    RAILCCL_CHECK(parse_count(text.substr(0, colon), low, kPartsPerHostMax, value));
    read.push_back(value);
    if (colon == std::string_view::npos) break;
    if (read.size() == static_cast<size_t>(kHostsMax))
      return Status(Code::invalid_argument, "more than {} hosts", kHostsMax);
    text.remove_prefix(colon + 1);
  }
  values = std::move(read);
  return ok();
}

/// A positive number, then one of the units; the result is in the unit's base.
struct Unit {
  std::string_view name;
  double factor;
};
template <size_t N>
Result<double> parse_quantity(std::string_view text, const Unit (&units)[N], const char* example) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  if (error == std::errc() && std::isfinite(number) && number > 0)
    for (const Unit& known : units)
      if (unit == known.name && std::isfinite(number * known.factor)) return number * known.factor;
  return Status(Code::invalid_argument, "expected a quantity such as {}, got \"{}\"", example,
                text.substr(0, 40));
}

Status set_speed(std::string_view text, double& value) {
  RAILCCL_TRY(value, parse_speed(text));
  return ok();
}
Status set_duration(std::string_view text, double& value) {
  RAILCCL_TRY(value, parse_duration(text));
  return ok();
}

/// "1:4", or "4" for the same.
Status set_spine(std::string_view text, double& value) {
  int left = 1, right = 1;
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    RAILCCL_CHECK(parse_count(text.substr(0, colon), 1, 1024, left));
    text.remove_prefix(colon + 1);
  }
  RAILCCL_CHECK(parse_count(text, 1, 1024, right));
  if (right < left)
    return Status(Code::invalid_argument, "expected uplinks:downlinks such as 1:4, got {}:{}", left,
                  right);
  value = static_cast<double>(right) / left;
  return ok();
}

struct Key {
  SyntheticRow row;
  Status (*set)(std::string_view, Spec&);
};
const Key kKeys[] = {
    {{"hosts", "number of hosts (default 1)"},
     [](std::string_view v, Spec& s) { return parse_count(v, 1, kHostsMax, s.hosts); }},
    {{"gpus", "GPUs of each host, one rank each: 8, or one value per host, 8:8:4:8 (default 8)"},
     [](std::string_view v, Spec& s) { return parse_counts(v, 0, s.gpus); }},
    {{"ranks", "ranks of each host that has no GPUs, like gpus"},
     [](std::string_view v, Spec& s) { return parse_counts(v, 0, s.ranks); }},
    {{"nics", "NICs of each host, like gpus (default: rails, else one per rank)"},
     [](std::string_view v, Spec& s) { return parse_counts(v, 0, s.nics); }},
    {{"numas", "NUMA nodes of each host, like gpus (default 2)"},
     [](std::string_view v, Spec& s) { return parse_counts(v, 1, s.numas); }},
    {{"caches", "last-level caches of each NUMA node, like gpus (default 1)"},
     [](std::string_view v, Spec& s) { return parse_counts(v, 1, s.caches); }},
    {{"rails", "number of leaf switches (default: the most NICs a host has)"},
     [](std::string_view v, Spec& s) { return parse_count(v, 0, kRailsMax, s.rails); }},
    {{"cores", "cores of each host (default 64)"},
     [](std::string_view v, Spec& s) { return parse_count(v, 1, 1 << 20, s.cores); }},
    {{"nic", "speed of a NIC, one direction: 50GB/s or 400Gb/s (default 25GB/s)"},
     [](std::string_view v, Spec& s) { return set_speed(v, s.nic_bytes_per_s); }},
    {{"nvlink", "speed between two ranks of a host (default 370GB/s; 10GB/s without GPUs)"},
     [](std::string_view v, Spec& s) { return set_speed(v, s.inner_bytes_per_s); }},
    {{"copy", "speed of a copy in one rank's memory (default 1300GB/s; 10GB/s without GPUs)"},
     [](std::string_view v, Spec& s) { return set_speed(v, s.copy_bytes_per_s); }},
    {{"alpha", "latency of the network, as in 5us (default 15us)"},
     [](std::string_view v, Spec& s) { return set_duration(v, s.alpha_s); }},
    {{"inner-alpha", "latency inside a host (default 2us; 500ns without GPUs)"},
     [](std::string_view v, Spec& s) { return set_duration(v, s.inner_alpha_s); }},
    {{"spine", "oversubscription from leaf to spine, 1:4 (default 1:1)"},
     [](std::string_view v, Spec& s) { return set_spine(v, s.oversubscription); }},
};

struct Machine {
  SyntheticRow row;
  void (*set)(Spec&);
};
const Machine kMachines[] = {
    {{"dgx-a100", "8 A100, 8 NICs of 200 Gb/s, 235 GB/s of NVLink in use, 2 x 64 cores in 8 nodes"},
     [](Spec& s) {
       s.gpus = s.nics = s.numas = {8};
       s.rails = 8;
       s.cores = 128;
       s.nic_bytes_per_s = 25e9;
       s.inner_bytes_per_s = 235e9;
       s.copy_bytes_per_s = 700e9;
       s.alpha_s = 5e-6;
       s.gpu_name = "A100";
     }},
    {{"dgx-h100", "8 H100, 8 NICs of 400 Gb/s, 370 GB/s of NVLink in use, 2 x 56 cores"},
     [](Spec& s) {
       s.gpus = s.nics = {8};
       s.rails = 8;
       s.cores = 112;
       s.nic_bytes_per_s = 50e9;
       s.inner_bytes_per_s = 370e9;
       s.copy_bytes_per_s = 1300e9;
       s.alpha_s = 5e-6;
       s.gpu_name = "H100";
     }},
    {{"hgx-h200", "8 H200, otherwise as dgx-h100 with faster memory"},
     [](Spec& s) {
       s.gpus = s.nics = {8};
       s.rails = 8;
       s.cores = 112;
       s.nic_bytes_per_s = 50e9;
       s.inner_bytes_per_s = 370e9;
       s.copy_bytes_per_s = 1900e9;
       s.alpha_s = 5e-6;
       s.gpu_name = "H200";
     }},
    {{"nvl72", "racks of 72 GPUs on one NVLink (a rack is a host), a 400 Gb/s NIC each, 4 rails"},
     [](Spec& s) {
       s.gpus = s.nics = {72};
       s.numas = {36};
       s.rails = 4;
       s.cores = 36 * 72;
       s.nic_bytes_per_s = 50e9;
       s.inner_bytes_per_s = 800e9;
       s.copy_bytes_per_s = 3500e9;
       s.alpha_s = 5e-6;
       s.gpu_name = "GB200";
     }},
    {{"cpu", "hosts without GPUs: cpu:4x8 is 4 hosts of 8 ranks, one NIC of 100 Gb/s each"},
     [](Spec& s) {
       s.gpus = {0};
       s.nics = {1};
       s.rails = 1;
       s.nic_bytes_per_s = 12.5e9;
     }},
};

Status apply_key(std::string_view item, Spec& spec) {
  const size_t equals = item.find('=');
  const std::string_view name = item.substr(0, equals);
  if (equals == std::string_view::npos)
    return Status(Code::invalid_argument, "expected key=value, got \"{}\"", item.substr(0, 40));
  for (const Key& key : kKeys)
    if (name == key.row.name)
      return key.set(item.substr(equals + 1), spec).context("{}", key.row.name);
  std::string known;
  for (const Key& key : kKeys) known += (known.empty() ? "" : ", ") + std::string(key.row.name);
  return Status(Code::invalid_argument, "there is no key \"{}\"; there are {}", name.substr(0, 40),
                known);
}

/// "dgx-h100:16" or "cpu:4x8".
Status apply_machine(std::string_view item, Spec& spec) {
  const size_t colon = item.find(':');
  const std::string_view name = item.substr(0, colon);
  for (const Machine& machine : kMachines) {
    if (name != machine.row.name) continue;
    machine.set(spec);
    std::string_view size =
        colon == std::string_view::npos ? std::string_view() : item.substr(colon + 1);
    if (spec.gpus != std::vector<int>{0})
      return parse_count(size, 1, kHostsMax, spec.hosts)
          .context("{0}: write {0}:HOSTS", machine.row.name);
    const size_t cross = size.find('x');
    spec.ranks = {0};
    RAILCCL_CHECK(parse_count(size.substr(0, cross), 1, kHostsMax, spec.hosts)
                      .context("{0}: write {0}:HOSTSxRANKS", machine.row.name));
    size = cross == std::string_view::npos ? std::string_view() : size.substr(cross + 1);
    return parse_count(size, 1, kPartsPerHostMax, spec.ranks.front())
        .context("{0}: write {0}:HOSTSxRANKS", machine.row.name);
  }
  std::string known;
  for (const Machine& machine : kMachines)
    known += (known.empty() ? "" : ", ") + std::string(machine.row.name);
  return Status(Code::invalid_argument, "there is no machine \"{}\"; there are {}",
                name.substr(0, 40), known);
}

/// The value for host h of a list that has one value, or one per host.
int value_of(const std::vector<int>& values, int h) {
  return values[values.size() == 1 ? 0 : static_cast<size_t>(h)];
}

Status check_lengths(const Spec& spec) {
  const std::pair<const char*, const std::vector<int>*> lists[] = {{"gpus", &spec.gpus},
                                                                   {"ranks", &spec.ranks},
                                                                   {"nics", &spec.nics},
                                                                   {"numas", &spec.numas},
                                                                   {"caches", &spec.caches}};
  for (const auto& [name, list] : lists)
    if (list->size() > 1 && list->size() != static_cast<size_t>(spec.hosts))
      return Status(Code::invalid_argument, "{}: has {} values for {} hosts", name, list->size(),
                    spec.hosts);
  return ok();
}

/// Fills in what follows from other keys.
Status complete(Spec& spec) {
  if (spec.gpus.empty()) spec.gpus = {spec.ranks.empty() ? 8 : 0};
  if (spec.ranks.empty()) spec.ranks = {0};
  RAILCCL_CHECK(check_lengths(spec));
  if (spec.nics.empty()) {
    if (spec.rails >= 0) {
      spec.nics = {std::min(spec.rails, kPartsPerHostMax)};
    } else {
      for (int h = 0; h < spec.hosts; h++)
        spec.nics.push_back(std::max(value_of(spec.gpus, h), value_of(spec.ranks, h)));
    }
  }
  if (spec.rails < 0) spec.rails = *std::max_element(spec.nics.begin(), spec.nics.end());
  int64_t ranks = 0, parts = 0;
  for (int h = 0; h < spec.hosts; h++) {
    const int gpus = value_of(spec.gpus, h);
    ranks += gpus > 0 ? gpus : value_of(spec.ranks, h);
    parts += gpus + value_of(spec.nics, h) + value_of(spec.numas, h);
  }
  if (ranks == 0) return Status(Code::invalid_argument, "gpus: there is no rank at all");
  if (ranks > kRanksMax)
    return Status(Code::invalid_argument, "hosts: {} ranks are more than {}", ranks, kRanksMax);
  if (parts > int64_t{8} * kRanksMax)
    return Status(Code::invalid_argument, "hosts: {} GPUs, NICs and NUMA nodes are too many",
                  parts);
  return ok();
}

Host make_host(const Spec& spec, int h) {
  const int gpus = value_of(spec.gpus, h), nics = value_of(spec.nics, h);
  const int numas = value_of(spec.numas, h);
  const bool has_gpus = gpus > 0;
  const auto or_default = [](double value, double otherwise) {
    return value > 0 ? value : otherwise;
  };
  Host host;
  host.name = fmt::format("node-{}", h);
  host.id = static_cast<uint64_t>(h) + 1;
  host.cores = spec.cores;
  host.last_level_cache_bytes = uint64_t{32} << 20;
  host.inner_bytes_per_s =
      or_default(spec.inner_bytes_per_s, has_gpus ? kGpuInnerBytesPerS : kCpuInnerBytesPerS);
  host.copy_bytes_per_s =
      or_default(spec.copy_bytes_per_s, has_gpus ? kGpuCopyBytesPerS : kCpuCopyBytesPerS);
  host.inner_alpha_s = or_default(spec.inner_alpha_s, has_gpus ? kGpuInnerAlphaS : kCpuInnerAlphaS);
  const int caches = value_of(spec.caches, h);
  if (caches > 1) host.cores_per_cache = std::max(1, spec.cores / (numas * caches));
  for (int i = 0; i < numas; i++) {
    const int first = i * spec.cores / numas, last = (i + 1) * spec.cores / numas - 1;
    host.numas.push_back(
        {uint64_t{64} << 30, last < first ? std::string() : fmt::format("{}-{}", first, last)});
  }
  // GPUs and NICs are dealt to PCI switches and NUMA nodes in order, as vendors build them.
  const int switches = std::max(1, std::min(gpus, nics));
  for (int i = 0; i < gpus; i++)
    host.gpus.push_back(
        {spec.gpu_name, "", i * numas / gpus, fmt::format("switch {}", i * switches / gpus)});
  for (int i = 0; i < nics; i++) {
    Nic nic;
    nic.name = fmt::format("nic{}", i);
    nic.numa = i * numas / nics;
    nic.bytes_per_s = spec.nic_bytes_per_s;
    if (has_gpus) nic.upstream = fmt::format("switch {}", i * switches / nics);
    if (spec.rails > 0) nic.neighbourhood = fmt::format("leaf {}", i % spec.rails);
    host.nics.push_back(std::move(nic));
  }
  return host;
}

Topology build(const Spec& spec) {
  std::vector<Host> hosts;
  std::vector<Rank> ranks;
  for (int h = 0; h < spec.hosts; h++) {
    hosts.push_back(make_host(spec, h));
    const Host& host = hosts.back();
    const int gpus = static_cast<int>(host.gpus.size());
    const int count = gpus > 0 ? gpus : value_of(spec.ranks, h);
    const int numas = static_cast<int>(host.numas.size());
    const int caches = value_of(spec.caches, h);
    for (int i = 0; i < count; i++) {
      Rank rank;
      rank.host = h;
      rank.process = ranks.size() + 1;
      rank.numa = i * numas / count;
      if (caches > 1) rank.cache = (i * numas * caches / count) * host.cores_per_cache;
      rank.gpu = gpus > 0 ? i : -1;
      ranks.push_back(rank);
    }
  }
  return assemble(std::move(hosts), std::move(ranks), spec.alpha_s, spec.oversubscription);
}

}  // namespace

Result<Topology> synthetic(std::string_view description) {
  Spec spec;
  std::string_view rest = description;
  for (bool first = true; first || !rest.empty(); first = false) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    rest.remove_prefix(comma == std::string_view::npos ? rest.size() : comma + 1);
    const bool machine = first && item.find('=') == std::string_view::npos;
    RAILCCL_CHECK((machine ? apply_machine(item, spec) : apply_key(item, spec))
                      .context("synthetic topology"));
  }
  RAILCCL_CHECK(complete(spec).context("synthetic topology"));
  return build(spec);
}

std::vector<SyntheticRow> synthetic_keys() {
  std::vector<SyntheticRow> rows;
  for (const Key& key : kKeys) rows.push_back(key.row);
  return rows;
}

std::vector<SyntheticRow> synthetic_machines() {
  std::vector<SyntheticRow> rows;
  for (const Machine& machine : kMachines) rows.push_back(machine.row);
  return rows;
}

Result<double> parse_speed(std::string_view text) {
  static constexpr Unit kUnits[] = {{"B/s", 1},        {"kB/s", 1e3},     {"KB/s", 1e3},
                                    {"MB/s", 1e6},     {"GB/s", 1e9},     {"TB/s", 1e12},
                                    {"b/s", 0.125},    {"kb/s", 125},     {"Mb/s", 0.125e6},
                                    {"Gb/s", 0.125e9}, {"Tb/s", 0.125e12}};
  RAILCCL_TRY(const double speed, parse_quantity(text, kUnits, "50GB/s or 400Gb/s"));
  if (speed < 1)
    return Status(Code::invalid_argument, "\"{}\" is less than one byte per second", text);
  return speed;
}

Result<double> parse_duration(std::string_view text) {
  static constexpr Unit kUnits[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1}};
  return parse_quantity(text, kUnits, "15us");
}

}  // namespace railccl::topology
