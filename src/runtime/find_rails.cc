// Find rails: the phases of a probe, in step on all ranks.
#include "runtime/find_rails.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <memory>

#include "base/clock.h"
#include "base/log.h"
#include "runtime/nic_probe.h"
#include "runtime/pack.h"
#include "runtime/rails_file.h"

namespace railccl::runtime {

using topology::Discovery;
using topology::FlatNetwork;
using topology::Flow;
using topology::FoundBy;
using topology::Sample;
using transport::TcpEndpoint;

namespace {

constexpr size_t kPortsMax = 16;  // of a host; more would take more than a second
constexpr int64_t kTripsMs = 60;
constexpr int64_t kConnectMs = 60;  // only where something does not answer
constexpr int64_t kRoundMs = 60, kRoundMsLeast = 20, kRoundsMs = 350;
constexpr uint64_t kRoundBytesMax = 1 << 30;  // more than one thread sends in that time
constexpr uint64_t kValuesMax = 1 << 16;

class Search {
 public:
  Search(const Settings& settings, const RailSearch& search, FlatNetwork network)
      : settings_(settings),
        search_(search),
        network_(std::move(network)),
        key_(fabric_key(search.hosts, network_)) {
    for (size_t h = 0; h < search.probers.size(); h++)
      if (search.probers[h] == search.rank) host_ = static_cast<int>(h);
  }

  Result<std::optional<Discovery>> run() {
    RAILCCL_TRY(const std::vector<std::string> openings, search_.exchange(opening()));
    if (std::string known = remembered(openings); !known.empty()) {
      auto found = parse_rails(known, key_, network_);
      if (found.is_ok()) return tell(std::move(found).value(), "remembered");
    }
    if (!gather(openings)) return std::optional<Discovery>();
    const int64_t start_ns = now_ns();
    RAILCCL_TRY(std::vector<Sample> samples, measure_pairs());
    RAILCCL_TRY(std::optional<Discovery> found, announce(topology::discover(network_, samples)));
    if (!found) return found;
    if (found->by != FoundBy::order) {
      std::vector<Sample> trial;
      for (const auto& flows :
           {topology::flows_inside(network_, *found), topology::flows_across(network_, *found)}) {
        RAILCCL_CHECK(round(flows, &trial));
      }
      RAILCCL_CHECK(results(&trial));
      if (rank0() && !topology::confirm(trial, &*found)) {
        std::vector<Sample> trips = samples;
        for (Sample& sample : trips) sample.bytes_per_s = -1;
        found = topology::discover(network_, trips);
      }
      RAILCCL_TRY(found, announce(std::move(*found)));
      if (!found) return found;
    }
    std::string kept;
    if (rank0() && good_enough(samples)) {
      remember_rails(settings_, key_, rails_text(*found, key_), &kept);
    } else if (rank0()) {
      kept = "no file: too few connections came about in time";
      log::warn("the probe of {} says little: many connections did not come about in time",
                network_.name);
    }
    return tell(std::move(*found),
                fmt::format("probed in {} ms, up to {:.1f} MB sent by a NIC here, kept in {}",
                            (now_ns() - start_ns) / 1'000'000,
                            static_cast<double>(bytes_of_nic()) / 1e6, kept));
  }

 private:
  bool rank0() const { return search_.rank == 0; }

  /// Were nearly all pairs measured? Else the hosts were too busy, or NICs do not work: the next
  /// communicator tries again.
  static bool good_enough(const std::vector<Sample>& samples) {
    size_t tried = 0, answered = 0;
    for (const Sample& sample : samples) {
      tried += sample.bytes_per_s >= 0 ? 1 : 0;
      answered += sample.bytes_per_s > 0 ? 1 : 0;
    }
    return 10 * answered >= 7 * tried;
  }

  /// What every rank begins with: where its host's probe listens or why it does not, and rank 0's
  /// memory.
  std::string opening() {
    Packer packer;
    std::string why;
    if (host_ >= 0 && !ports_of(host_).empty()) {
      std::vector<TcpEndpoint> ours;
      for (const FlatNetwork::Port* port : ports_of(host_)) ours.push_back(endpoint(host_, *port));
      auto opened = NicProbe::open(search_.job, ours);
      if (opened.is_ok()) {
        probe_ = std::move(opened).value();
      } else {
        why = opened.status().text();
      }
    }
    packer.add(uint64_t{probe_ ? probe_->port() : 0u}).add(why);
    packer.add(rank0() && settings_.probe != "force" ? remembered_rails(settings_, key_, network_)
                                                     : std::string());
    return std::move(packer).take();
  }

