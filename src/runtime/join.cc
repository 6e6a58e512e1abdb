// Join: from ranks that have met to a communicator that works.
//
// Two exchanges over the rendezvous tree. First everyone's card: version, settings that must agree,
// the rank's place, addresses on every transport that works there, and from the lowest rank of each
// host the facts of the host, so that neither looking at it nor telling of it grows with its ranks.
// Then, once each rank has
// looked at all cards and told its transports, a verdict: all well, or what is wrong. So a rank
// that cannot take part is an error everywhere at once, not a wait until the deadline. The lowest
// rank of each host adds the host's measured speeds to its verdict: the others, at rest in the
// second exchange, do not disturb what it may have to measure, and all ranks get the same figures.
#include <strings.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "base/host_id.h"
#include "base/log.h"
#include "runtime/find_rails.h"
#include "runtime/host_speeds.h"
#include "runtime/member.h"
#include "runtime/pack.h"
#include "topology/host_records.h"
#include "topology/merge.h"
#include "topology/place.h"
#include "topology/probe.h"
#include "topology/text.h"
#include "transport/registry.h"

namespace railccl::runtime {

using topology::Topology;
using transport::Transport;

namespace {

/// Settings that all ranks must have alike, as "NAME=value".
std::vector<std::string> agreed_settings(const Settings& settings, const Config& config) {
  return {
      fmt::format("railccl version={}", RAILCCL_VERSION),
      fmt::format("NCCL_ALGO={}", settings.algo),
      fmt::format("NCCL_MIN_NCHANNELS={}",
                  config.min_channels > 0 ? config.min_channels : settings.min_channels),
      fmt::format("NCCL_MAX_NCHANNELS={}",
                  config.max_channels > 0 ? config.max_channels : settings.max_channels),
      fmt::format("RAILCCL_CHUNK_SIZE={}", settings.chunk_bytes),
      fmt::format("RAILCCL_OPEN_SIZE={}", settings.open_bytes),
      fmt::format("NCCL_SHM_DISABLE={}", settings.shm_disable ? 1 : 0),
      fmt::format("NCCL_NSOCKS_PERTHREAD={}", settings.sockets_per_path),
      fmt::format("RAILCCL_PROBE={}", settings.probe),
      fmt::format("RAILCCL_TOPO_FILE is {}", settings.topo_file.empty() ? "not set" : "set"),
  };
}

struct Medium {
  std::string name;
  std::string address;
};

struct Card {
  std::string failure;  // why the rank cannot take part; empty: it can
  std::vector<std::string> settings;
  uint64_t host_id = 0;
  uint64_t process = 0;
  uint64_t pid = 0;
  std::string door;  // where its roll call listens
  topology::Place place;
  std::string facts;  // of the host, from its lowest rank
  std::vector<Medium> media;
  std::string tuner;  // that it would ask; empty: none
};

std::string encode(const Card& card) {
  Packer packer;
  packer.add(card.failure).add(uint64_t{card.settings.size()});
  for (const std::string& setting : card.settings) packer.add(setting);
  packer.add(card.host_id).add(card.process).add(card.pid).add(card.door).add(card.place.cpus);
  packer.add(static_cast<uint64_t>(card.place.cache + 1)).add(card.facts).add(card.media.size());
  for (const Medium& medium : card.media) packer.add(medium.name).add(medium.address);
  packer.add(card.tuner);
  return std::move(packer).take();
}

bool decode(const std::string& bytes, Card* card) {
  constexpr uint64_t kRowsMax = 64;
  Unpacker unpacker(bytes);
  uint64_t rows = 0, cache = 0;
  if (!unpacker.get(&card->failure) || !unpacker.get(&rows) || rows > kRowsMax) return false;
  card->settings.resize(rows);
  for (std::string& setting : card->settings)
    if (!unpacker.get(&setting)) return false;
  if (!unpacker.get(&card->host_id) || !unpacker.get(&card->process) || !unpacker.get(&card->pid) ||
      !unpacker.get(&card->door) || !unpacker.get(&card->place.cpus) || !unpacker.get(&cache) ||
      cache > topology::kCpuMax + 1 || !unpacker.get(&card->facts) || !unpacker.get(&rows) ||
      rows > kRowsMax)
    return false;
  card->place.cache = static_cast<int>(cache) - 1;
  card->media.resize(rows);
  for (Medium& medium : card->media)
    if (!unpacker.get(&medium.name) || !unpacker.get(&medium.address)) return false;
  return unpacker.get(&card->tuner) && unpacker.at_end();
}

/// The facts of this host, detected once per set of the settings that they depend on: probing
/// takes up to 100 ms, and a process may hold many ranks.
Result<std::string> facts_text(const Settings& settings) {
  static std::mutex mutex;
  static std::map<std::string, std::string>* known = new std::map<std::string, std::string>;
  const std::string key = fmt::format("{}\n{}\n{}\n{}", settings.socket_ifname,
                                      settings.socket_family, settings.rails, settings.host_id);
  std::lock_guard lock(mutex);
  if (const auto found = known->find(key); found != known->end()) return found->second;
  RAILCCL_TRY(const topology::Facts facts, topology::detect(settings));
  return (*known)[key] = topology::encode(facts);
}

/// The NIC that the topology gives a rank; empty when there is none.
std::string nic_name(const Topology& topology, int rank) {
  const int nic = topology.rank(rank).nic;
  return nic < 0 ? std::string() : topology.host_of(rank).nics[static_cast<size_t>(nic)].name;
}

/// Names of this rank's NIC first, for transports that can choose.
std::vector<std::string> preferred_interfaces(const Topology* known, int rank) {
  if (known == nullptr || known->rank(rank).nic < 0) return {};
  return {nic_name(*known, rank)};
}

/// The transport that NCCL_NET asks for between hosts; empty: any.
std::string_view wanted_network(const Settings& settings) {
  if (settings.net.empty()) return "";
  if (strcasecmp(settings.net.c_str(), "Socket") == 0) return "tcp";
  if (strcasecmp(settings.net.c_str(), "UCX") == 0) return "ucx";
  return strcasecmp(settings.net.c_str(), "IB") == 0 ? "verbs" : "nccl_net";
}

/// Fails when the network is not there that NCCL_NET asks for.
Result<std::vector<std::unique_ptr<Transport>>> make_transports(const transport::Context& context) {
  std::vector<const transport::TransportKind*> kinds = transport::all();
  std::stable_sort(kinds.begin(), kinds.end(),
                   [](const auto* a, const auto* b) { return a->priority > b->priority; });
  std::vector<std::unique_ptr<Transport>> media;
  const std::string_view network = wanted_network(context.settings);
  if (!network.empty() && std::none_of(kinds.begin(), kinds.end(),
                                       [&](const auto* kind) { return network == kind->name; }))
    return Status(Code::unsupported, "NCCL_NET={}: this railccl was built without it",
                  context.settings.net);
  for (const transport::TransportKind* kind : kinds) {
    const std::string_view name = kind->name;
    if (name == "shm" && context.settings.shm_disable) continue;
    if (!network.empty() && name != network && name != "self" && name != "shm") continue;
    Status usable = kind->usable(context);
    if (usable.is_ok()) {
      auto made = kind->create(context);
      if (made.is_ok()) {
        media.push_back(std::move(made).value());
        continue;
      }
      usable = made.status();
    }
    if (name == network)
      return usable.context("NCCL_NET={}: there is no such network here", context.settings.net);
    log::info("rank {}: no {} transport here: {}", context.rank, kind->name, usable.text());
  }
  return media;
}

/// The first disagreement between rank 0's settings and another's.
Status compare(const std::vector<Card>& cards) {
  for (size_t r = 0; r < cards.size(); r++)
    if (!cards[r].failure.empty())
      return Status(Code::remote, Scope::communicator, "rank {} cannot take part: {}", r,
                    cards[r].failure);
  for (size_t r = 1; r < cards.size(); r++) {
    if (cards[r].settings.size() != cards[0].settings.size())
      return Status(Code::mismatch, Scope::communicator, "rank {} has {}, but rank 0 has {}", r,
                    cards[r].settings.empty() ? "no settings" : cards[r].settings[0],
                    cards[0].settings[0]);
    for (size_t s = 0; s < cards[0].settings.size(); s++)
      if (cards[r].settings[s] != cards[0].settings[s])
        return Status(Code::mismatch, Scope::communicator,
                      "the ranks' settings differ: rank 0 has {}, but rank {} has {}",
                      cards[0].settings[s], r, cards[r].settings[s]);
  }
  return ok();
}

/// What was agreed on before the media meet: of a topology file, or of what the hosts are and what
/// a probe of their NICs finds. The exchanges for that are the same on all ranks.
Result<Topology> merged_topology(const Settings& settings, const std::vector<Card>& cards,
                                 Meeting* meeting) {
  if (!settings.topo_file.empty()) {
    RAILCCL_TRY(Topology topology, topology::load_topology(settings.topo_file));
    if (topology.size() != static_cast<int>(cards.size()))
      return Status(Code::invalid_argument, "RAILCCL_TOPO_FILE={} describes {} ranks, not {}",
                    settings.topo_file, topology.size(), cards.size());
    return topology;
  }
  std::map<uint64_t, size_t> describers;                // host id -> its lowest rank
  std::map<std::pair<size_t, std::string>, int> nodes;  // of a describer's host, by CPUs
  std::vector<topology::Facts> facts;
  for (size_t r = 0; r < cards.size(); r++) {
    const Card& card = cards[r];
    const auto [describer, first] = describers.emplace(card.host_id, r);
    topology::Facts own;
    if (first) {
      auto decoded = topology::decode(card.facts);
      if (!decoded.is_ok()) return decoded.status().context("facts of rank {}", r);
      own = std::move(decoded).value();
    }
    own.host.id = card.host_id;
    own.process = card.process;
    own.cpus = card.place.cpus;
    own.cache = card.place.cache;
    facts.push_back(std::move(own));
    const auto [node, unknown] = nodes.emplace(std::pair(describer->second, card.place.cpus), -1);
    if (unknown) node->second = topology::numa_of(facts[describer->second].host, card.place.cpus);
    facts.back().numa = node->second;
  }
  RailSearch search;
  search.rank = meeting->rank();
  search.job = meeting->job();
  search.exchange = [meeting](const std::string& mine) { return meeting->all_gather(mine); };
  std::vector<topology::Host*> hosts;
  for (const size_t r : topology::describers_of(facts)) {
    search.probers.push_back(static_cast<int>(r));
    search.hosts.push_back(facts[r].host);
    hosts.push_back(&facts[r].host);
  }
  RAILCCL_TRY(const std::optional<topology::Discovery> found, find_rails(settings, search));
  if (!found) return topology::merge(facts);
  topology::mark_rails(*found, hosts);
  return topology::merge(facts, found->oversubscription);
}

/// Why each rail was formed, once.
void tell_rails(const Topology& topology) {
  for (size_t r = 0; r < topology.rails().size(); r++)
    log::info("rail {}: {}", r, topology.rails()[r].reason);
}

/// Is `rank` the one that measures its host? Nobody does where a rank is alone on its host: what
/// happens inside the host is then no matter of choice.
bool measures(const Topology& topology, int rank) {
  const std::vector<int>& neighbours = topology.ranks_of_host(topology.rank(rank).host);
  return neighbours.size() > 1 && neighbours.front() == rank;
}

/// The speeds of this rank's host as text; empty when they are not known. That they could not be
/// measured costs speed, not the communicator.
std::string speeds_text(const Settings& settings, const Topology& topology, int rank) {
  const auto found = host_speeds(settings, topology.host_of(rank).last_level_cache_bytes);
  if (!found.is_ok()) log::warn("rank {}: no measured speeds: {}", rank, found.status().text());
  if (!found.is_ok() || !found->speeds.known()) return {};
  log::info("rank {}: speeds of {}: {}", rank, topology.host_of(rank).name, found->source);
  return topology::speeds_to_text(found->speeds);
}

/// Do all ranks that the topology has on one host share memory, seen from this rank?
bool shares_memory(const Topology& topology, const Wires& wires) {
  for (int peer = 0; peer < topology.size(); peer++)
    if (peer != wires.rank() && topology.path(wires.rank(), peer).same_host &&
        !wires.load_store(peer))
      return false;
  return true;
}

/// Keeps the media that every rank has, and lays out their addresses as Wires wants them.
void keep_common(const std::vector<Card>& cards, std::vector<std::unique_ptr<Transport>>* media,
                 std::vector<std::vector<transport::Address>>* addresses) {
  std::vector<std::unique_ptr<Transport>> kept;
  for (auto& medium : *media) {
    std::vector<transport::Address> of_all;
    for (const Card& card : cards)
      for (const Medium& theirs : card.media)
        if (theirs.name == medium->name()) of_all.push_back(theirs.address);
    if (of_all.size() != cards.size()) continue;
    kept.push_back(std::move(medium));
    addresses->push_back(std::move(of_all));
  }
  *media = std::move(kept);
}

/// The tuner that the settings mean; null: none, as usual.
std::unique_ptr<Tuner> find_tuner(const Settings& settings, int rank) {
  auto found = Tuner::find(settings);
  if (found.is_ok()) return std::move(found).value();
  log::info("rank {}: no tuner: {}", rank, found.status().text());
  return nullptr;
}

/// Begins with the tuner when all ranks have the same one. Where one has not, or where it fails,
/// ranks choose by themselves, all of them.
std::unique_ptr<Tuner> begin_tuner(std::unique_ptr<Tuner> tuner, const std::vector<Card>& cards,
                                   const Topology& topology, uint64_t job) {
  if (tuner == nullptr) return nullptr;
  for (size_t r = 0; r < cards.size(); r++) {
    if (cards[r].tuner == tuner->text()) continue;
    log::warn("tuner {} is not asked: rank {} has {}", tuner->text(), r,
              cards[r].tuner.empty() ? "none" : cards[r].tuner);
    return nullptr;
  }
  const Status begun = tuner->begin(job, topology);
  if (begun.is_ok()) return tuner;
  log::warn("{}; ranks choose by themselves", begun.text());
  return nullptr;
}

}  // namespace

Result<Parts> establish(std::unique_ptr<Meeting> meeting, const Config& config,
                        const Settings& settings, const Topology* known,
                        std::function<void()> on_failure) {
  const int rank = meeting->rank(), ranks = meeting->ranks();
  Parts parts;
  parts.job = meeting->job();

  transport::Context context;
  context.bulk_copy = [](void* to, const void* from, size_t bytes) {
    kernels::copy(to, from, bytes, kernels::Store::streaming);
  };
  context.rank = rank;
  context.ranks = ranks;
  context.job = parts.job;
  context.host_id = railccl::host_id(settings);
  context.process = process_id();
  context.interfaces = preferred_interfaces(known, rank);
  context.settings = settings;

  Card mine;
  mine.settings = agreed_settings(settings, config);
  mine.host_id = context.host_id;
  mine.process = context.process;
  mine.pid = static_cast<uint64_t>(::getpid());
  RAILCCL_TRY(auto door, Meeting::open_listener(settings));
  parts.door = std::move(door.first);
  mine.door = std::move(door.second);
  mine.place = topology::own_place();
  if (meeting->first_of_host() && settings.topo_file.empty()) {
    auto facts = facts_text(settings);
    if (facts.is_ok()) {
      mine.facts = std::move(facts).value();
    } else {
      mine.failure = facts.status().text();
    }
  }
  for (const Status& status : {check_measure_setting(settings), check_probe_setting(settings)})
    if (!status.is_ok()) mine.failure = status.text();
  std::vector<std::unique_ptr<Transport>> media;
  if (auto made = make_transports(context); made.is_ok()) {
    media = std::move(made).value();
  } else {
    mine.failure = made.status().text();
  }
  for (const auto& medium : media) mine.media.push_back({medium->name(), medium->address()});

  std::unique_ptr<Tuner> tuner = ranks > 1 ? find_tuner(settings, rank) : nullptr;
  if (tuner != nullptr) mine.tuner = tuner->text();

  RAILCCL_TRY(const std::vector<std::string> texts, meeting->all_gather(encode(mine)));
  std::vector<Card> cards(texts.size());
  for (size_t r = 0; r < texts.size(); r++)
    if (!decode(texts[r], &cards[r]))
      return Status(Code::remote, Scope::communicator, "rank {} sent an unreadable card", r);
  RAILCCL_CHECK(compare(cards));  // the same on all ranks

  // From here on a failure may be this rank's alone: it goes into the second exchange.
  Status status;
  bool sharing = false;
  std::string speeds;
  if (known != nullptr) {
    parts.topology = *known;
  } else if (auto merged = merged_topology(settings, cards, meeting.get()); merged.is_ok()) {
    parts.topology = std::move(merged).value();
    if (rank == 0) tell_rails(parts.topology);
  } else {
    status = merged.status();
    // The meeting itself broke: there is nobody to tell.
    if (status.scope() == Scope::communicator) return status;
  }
  if (status.is_ok()) {
    std::vector<std::vector<transport::Address>> addresses;
    keep_common(cards, &media, &addresses);
    std::vector<uint64_t> host_ids, processes;
    for (const Card& card : cards) {
      host_ids.push_back(card.host_id);
      processes.push_back(card.process);
    }
    parts.wires = std::make_unique<Wires>(rank, ranks, std::move(media));
    std::vector<std::string> nics;
    for (int r = 0; r < ranks; r++) nics.push_back(nic_name(parts.topology, r));
    const auto rail_of = [&](int r, const std::string& name) {
      for (const topology::Nic& nic : parts.topology.host_of(r).nics)
        if (nic.name == name || nic.rdma == name) return nic.rail;
      return -1;
    };
    status = parts.wires->set_peers(addresses, host_ids, processes, nics, rail_of);
    if (status.is_ok()) sharing = shares_memory(parts.topology, *parts.wires);
    if (status.is_ok()) tuner = begin_tuner(std::move(tuner), cards, parts.topology, parts.job);
    // A topology that was written down or handed over is complete.
    if (status.is_ok() && known == nullptr && settings.topo_file.empty() &&
        measures(parts.topology, rank))
      speeds = speeds_text(settings, parts.topology, rank);
  }
  Packer opinion;
  opinion.add(uint64_t{sharing}).add(uint64_t{tuner != nullptr});
  opinion.add(status.is_ok() ? std::string() : status.text()).add(speeds);
  RAILCCL_TRY(const std::vector<std::string> opinions,
              meeting->all_gather(std::move(opinion).take()));
  std::vector<topology::Speeds> of_hosts(parts.topology.hosts().size());
  for (size_t r = 0; r < opinions.size(); r++) {
    uint64_t shares = 0, tunes = 0;
    std::string failure, measured;
    Unpacker unpacker(opinions[r]);
    if (!unpacker.get(&shares) || !unpacker.get(&tunes) || !unpacker.get(&failure) ||
        !unpacker.get(&measured))
      return Status(Code::remote, Scope::communicator, "rank {} sent an unreadable opinion", r);
    if (!failure.empty() && static_cast<int>(r) != rank)
      return Status(Code::remote, Scope::communicator, "rank {} cannot take part: {}", r, failure);
    if (!failure.empty()) return status;
    sharing = sharing && shares != 0;
    if (tunes == 0 && tuner != nullptr) {
      log::warn("tuner {} is not asked: it fails on rank {}", tuner->text(), r);
      tuner.reset();
    }
    if (measured.empty()) continue;
    auto theirs = topology::speeds_from_text(measured);
    if (!theirs.is_ok()) return theirs.status().context("speeds from rank {}", r);
    const int host = parts.topology.rank(static_cast<int>(r)).host;
    of_hosts[static_cast<size_t>(host)] = *theirs;
  }
  parts.topology = parts.topology.with_speeds(of_hosts);
  for (size_t r = 0; r < cards.size(); r++) {
    parts.doors.push_back(cards[r].door);
    parts.processes.push_back(cards[r].pid);
    parts.who.push_back(fmt::format(
        "rank {} ({}, pid {})", r, parts.topology.host_of(static_cast<int>(r)).name, cards[r].pid));
  }
  if (tuner != nullptr)
    log::info("rank {}: asks tuner {} of {}", rank, tuner->text(), tuner->file());
  RAILCCL_TRY(Chooser chooser, Chooser::make(settings, config.min_channels, config.max_channels,
                                             sharing, std::move(tuner)));
  parts.chooser = std::make_unique<Chooser>(std::move(chooser));
  RAILCCL_TRY(parts.control, Control::start(std::move(meeting), settings, std::move(on_failure)));
  return parts;
}

}  // namespace railccl::runtime
