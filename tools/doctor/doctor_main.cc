// railccl-doctor: looks for what will make a job slow or fail, before it does.
//
// Alone it looks at this host. Under a launcher (mpirun, srun, torchrun's environment) the
// processes meet as the ranks of a job would, one of each host tries every rail to others, and rank
// 0 says in words what is wrong, where, and what to do. With H hosts and R rails that takes R
// log2(H) rounds of a few tenths of a second each.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <launch/launch.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "doctor/diagnose.h"
#include "doctor/host_checks.h"
#include "doctor/host_report.h"
#include "doctor/pair_probe.h"
#include "runtime/rendezvous.h"

namespace {

using railccl::Code;
using railccl::Result;
using railccl::Settings;
using railccl::Status;
using namespace railccl::doctor;

constexpr int kHealthy = 0, kSick = 1;

const char* name_of(Finding::Severity severity) {
  switch (severity) {
    case Finding::Severity::note:
      return "note";
    case Finding::Severity::warning:
      return "warning";
    case Finding::Severity::error:
      break;
  }
  return "error";
}

int print(const Findings& found, const std::string& looked_at, bool as_json) {
  bool sick = false;
  nlohmann::json lines = nlohmann::json::array();
  for (const Finding& one : found) {
    sick |= one.severity == Finding::Severity::error;
    if (as_json) {
      lines.push_back({{"severity", name_of(one.severity)},
                       {"cause", one.cause},
                       {"what", one.what},
                       {"why", one.why},
                       {"advice", one.advice}});
    } else {
      fmt::print("{}: {}\n    {}\n    -> {}\n", name_of(one.severity), one.what, one.why,
                 one.advice);
    }
  }
  if (as_json) {
    fmt::print("{}\n", lines.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print("{}: {}\n", looked_at,
               found.empty() ? "nothing is wrong" : fmt::format("{} found", found.size()));
  }
  std::fflush(stdout);
  return sick ? kSick : kHealthy;
}

/// The hosts of a job, as each process knows them after the first exchange.
struct Cluster {
  std::vector<HostReport> hosts;
  std::vector<railccl::transport::TcpAddress> addresses;  // by host; of its first process
  int mine = 0;                                           // this process's host
  bool lead = false;                                      // is this the host's first process?
};

Result<Cluster> meet(railccl::runtime::Meeting& meeting, HostReport report) {
  RAILCCL_TRY(const std::vector<std::string> all, meeting.all_gather(encode(report)));
  Cluster cluster;
  std::map<uint64_t, int> by_id;
  std::set<std::string> names;
  for (size_t rank = 0; rank < all.size(); rank++) {
    auto decoded = decode_host_report(all[rank]);
    if (!decoded.is_ok()) return decoded.status().context("rank {}", rank);
    HostReport& one = *decoded;
    const auto [at, fresh] = by_id.emplace(one.id, static_cast<int>(cluster.hosts.size()));
    if (static_cast<int>(rank) == meeting.rank()) {
      cluster.mine = at->second;
      cluster.lead = fresh;
    }
    if (!fresh) {
      cluster.hosts[static_cast<size_t>(at->second)].processes++;
      continue;
    }
    if (!names.insert(one.name).second) one.name += fmt::format(" (rank {})", rank);
    const std::string_view bytes(reinterpret_cast<const char*>(one.tcp.data()), one.tcp.size());
    cluster.addresses.push_back(
        railccl::transport::decode_tcp_address(bytes).value_or(railccl::transport::TcpAddress()));
    cluster.hosts.push_back(std::move(one));
  }
  return cluster;
}

/// Tries what leads from this host to others, in step with all other processes.
Result<std::vector<PairResult>> probe(railccl::runtime::Meeting& meeting, const Cluster& cluster) {
  const int hosts = static_cast<int>(cluster.hosts.size());
  std::vector<PairResult> mine;
  for (int distance = 1; distance < hosts; distance *= 2) {
    const int to = (cluster.mine + distance) % hosts;
    const auto& ours = cluster.addresses[static_cast<size_t>(cluster.mine)];
    const auto& theirs = cluster.addresses[static_cast<size_t>(to)];
    const auto paths = railccl::transport::tcp_paths(ours.endpoints, theirs.endpoints, false);
    // All do one rail after the other, so that no NIC has two probes in one direction.
    for (size_t rail = 0;; rail++) {
      const bool more = cluster.lead && rail < paths.size();
      if (more) {
        mine.push_back(probe_pair(meeting.job(), to, paths[rail], theirs.port));
        mine.back().from = cluster.mine;
      }
      RAILCCL_TRY(const auto others, meeting.all_gather(more ? "more" : ""));
      if (std::all_of(others.begin(), others.end(), [](const auto& one) { return one.empty(); }))
        break;
    }
  }
  RAILCCL_TRY(const std::vector<std::string> all, meeting.all_gather(encode(mine)));
  std::vector<PairResult> results;
  for (const std::string& text : all) {
    RAILCCL_TRY(const std::vector<PairResult> some, decode_pair_results(text));
    for (const PairResult& one : some) {
      const bool sane = one.from >= 0 && one.from < hosts && one.to >= 0 && one.to < hosts;
      if (sane) results.push_back(one);
    }
  }
  return results;
}

void show_pairs(const Cluster& cluster, const std::vector<PairResult>& results) {
  for (const PairResult& one : results)
    fmt::print("{:>12} {:<8} -> {:>12} {:<8} {:>9.1f} us {:>9.1f} MB/s {:>5.1f}% again  {}\n",
               cluster.hosts[static_cast<size_t>(one.from)].name, one.nic,
               cluster.hosts[static_cast<size_t>(one.to)].name, one.far_nic, one.round_trip_us,
               one.bytes_per_s * 1e-6, 100 * one.lost_share, one.text);
}

Result<int> examine_cluster(railccl::launch::Job& job, const Settings& settings, HostReport report,
                            bool as_json) {
  ncclUniqueId shared;
  if (!job.unique_id(&shared))
    return Status(Code::remote, "process {} has no unique id: {}", job.place().process,
                  job.error());
  railccl::runtime::UniqueId id;
  static_assert(sizeof id == sizeof shared);
  std::memcpy(id.data(), &shared, sizeof id);
  RAILCCL_TRY(const auto meeting,
              railccl::runtime::Meeting::join(id, job.place().process, job.place().processes,
                                              settings, nullptr));
  // A host whose interfaces are no use takes part all the same: its report says why.
  railccl::transport::TcpListener listener;
  if (auto endpoints = railccl::transport::tcp_endpoints(settings, {}); endpoints.is_ok()) {
    RAILCCL_TRY(listener, railccl::transport::tcp_listen(*endpoints));
    const std::string address = encode(railccl::transport::TcpAddress{listener.port, *endpoints});
    report.tcp.assign(address.begin(), address.end());
  }
  RAILCCL_TRY(const Cluster cluster, meet(*meeting, std::move(report)));
  std::unique_ptr<ProbeServer> server;
  if (listener.socket && cluster.lead) {
    RAILCCL_TRY(server, ProbeServer::start(meeting->job(), cluster.mine, std::move(listener)));
  }
  RAILCCL_TRY(const std::vector<PairResult> results, probe(*meeting, cluster));
  if (job.place().process != 0) return kHealthy;
  Findings found;
  std::vector<std::string> names;
  for (const HostReport& host : cluster.hosts) {
    names.push_back(host.name);
    for (Finding& one : check_host(host, job.place().processes)) found.push_back(std::move(one));
  }
  for (Finding& one : compare_hosts(cluster.hosts)) found.push_back(std::move(one));
  for (Finding& one : diagnose(names, results)) found.push_back(std::move(one));
  if (!as_json) show_pairs(cluster, results);
  return print(found,
               fmt::format("{} hosts, {} processes, {} probes", names.size(), job.place().processes,
                           results.size()),
               as_json);
}

int examine(railccl::launch::Job& job, bool as_json) {
  HostReport report = look_at_host(RAILCCL_VERSION);
  const auto settings = Settings::load();
  if (job.place().processes == 1 || !settings.is_ok())
    return print(check_host(report, 1), fmt::format("host {}", report.name), as_json);
  const auto code = examine_cluster(job, *settings, std::move(report), as_json);
  if (code.is_ok()) return *code;
  const Finding finding{
      Finding::Severity::error, "meeting",
      fmt::format("process {} of {} cannot work with the others", job.place().process,
                  job.place().processes),
      code.status().text(),
      "MASTER_ADDR must lead to rank 0's host from all others, by an interface that "
      "NCCL_SOCKET_IFNAME allows; a firewall may be in the way"};
  return print({finding}, "the job", as_json);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "railccl-doctor: what will make a job slow or fail. Alone it looks at this host; started "
      "like "
      "the job, once per host (mpirun -N 1, srun --ntasks-per-node=1, torchrun's environment), "
      "also "
      "at the network between hosts. Exits with 1 when something is wrong.",
      "railccl-doctor");
  bool as_json = false;
  app.add_flag("--json", as_json, "findings as one line of JSON");
  app.set_version_flag("--version", std::string("railccl-doctor ") + RAILCCL_VERSION);
  CLI11_PARSE(app, argc, argv);
  return railccl::launch::run(0, [&](railccl::launch::Job& job) { return examine(job, as_json); });
}
