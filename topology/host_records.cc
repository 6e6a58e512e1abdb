// Hosts and their parts as records: one function per kind of record, each way.
#include "topology/host_records.h"

namespace railccl::topology {

namespace {

void write_numa(const Numa& numa, std::string& text) {
  RecordWriter line("  numa");
  line.unsigned_integer("memory", numa.memory_bytes);
  if (!numa.cpus.empty()) line.text("cpus", numa.cpus);
  text += line.line() + '\n';
}

void write_gpu(const Gpu& gpu, std::string& text) {
  RecordWriter line("  gpu");
  line.text("name", gpu.name);
  if (!gpu.pci.empty()) line.text("pci", gpu.pci);
  if (!gpu.upstream.empty()) line.text("upstream", gpu.upstream);
  if (gpu.numa >= 0) line.integer("numa", gpu.numa);
  text += line.line() + '\n';
}

void write_nic(const Nic& nic, std::string& text) {
  RecordWriter line("  nic");
  line.text("name", nic.name);
  if (!nic.rdma.empty()) line.text("rdma", nic.rdma);
  if (!nic.pci.empty()) line.text("pci", nic.pci);
  if (!nic.upstream.empty()) line.text("upstream", nic.upstream);
  if (nic.numa >= 0) line.integer("numa", nic.numa);
  line.real("speed", nic.bytes_per_s).flag("up", nic.up);
  for (const std::string& address : nic.addresses) line.text("address", address);
  if (!nic.neighbourhood.empty()) line.text("neighbourhood", nic.neighbourhood);
  if (nic.rail >= 0) line.integer("rail", nic.rail);
  text += line.line() + '\n';
}

Result<Speeds> read_speeds(RecordReader& record) {
  Speeds speeds;
  for (const SpeedRow& row : kSpeedRows) {
    record.require(row.key);
    record.real(row.key, speeds.*row.member, 0);
  }
  RAILCCL_CHECK(record.finish());
  for (const SpeedRow& row : kSpeedRows)
    if (!plausible(row, speeds.*row.member))
      return record.error(fmt::format("{}: no machine has {}", row.key, speeds.*row.member));
  return speeds;
}

Status add_speeds(RecordReader& record, Host& host) {
  if (host.speeds.known())
    return record.error(fmt::format("host \"{}\" has its speeds already", host.name));
  RAILCCL_TRY(host.speeds, read_speeds(record));
  return ok();
}

Status read_numa(RecordReader& record, Host& host) {
  Numa numa;
  record.unsigned_integer("memory", numa.memory_bytes);
  record.text("cpus", numa.cpus);
  RAILCCL_CHECK(record.finish());
  host.numas.push_back(std::move(numa));
  return ok();
}

Status read_gpu(RecordReader& record, Host& host) {
  Gpu gpu;
  record.require("name");
  record.text("name", gpu.name);
  record.text("pci", gpu.pci);
  record.text("upstream", gpu.upstream);
  record.integer("numa", gpu.numa, -1, static_cast<int>(host.numas.size()) - 1);
  RAILCCL_CHECK(record.finish());
  host.gpus.push_back(std::move(gpu));
  return ok();
}

Status read_nic(RecordReader& record, int rails, Host& host) {
  Nic nic;
  record.require("name");
  record.text("name", nic.name);
  record.text("rdma", nic.rdma);
  record.text("pci", nic.pci);
  record.text("upstream", nic.upstream);
  record.integer("numa", nic.numa, -1, static_cast<int>(host.numas.size()) - 1);
  record.real("speed", nic.bytes_per_s, 0);
  record.flag("up", nic.up);
  record.texts("address", nic.addresses, kAddressesPerNicMax);
  record.text("neighbourhood", nic.neighbourhood);
  record.integer("rail", nic.rail, -1, rails - 1);
  RAILCCL_CHECK(record.finish());
  host.nics.push_back(std::move(nic));
  return ok();
}

}  // namespace

std::string speeds_to_text(const Speeds& speeds) {
  RecordWriter line("speeds");
  for (const SpeedRow& row : kSpeedRows) line.real(row.key, speeds.*row.member);
  return line.line();
}

Result<Speeds> speeds_from_text(std::string_view text) {
  RAILCCL_TRY(RecordReader record, RecordReader::parse(text, 1));
  if (record.word() != "speeds") return record.error("expected speeds");
  return read_speeds(record);
}

void write_host(const Host& host, std::string& text) {
  RecordWriter line("host");
  line.text("name", host.name)
      .id("id", host.id)
      .integer("cores", host.cores)
      .unsigned_integer("cache", host.last_level_cache_bytes);
  if (host.machine != 0) line.id("machine", host.machine);
  if (host.cores_per_cache > 0) line.integer("cache-cores", host.cores_per_cache);
  line.real("copy", host.copy_bytes_per_s)
      .real("inner", host.inner_bytes_per_s)
      .real("inner-alpha", host.inner_alpha_s);
  text += line.line() + '\n';
  if (host.speeds.known()) text += "  " + speeds_to_text(host.speeds) + '\n';
  for (const Numa& numa : host.numas) write_numa(numa, text);
  for (const Gpu& gpu : host.gpus) write_gpu(gpu, text);
  for (const Nic& nic : host.nics) write_nic(nic, text);
}

Result<Host> read_host(RecordReader& record) {
  Host host;
  record.require("name");
  record.text("name", host.name);
  record.id("id", host.id);
  record.id("machine", host.machine);
  record.integer("cores", host.cores, 1, 1 << 20);
  record.unsigned_integer("cache", host.last_level_cache_bytes);
  record.integer("cache-cores", host.cores_per_cache, 0, 1 << 20);
  // The cost model divides by these speeds: a zero would make every plan cost infinity.
  record.real("copy", host.copy_bytes_per_s, 1);
  record.real("inner", host.inner_bytes_per_s, 1);
  record.real("inner-alpha", host.inner_alpha_s, 0);
  RAILCCL_CHECK(record.finish());
  return host;
}

bool is_host_part(std::string_view word) {
  return word == "speeds" || word == "numa" || word == "gpu" || word == "nic";
}

Status read_host_part(RecordReader& record, int rails, Host& host) {
  const auto full = [&](const auto& parts) { return parts.size() >= size_t{kPartsPerHostMax}; };
  if (full(host.numas) || full(host.gpus) || full(host.nics))
    return record.error(fmt::format("host \"{}\" has {} {}s: too many", host.name, kPartsPerHostMax,
                                    record.word()));
  if (record.word() == "speeds") return add_speeds(record, host);
  if (record.word() == "numa") return read_numa(record, host);
  if (record.word() == "gpu") return read_gpu(record, host);
  return read_nic(record, rails, host);
}

}  // namespace railccl::topology
