// Rendezvous: ids, joining, and the exchange along the tree; see rendezvous.h.
//
//   rank ---- hello (nonce, rank, ranks, host, address) --> root
//   rank <--- reply (job, address of tree parent, ...) ---- root     when all have come
//   rank ---- knock (job, rank) --------------------------> tree parent
//
// Then contributions travel up the tree, merged on the way, and the full set travels down. A rank
// that has a job and everyone's addresses already (split) starts with the knock.
#include "runtime/rendezvous.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/host_id.h"
#include "base/log.h"
#include "base/random.h"
#include "runtime/rank_list.h"
#include "runtime/rendezvous_root.h"
#include "runtime/rendezvous_wire.h"
#include "runtime/sockets.h"

namespace railccl::runtime {
namespace {

constexpr size_t kAddressBytesMax = 512;
// Refused connections to a listener that once was there do not get better with time.
constexpr int64_t kRefusedMs = 2000;
constexpr int64_t kLookUpMs = 10000;

Identity at_place(const std::string& host, uint16_t port, const std::string& secret) {
  Identity identity;
  identity.server = Identity::Server::rank_zero;
  const bool six = host.find(':') != std::string::npos;
  identity.place = fmt::format("{}{}{}:{}", six ? "[" : "", host, six ? "]" : "", port);
  const std::string seed = fmt::format("{}\n{}", identity.place, secret);
  for (uint64_t half = 0; half < 2; half++) {
    const uint64_t hash = hash_bytes(seed.data(), seed.size(), half + 1);
    std::memcpy(identity.nonce.data() + half * sizeof hash, &hash, sizeof hash);
  }
  return identity;
}

/// The port may still belong to an earlier meeting at the same place that is just ending.
Result<UniqueFd> listen_patiently(uint16_t port, const Settings& settings,
                                  const WaitLimit& wait_limit) {
  for (bool told = false; true; told = true) {
    auto listener = listen_on(port, settings);
    if (listener.is_ok()) return listener;
    if (!told) log::info("rank 0 waits for port {}: {}", port, listener.status().text());
    const Status waited = wait_limit.sleep_ms(20);
    if (!waited.is_ok()) return listener.status();
  }
}

Result<std::vector<Endpoint>> endpoints_of(const Identity& identity, int rank,
                                           const Settings& settings, const WaitLimit& wait_limit) {
  if (identity.server == Identity::Server::maker) return parse_endpoints(identity.place);
  RAILCCL_TRY(const auto place, split_host_port(identity.place));
  if (rank == 0) {  // serves itself, whatever the host's name means here
    return parse_endpoints(fmt::format("127.0.0.1:{0},[::1]:{0}", place.second));
  }
  const WaitLimit looking = wait_limit.at_most_ms(kLookUpMs);
  while (true) {  // names of freshly started containers appear late
    auto endpoints = resolve(place.first, place.second, settings);
    if (endpoints.is_ok()) return endpoints;
    if (!looking.sleep_ms(200).is_ok()) return endpoints.status();
  }
}

/// Connects to one of `endpoints`, trying all in turn.
Result<UniqueFd> reach(const std::vector<Endpoint>& endpoints, bool listens_already,
                       const WaitLimit& wait_limit) {
  int pause_ms = 2;
  const Deadline hopeless = Deadline::after_ms(kRefusedMs);
  for (int64_t attempt_ms = 500;; attempt_ms *= 2) {
    Status last;
    bool all_refused = true;
    for (const Endpoint& endpoint : endpoints) {
      auto socket =
          connect_to(endpoint, wait_limit.at_most_ms(std::min<int64_t>(attempt_ms, 8000)));
      if (socket.is_ok()) return socket;
      last = socket.status();
      all_refused = all_refused && last.code() == Code::system;
      if (const Status patient = wait_limit.check(); !patient.is_ok())
        return patient.code() == Code::aborted ? patient : last;
    }
    if (listens_already && all_refused && hopeless.passed()) return last;
    const Status waited = wait_limit.sleep_ms(pause_ms);
    if (!waited.is_ok()) return waited.code() == Code::aborted ? waited : last;
    pause_ms = std::min(2 * pause_ms, 200);
  }
}

/// Hello and reply; again from the start when the connection ends without an answer, which is what
/// a place in the backlog of a meeting that just ended looks like.
Result<Reply> ask_root(const Identity& identity, const Hello& hello, const Settings& settings,
                       const WaitLimit& wait_limit, Traffic* traffic) {
  RAILCCL_TRY(const std::vector<Endpoint> endpoints,
              endpoints_of(identity, hello.rank, settings, wait_limit));
  const bool listens_already = identity.server == Identity::Server::maker;
  // The root's deadline is this rank's or earlier, and its answer names the missing ranks: so the
  // wait for the answer is a little longer.
  const WaitLimit waiting{Deadline::after_ms(hello.timeout_ms + 2000), wait_limit.cancel};
  while (true) {
    auto socket = reach(endpoints, listens_already, wait_limit);
    if (!socket.is_ok()) {
      if (socket.status().code() == Code::aborted) return socket.status();
      return Status(socket.status().code() == Code::timeout ? Code::timeout : Code::remote,
                    Scope::communicator, "rendezvous: rank {} finds nobody at {} ({}): {}",
                    hello.rank, identity.place, socket.status().text(),
                    listens_already ? "the process that made the unique id has ended, or all "
                                      "ranks of that id have met already"
                                    : "has rank 0 been started?");
    }
    auto answer = send_frame(*socket, encode(hello), waiting).is_ok()
                      ? receive_frame(*socket, kReplyBytesMax, waiting)
                      : Result<std::string>(Status(Code::remote, "the connection broke"));
    traffic->sent++;
    if (answer.is_ok()) {
      traffic->received++;
      RAILCCL_TRY(Reply reply, parse_reply(*answer));
      RAILCCL_CHECK(reply.refusal);
      return reply;
    }
    if (answer.status().code() == Code::aborted) return answer.status();
    if (wait_limit.deadline.passed() || answer.status().code() == Code::timeout)
      return Status(Code::timeout, Scope::communicator,
                    "rendezvous: rank {} of {} got no answer from {} in {} ms: {}", hello.rank,
                    hello.ranks, identity.place, hello.timeout_ms, answer.status().text());
    RAILCCL_CHECK(wait_limit.sleep_ms(20));
  }
}

/// Opens the edges of the tree: to the parent, and from the children.
Result<std::vector<Neighbour>> build_tree(uint64_t job, int rank, int ranks,
                                          const std::string& parent_address, UniqueFd listener,
                                          const WaitLimit& wait_limit, Traffic* traffic) {
  std::vector<Neighbour> neighbours;
  if (const int parent = tree_parent(rank); parent >= 0) {
    RAILCCL_TRY(const std::vector<Endpoint> endpoints, parse_endpoints(parent_address));
    auto socket = reach(endpoints, true, wait_limit);
    if (!socket.is_ok())
      return Status(socket.status().code() == Code::aborted ? Code::aborted : Code::remote,
                    Scope::communicator, "rendezvous: rank {} cannot reach rank {} at {}: {}", rank,
                    parent, parent_address, socket.status().text());
    RAILCCL_CHECK(send_frame(*socket, encode(Knock{job, rank}), wait_limit)
                      .context("rendezvous: rank {} to rank {}", rank, parent));
    traffic->sent++;
    neighbours.push_back({parent, std::move(socket).value()});
  }
  std::vector<int> missing = tree_children(rank, ranks);
  Gate::Limits limits;
  limits.visitors_max = 64;
  Gate gate(std::move(listener), limits);
  while (!missing.empty()) {
    const Status patient = wait_limit.check();
    if (patient.code() == Code::aborted) return patient;
    if (!patient.is_ok())
      return Status(Code::timeout, Scope::communicator,
                    "rendezvous: {} did not connect to rank {} in time", rank_list(missing), rank);
    std::vector<Gate::Guest> guests;
    RAILCCL_CHECK(gate.poll(wait_limit.deadline.left_ms(50), &guests));
    for (Gate::Guest& guest : guests) {
      const auto knock = parse_knock(guest.frame);
      if (!knock.is_ok() || knock->job != job) continue;  // a stranger
      if (std::erase(missing, knock->rank) == 0) continue;
      traffic->received++;
      neighbours.push_back({knock->rank, std::move(guest.socket)});
    }
  }
  return neighbours;
}

/// Stops a root that this rank started, unless the meeting came about.
class RootKeeper {
 public:
  Status start(UniqueFd listener, const Nonce& nonce) {
    stop_ = std::make_shared<std::atomic<bool>>(false);
    return start_root(std::move(listener), nonce, stop_);
  }
  void done() { stop_.reset(); }
  ~RootKeeper() {
    if (stop_ != nullptr) stop_->store(true, std::memory_order_relaxed);
  }

