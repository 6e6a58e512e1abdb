// Writing and reading of topology files.
#include "topology/text.h"

#include <cerrno>
#include <fstream>
#include <utility>
#include <vector>

#include "topology/host_records.h"
#include "topology/records.h"

namespace railccl::topology {

namespace {

constexpr std::string_view kHeader = "railccl-topology";
constexpr int kVersion = 1;

int count(const auto& things) { return static_cast<int>(things.size()); }

void write_rank(const Rank& rank, std::string& text) {
  RecordWriter line("rank");
  line.integer("host", rank.host).id("process", rank.process);
  if (rank.numa >= 0) line.integer("numa", rank.numa);
  if (rank.cache >= 0) line.integer("cache", rank.cache);
  if (rank.gpu >= 0) line.integer("gpu", rank.gpu);
  if (rank.nic >= 0) line.integer("nic", rank.nic);
  if (rank.rail >= 0) line.integer("rail", rank.rail);
  text += line.line() + '\n';
}

/// What has been read so far; one method per kind of record.
struct Draft {
  bool header = false;
  double network_alpha_s = 15e-6;
  double oversubscription = 1;
  std::vector<Rail> rails;
  std::vector<Host> hosts;
  std::vector<Rank> ranks;

  Status read(RecordReader& record) {
    const std::string& word = record.word();
    if (word.empty()) return ok();
    if (!header) return read_header(record);
    if (word == "network") return read_network(record);
    if (word == "rail") return read_rail(record);
    if (word == "rank") return read_rank(record);
    if (word == "host") {
      if (count(hosts) == kHostsMax) return record.error("too many hosts");
      RAILCCL_TRY(Host host, read_host(record));
      hosts.push_back(std::move(host));
      return ok();
    }
    if (is_host_part(word)) {
      if (hosts.empty()) return record.error(word + " before the first host");
      if (!ranks.empty()) return record.error(word + " after the first rank");
      return read_host_part(record, count(rails), hosts.back());
    }
    return record.error(fmt::format("unknown record \"{}\"", word.substr(0, 40)));
  }

  Status read_header(RecordReader& record) {
    int version = 0;
    if (record.word() != kHeader)
      return record.error("not a topology file: it must begin with \"railccl-topology version=1\"");
    record.require("version");
    record.integer("version", version, kVersion, kVersion);
    header = true;
    return record.finish();
  }

  Status read_network(RecordReader& record) {
    record.real("alpha", network_alpha_s, 0);
    record.real("oversubscription", oversubscription, 1);
    return record.finish();
  }

  Status read_rail(RecordReader& record) {
    if (count(rails) == kRailsMax) return record.error("too many rails");
    Rail rail;
    record.real("speed", rail.bytes_per_s, 0);
    record.text("reason", rail.reason);
    RAILCCL_CHECK(record.finish());
    rails.push_back(std::move(rail));
    return ok();
  }

  Status read_rank(RecordReader& record) {
    if (count(ranks) == kRanksMax) return record.error("too many ranks");
    Rank rank;
    record.require("host");
    record.integer("host", rank.host, 0, count(hosts) - 1);
    record.id("process", rank.process);
    if (hosts.empty()) return record.error("rank before the first host");
    // A bad host index is reported by finish(); until then any host serves to bound the rest.
    const Host& host = hosts[static_cast<size_t>(rank.host)];
    record.integer("numa", rank.numa, -1, count(host.numas) - 1);
    record.integer("cache", rank.cache, -1, kCpuMax);
    record.integer("gpu", rank.gpu, -1, count(host.gpus) - 1);
    record.integer("nic", rank.nic, -1, count(host.nics) - 1);
    record.integer("rail", rank.rail, -1, count(rails) - 1);
    RAILCCL_CHECK(record.finish());
    ranks.push_back(rank);
    return ok();
  }
};

}  // namespace

std::string to_text(const Topology& topology) {
  std::string text = RecordWriter(kHeader).integer("version", kVersion).line() + '\n';
  text += RecordWriter("network")
              .real("alpha", topology.network_alpha_s())
              .real("oversubscription", topology.oversubscription())
              .line() +
          '\n';
  for (const Rail& rail : topology.rails())
    text +=
        RecordWriter("rail").real("speed", rail.bytes_per_s).text("reason", rail.reason).line() +
        '\n';
  for (const Host& host : topology.hosts()) write_host(host, text);
  for (const Rank& rank : topology.ranks()) write_rank(rank, text);
  return text;
}

Result<Topology> from_text(std::string_view text) {
  if (text.size() > kTopologyTextMax)
    return Status(Code::invalid_argument, "a topology of {} bytes: more than the {} allowed",
                  text.size(), kTopologyTextMax);
  Draft draft;
  RAILCCL_CHECK(for_each_line(text, [&](std::string_view line, int number) -> Status {
    RAILCCL_TRY(RecordReader record, RecordReader::parse(line, number));
    return draft.read(record);
  }));
  if (!draft.header) return Status(Code::invalid_argument, "the topology is empty");
  return Topology(std::move(draft.hosts), std::move(draft.rails), std::move(draft.ranks),
                  draft.network_alpha_s, draft.oversubscription);
}

Result<Topology> load_topology(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return system_error(errno, "cannot read topology file \"" + path + '"');
  std::string text;
  // Read in pieces, so that a device or pipe without end is refused instead of filling memory.
  char piece[1 << 16];
  while (file.read(piece, sizeof piece) || file.gcount() > 0) {
    text.append(piece, static_cast<size_t>(file.gcount()));
    if (text.size() > kTopologyTextMax) break;
  }
  if (file.bad()) return Status(Code::system, "cannot read topology file \"{}\"", path);
  Result<Topology> topology = from_text(text);
  if (!topology.is_ok()) return topology.status().context("topology file \"{}\"", path);
  return topology;
}

Status save_topology(const Topology& topology, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << to_text(topology);
  file.flush();
  if (!file) return system_error(errno, "cannot write topology file \"" + path + '"');
  return ok();
}

}  // namespace railccl::topology