  static std::string remembered(const std::vector<std::string>& openings) {
    uint64_t port = 0;
    std::string why, text;
    Unpacker unpacker(openings[0]);
    return unpacker.get(&port) && unpacker.get(&why) && unpacker.get(&text) ? text : "";
  }

  /// Who takes part; false when it is not worth while.
  bool gather(const std::vector<std::string>& openings) {
    listens_.assign(search_.hosts.size(), 0);
    size_t able = 0;
    for (size_t h = 0; h < search_.hosts.size(); h++) {
      uint64_t port = 0;
      std::string why;
      Unpacker unpacker(openings[static_cast<size_t>(search_.probers[h])]);
      if (unpacker.get(&port) && port <= UINT16_MAX && unpacker.get(&why))
        listens_[h] = static_cast<uint16_t>(port);
      if (listens_[h] == 0)
        for (FlatNetwork::Port& one : network_.hosts[h]) one.up = false;
      able += listens_[h] != 0 ? 1 : 0;
      if (rank0() && !why.empty())
        log::warn("{} takes no part in the probe for rails: {}", search_.hosts[h].name, why);
    }
    if (able >= 2 && network_.ports_max() >= 2 && network_.ports_max() <= kPortsMax) return true;
    if (rank0())
      log::warn("rails in {} are not probed ({} hosts with up to {} NICs can be): it is one rail",
                network_.name, able, network_.ports_max());
    return false;
  }

  std::vector<const FlatNetwork::Port*> ports_of(int host) const {
    std::vector<const FlatNetwork::Port*> ports;
    for (const FlatNetwork::Port& port : network_.hosts[static_cast<size_t>(host)])
      if (port.up) ports.push_back(&port);
    return ports;
  }

  TcpEndpoint endpoint(int host, const FlatNetwork::Port& port) const {
    // flat_network() takes addresses that parse.
    return {std::move(parse_address(port.address)).value(),
            search_.hosts[static_cast<size_t>(host)].nics[static_cast<size_t>(port.nic)].name};
  }

  TcpEndpoint endpoint(const topology::NicAt& at) const {
    for (const FlatNetwork::Port& port : network_.hosts[static_cast<size_t>(at.host)])
      if (port.nic == at.nic) return endpoint(at.host, port);
    return {};
  }

  /// This host's part of `flows`.
  std::vector<NicProbe::Target> targets(const std::vector<Flow>& flows) const {
    std::vector<NicProbe::Target> mine;
    for (size_t f = 0; f < flows.size(); f++)
      if (probe_ && flows[f].from.host == host_)
        mine.push_back({f, endpoint(flows[f].from), endpoint(flows[f].to),
                        listens_[static_cast<size_t>(flows[f].to.host)]});
    return mine;
  }

  Result<std::vector<Sample>> measure_pairs() {
    const std::vector<std::vector<Flow>> rounds = topology::probe_rounds(network_);
    rounds_ = rounds.size() + 2;
    std::vector<Flow> all;
    for (const std::vector<Flow>& flows : rounds) all.insert(all.end(), flows.begin(), flows.end());
    if (probe_) mine_ = probe_->round_trips(targets(all), kTripsMs);
    trips_ = true;
    flows_ = all;
    std::vector<Sample> samples;
    for (const std::vector<Flow>& flows : rounds) RAILCCL_CHECK(round(flows, &samples));
    RAILCCL_CHECK(results(&samples));
    return samples;
  }

  /// One round of sending; the exchange before it brings the results of what was before.
  Status round(const std::vector<Flow>& flows, std::vector<Sample>* samples) {
    round_++;
    if (probe_) probe_->connect(round_, targets(flows), kConnectMs);
    RAILCCL_CHECK(results(samples));
    flows_ = flows;
    if (!probe_) return ok();
    const auto ms = std::clamp(kRoundsMs / static_cast<int64_t>(rounds_), kRoundMsLeast, kRoundMs);
    mine_ = probe_->send_and_count(ms, kRoundBytesMax);
    return ok();
  }