 private:
  std::shared_ptr<std::atomic<bool>> stop_;
};

}  // namespace

Result<UniqueId> make_unique_id(const Settings& settings) {
  if (!settings.comm_id.empty()) {
    auto place = split_host_port(settings.comm_id);
    if (!place.is_ok()) return place.status().context("NCCL_COMM_ID");
    return unique_id_at(place->first, place->second, "");
  }
  Identity identity;
  if (!secret_bytes(identity.nonce.data(), identity.nonce.size()))
    return system_error(errno, "cannot make a nonce");
  RAILCCL_TRY(UniqueFd listener, listen_on(0, settings));
  RAILCCL_TRY(const uint16_t port, port_of(listener));
  RAILCCL_TRY(identity.place, published(port, settings, kPlaceBytesMax));
  RAILCCL_CHECK(start_root(std::move(listener), identity.nonce,
                           std::make_shared<const std::atomic<bool>>(false)));
  return encode(identity);
}

Result<UniqueId> unique_id_at(const std::string& host, uint16_t port, const std::string& secret) {
  if (host.empty() || port == 0)
    return Status(Code::invalid_argument,
                  "a meeting point needs a host and a port from 1 to 65535");
  const Identity identity = at_place(host, port, secret);
  if (identity.place.size() > kPlaceBytesMax)
    return Status(Code::invalid_argument, "host name \"{}\" is longer than a unique id can hold",
                  host);
  return encode(identity);
}

Result<std::unique_ptr<Meeting>> Meeting::join(const UniqueId& id, int rank, int ranks,
                                               const Settings& settings,
                                               const std::atomic<bool>* cancel) {
  if (ranks < 1 || ranks > kRanksMax || rank < 0 || rank >= ranks)
    return Status(Code::invalid_argument, "rank {} of {} ranks: must be from 0 to ranks - 1", rank,
                  ranks);
  RAILCCL_TRY(const Identity identity, parse_identity(id));
  const WaitLimit wait_limit{Deadline::after_ms(settings.init_timeout_ms), cancel};

  RootKeeper keeper;
  if (identity.server == Identity::Server::rank_zero && rank == 0) {
    RAILCCL_TRY(const auto place, split_host_port(identity.place));
    RAILCCL_TRY(UniqueFd door, listen_patiently(place.second, settings, wait_limit));
    RAILCCL_CHECK(keeper.start(std::move(door), identity.nonce));
  }
  RAILCCL_TRY(auto own, open_listener(settings));
  Hello hello;
  hello.nonce = identity.nonce;
  hello.rank = rank;
  hello.ranks = ranks;
  hello.timeout_ms = settings.init_timeout_ms;
  hello.host = host_id(settings);
  hello.address = own.second;
  std::unique_ptr<Meeting> meeting(new Meeting);
  RAILCCL_TRY(const Reply reply,
              ask_root(identity, hello, settings, wait_limit, &meeting->traffic_));
  keeper.done();  // the others get their answers even if this rank fails from here on

  meeting->rank_ = rank;
  meeting->ranks_ = ranks;
  meeting->job_ = reply.job;
  meeting->first_of_host_ = reply.first_of_host;
  meeting->parent_ = tree_parent(rank);
  meeting->timeout_ms_ = settings.init_timeout_ms;
  meeting->cancel_ = cancel;
  RAILCCL_TRY(meeting->neighbours_,
              build_tree(reply.job, rank, ranks, reply.parent, std::move(own.first), wait_limit,
                         &meeting->traffic_));
  log::info("rendezvous: rank {} of {} has met the others", rank, ranks);
  return meeting;
}

Result<std::unique_ptr<Meeting>> Meeting::join_known(uint64_t job, int rank,
                                                     const std::vector<std::string>& addresses,
                                                     UniqueFd listener, const Settings& settings,
                                                     const std::atomic<bool>* cancel) {
  std::unique_ptr<Meeting> meeting(new Meeting);
  meeting->rank_ = rank;
  meeting->ranks_ = static_cast<int>(addresses.size());
  meeting->job_ = job;
  meeting->parent_ = tree_parent(rank);
  meeting->timeout_ms_ = settings.init_timeout_ms;
  meeting->cancel_ = cancel;
  const std::string parent_address =
      rank == 0 ? "" : addresses[static_cast<size_t>(meeting->parent_)];
  RAILCCL_TRY(
      meeting->neighbours_,
      build_tree(job, rank, meeting->ranks_, parent_address, std::move(listener),
                 {Deadline::after_ms(settings.init_timeout_ms), cancel}, &meeting->traffic_));
  return meeting;
}

Result<std::pair<UniqueFd, std::string>> Meeting::open_listener(const Settings& settings) {
  RAILCCL_TRY(UniqueFd listener, listen_on(0, settings));
  RAILCCL_TRY(const uint16_t port, port_of(listener));
  RAILCCL_TRY(std::string address, published(port, settings, kAddressBytesMax));
  return std::make_pair(std::move(listener), std::move(address));
}

Result<std::vector<std::string>> Meeting::all_gather(const std::string& mine) {
  if (mine.size() > kContributionBytesMax)
    return Status(Code::invalid_argument, "{} bytes to exchange; at most {} are allowed",
                  mine.size(), kContributionBytesMax);
  const WaitLimit wait_limit{Deadline::after_ms(timeout_ms_), cancel_};
  const uint64_t bytes_max = contributions_bytes_max(ranks_);
  const auto blame = [&](const Status& status, int neighbour) {
    return status.widen(Scope::communicator)
        .context("rendezvous: rank {} exchanging with rank {}", rank_, neighbour);
  };

  Contributions all(static_cast<size_t>(ranks_));
  all[static_cast<size_t>(rank_)] = mine;
  for (const Neighbour& child : neighbours_) {
    if (child.rank == parent_) continue;
    auto frame = receive_frame(child.socket, bytes_max, wait_limit);
    if (!frame.is_ok()) return blame(frame.status(), child.rank);
    traffic_.received++;
    if (const Status parsed = parse_contributions(*frame, &all); !parsed.is_ok())
      return blame(parsed, child.rank);
  }
  std::string table = encode(all);
  if (parent_ >= 0) {
    const Neighbour& parent = neighbours_.front();
    if (const Status sent = send_frame(parent.socket, table, wait_limit); !sent.is_ok())
      return blame(sent, parent.rank);
    auto frame = receive_frame(parent.socket, bytes_max, wait_limit);
    if (!frame.is_ok()) return blame(frame.status(), parent.rank);
    traffic_.sent++;
    traffic_.received++;
    table = std::move(frame).value();
    all.assign(static_cast<size_t>(ranks_), std::nullopt);
    if (const Status parsed = parse_contributions(table, &all); !parsed.is_ok())
      return blame(parsed, parent.rank);
  }
  for (const Neighbour& child : neighbours_) {
    if (child.rank == parent_) continue;
    if (const Status sent = send_frame(child.socket, table, wait_limit); !sent.is_ok())
      return blame(sent, child.rank);
    traffic_.sent++;
  }
  std::vector<std::string> texts;
  for (int rank = 0; rank < ranks_; rank++) {
    std::optional<std::string>& one = all[static_cast<size_t>(rank)];
    if (!one)
      return Status(Code::internal, Scope::communicator, "rendezvous: rank {}'s bytes got lost",
                    rank);
    texts.push_back(std::move(*one));
  }
  return texts;
}

std::vector<Neighbour> Meeting::take_neighbours() { return std::move(neighbours_); }

}  // namespace railccl::runtime