  /// Everyone's results of the last phase. Rank 0 makes samples of them.
  Status results(std::vector<Sample>* samples) {
    RAILCCL_TRY(const std::vector<std::string> all, search_.exchange(encode_values(mine_)));
    mine_.clear();
    if (rank0()) {
      // Bandwidth is told by the receiving host, a round trip by the sending one.
      std::vector<std::map<uint64_t, double>> told;
      for (const int prober : search_.probers)
        told.push_back(decode_values(all[static_cast<size_t>(prober)]));
      for (size_t f = 0; f < flows_.size(); f++) {
        const Flow& flow = flows_[f];
        const auto& values = told[static_cast<size_t>(trips_ ? flow.from.host : flow.to.host)];
        const auto value = values.find(f);
        const double known = value == values.end() ? 0 : value->second;
        samples->push_back({flow.from, flow.to, trips_ ? -1 : known, trips_ ? known : -1});
      }
    }
    trips_ = false;
    flows_.clear();
    return ok();
  }

  /// Rank 0's word to everyone; nothing when it does not parse.
  Result<std::optional<Discovery>> announce(Discovery found) {
    RAILCCL_TRY(const std::vector<std::string> all,
                search_.exchange(rank0() ? rails_text(found, key_) : std::string()));
    auto parsed = parse_rails(all[0], key_, network_);
    if (parsed.is_ok()) return std::optional<Discovery>(std::move(parsed).value());
    log::warn("rank {}: the rails that rank 0 found do not make sense: {}", search_.rank,
              parsed.status().text());
    return std::optional<Discovery>();
  }

  uint64_t bytes_of_nic() const {
    const size_t nics = host_ < 0 ? 0 : ports_of(host_).size();
    return probe_ && nics > 0 ? probe_->bytes_sent() / nics : 0;
  }

  std::optional<Discovery> tell(Discovery found, const std::string& how) const {
    if (rank0()) log::info("{}: {} ({})", network_.name, topology::text_of(found), how);
    return found;
  }

  const Settings& settings_;
  const RailSearch& search_;
  FlatNetwork network_;
  const std::string key_;
  int host_ = -1;                    // that this rank measures for; -1: for none
  std::unique_ptr<NicProbe> probe_;  // of such a rank
  std::vector<uint16_t> listens_;    // port of each host's probe; 0: it has none
  size_t rounds_ = 1;                // in all
  uint64_t round_ = 0;
  // The phase whose results are not exchanged yet.
  std::vector<Flow> flows_;
  NicProbe::Values mine_;
  bool trips_ = false;
};

}  // namespace

Status check_probe_setting(const Settings& settings) {
  for (const char* known : {"auto", "force", "off"})
    if (settings.probe == known) return ok();
  return Status(Code::invalid_argument, "RAILCCL_PROBE={}: expected auto, force or off",
                settings.probe);
}

Result<std::optional<Discovery>> find_rails(const Settings& settings, const RailSearch& search) {
  if (settings.probe == "off") return std::optional<Discovery>();
  std::optional<FlatNetwork> network = topology::flat_network(search.hosts);
  if (!network) return std::optional<Discovery>();
  return Search(settings, search, std::move(*network)).run();
}

std::string encode_values(const std::map<uint64_t, double>& values) {
  Packer packer;
  packer.add(uint64_t{values.size()});
  for (const auto& [flow, value] : values) packer.add(flow).add(std::bit_cast<uint64_t>(value));
  return std::move(packer).take();
}

std::map<uint64_t, double> decode_values(const std::string& bytes) {
  std::map<uint64_t, double> values;
  Unpacker unpacker(bytes);
  uint64_t count = 0, flow = 0, bits = 0;
  if (!unpacker.get(&count)) return values;
  for (uint64_t i = 0; i < std::min(count, kValuesMax); i++) {
    if (!unpacker.get(&flow) || !unpacker.get(&bits)) break;
    const auto value = std::bit_cast<double>(bits);
    if (std::isfinite(value) && value >= 0) values[flow] = value;
  }
  return values;
}

}  // namespace railccl::runtime
