// Making connections: dialling and dialling again, strangers, greetings, proof.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "base/clock.h"
#include "transport/path_transport.h"

namespace railccl::transport {
namespace {

constexpr int64_t kStrangerMs = 5000;  // for a hello, from the moment a connection is accepted
constexpr int kStrangersMax = 256;
constexpr int64_t kRedialConnectMs = 300;  // for the connection, not for the answer to our hello
// From the exchange of cards on: for a first connection, and for one more.
constexpr int64_t kProofMs = 20'000, kReproofMs = 1'000;
// Who hangs up may have sent what proves the path, and more, before that.
constexpr int64_t kLeavingMs = 50;

/// Sends a greeting with a card behind it, as send() does: all at once, for a new connection has
/// room for so much.
ssize_t say(int socket, std::span<const std::byte> greeting, std::span<const std::byte> card) {
  std::vector<std::byte> words(greeting.begin(), greeting.end());
  words.insert(words.end(), card.begin(), card.end());
  return send(socket, words.data(), words.size(), MSG_NOSIGNAL);
}

bool hung_up(int socket) {
  std::byte byte;
  const ssize_t got = recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR);
}

}  // namespace

void PathTransport::dial(Line& line) {
  TcpLink& link = *line.link;
  const MetPlaces& address = *peers_[static_cast<size_t>(link.peer())];
  const bool same_host = host_ids_[static_cast<size_t>(link.peer())] == context_.host_id;
  line.paths = maker_->pairs(endpoints_, address.endpoints, same_host);
  if (line.paths.empty())
    return link.fail("no address of it can be reached from ours", Code::unsupported);
  line.paths.resize(std::min<size_t>(line.paths.size(), kTcpLanesMax / sockets_));
  const int lanes = static_cast<int>(line.paths.size()) * sockets_;
  link.set_lanes(lanes);
  link.set_detail(maker_->describe(line.paths[0], address.control.port));
  line.redials.resize(static_cast<size_t>(lanes));
  several_paths_ |= lanes > 1;
  Status first;
  bool any = false;
  for (int lane = 0; lane < lanes; lane++) {
    link.expect(lane, line.paths[static_cast<size_t>(lane / sockets_)].from.interface);
    const Status status = dial_lane(line, lane, false);
    any |= status.is_ok();
    if (first.is_ok()) first = status;
  }
  // One that could not begin is tried again.
  if (!any && !fall_back(line, first.text())) link.fail(first.text(), Code::system);
}

// Where no path of the maker's kind comes about, the connections themselves are the paths, if it
// can make do with them. False when it cannot, or when they cannot begin either.
bool PathTransport::fall_back(Line& line, const std::string& why) {
  if (line.plain || !maker_->plain()) return false;
  line.plain = true;
  const int peer = line.link->peer();
  if (plain_peers_.insert(peer).second)
    log::warn("{}: rank {}: no path to rank {}: {}; its bytes go by TCP instead", name(),
              context_.rank, peer, why);
  for (size_t i = 0; i < watched_.size(); i++)
    if (watched_[i].kind == Watched::Kind::dial && watched_[i].link == line.link.get()) drop(i);
  bool any = false;
  for (size_t lane = 0; lane < line.redials.size(); lane++) {
    line.redials[lane] = Line::Redial();
    any |= dial_lane(line, static_cast<int>(lane), false).is_ok();
  }
  return any;
}

// The path itself where a connection can be made by it, else any.
std::optional<TcpPath> PathTransport::control_path(const TcpPath& path, const MetPlaces& peer,
                                                   bool same_host) const {
  const auto among = [](const TcpEndpoint& wanted, const std::vector<TcpEndpoint>& places) {
    return std::any_of(places.begin(), places.end(), [&](const TcpEndpoint& place) {
      return text_of(place.address.address) == text_of(wanted.address.address);
    });
  };
  if (among(path.from, control_) && among(path.to, peer.control.endpoints)) return path;
  return tcp_path(control_, peer.control.endpoints, same_host);
}

// Begins a connection. When that fails at once, a lane beyond the first pair of interfaces is tried
// again later.
Status PathTransport::dial_lane(Line& line, int lane, bool anew) {
  const TcpLink& link = *line.link;
  const MetPlaces& address = *peers_[static_cast<size_t>(link.peer())];
  const TcpPath& path = line.paths[static_cast<size_t>(lane / sockets_)];
  Line::Redial& redial = line.redials[static_cast<size_t>(lane)];
  redial.next_ns = now_ns() + redial.pause_ns;
  redial.pause_ns = std::min(2 * redial.pause_ns, kRedialNsMax);
  const bool same_host = host_ids_[static_cast<size_t>(link.peer())] == context_.host_id;
  const std::optional<TcpPath> control = control_path(path, address, same_host);
  if (!control) return Status(Code::unsupported, "no address of it can be reached from ours");
  std::unique_ptr<PathStart> start;
  if (line.plain) {
    start = maker_->plain();
  } else {
    RAILCCL_TRY(start, maker_->start(path));
  }
  RAILCCL_TRY(UniqueFd socket,
              tcp_connect(*control, address.control.port, context_.settings.timeout_ms));
  const size_t index = new_entry(Watched::Kind::dial);
  Watched& entry = watched_[index];
  entry.socket = std::move(socket);
  entry.start = std::move(start);
  entry.link = line.link.get();
  entry.anew = anew;
  entry.hello = {.job = context_.job,
                 .from = static_cast<uint32_t>(context_.rank),
                 .to = static_cast<uint32_t>(link.peer()),
                 .channel = static_cast<uint32_t>(link.channel()),
                 .lane = static_cast<uint16_t>(lane),
                 .lanes = static_cast<uint16_t>(link.lanes()),
                 .sockets = static_cast<uint8_t>(sockets_),
                 .home = lane < sockets_ || nics_.home(path.from.interface)};
  entry.deadline_ns =
      now_ns() + 1'000'000 * (anew ? kRedialConnectMs : context_.settings.init_timeout_ms);
  redial.dialling = true;
  Status status = watch(entry.socket.get(), index);
  if (!status.is_ok()) {
    redial.dialling = false;
    drop(index);
  }
  return status;
}

// A connection did not come about. The link ends with it where it was the last hope, or where
// nobody listens any more; else the lane is tried again.
void PathTransport::dial_failed(size_t index, const std::string& why, Code code) {
  Watched& entry = watched_[index];
  TcpLink* const link = entry.link;
  const int lane = entry.hello.lane;
  const bool gone = entry.anew && code == Code::remote;
  const bool met = entry.met;  // somebody is there, but the path itself is not
  drop(index);
  Line& line = line_of(*link);
  line.redials[static_cast<size_t>(lane)].dialling = false;
  line.redials[static_cast<size_t>(lane)].hopeless |= met;
  const bool hope =
      link->ever_connected() ||
      std::any_of(line.redials.begin(), line.redials.end(),
                  [](const Line::Redial& redial) { return redial.dialling && !redial.hopeless; });
  if (!gone && !hope && met && fall_back(line, why)) return;
  if (gone || !hope) link->fail(why, code);
}

void PathTransport::accept_all() {
  accept_later_ = false;
  while (true) {
    Result<UniqueFd> socket = tcp_accept(listener_.socket.get(), context_.settings.timeout_ms);
    if (!socket.is_ok()) {
      // Out of descriptors: the connection stays in the queue, we come back to it.
      complain(socket.status().text());
      accept_later_ = true;
      return;
    }
    if (!*socket) return;
    // A crowd of strangers pushes out its own oldest; ranks say hello at once.
    if (strangers_.size() >= kStrangersMax) drop(strangers_.front());
    const size_t index = new_entry(Watched::Kind::stranger);
    strangers_.push_back(index);
    watched_[index].socket = std::move(*socket);
    watched_[index].deadline_ns = now_ns() + kStrangerMs * 1'000'000;
    if (Status status = watch(watched_[index].socket.get(), index); !status.is_ok()) {
      complain(status.text());
      drop(index);
    }
  }
}

// Reads up to `bytes` of greeting; true when they are complete. Not one byte more: what follows
// belongs to the stream. On error or end the entry is marked by an impossible length.
bool PathTransport::hear(Watched* entry, size_t bytes) {
  entry->heard.resize(bytes);
  while (entry->heard_bytes < bytes) {
    const ssize_t got = recv(entry->socket.get(), entry->heard.data() + entry->heard_bytes,
                             bytes - entry->heard_bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) {
      entry->heard_bytes = ~size_t{0};
      return false;
    }
    entry->heard_bytes += static_cast<size_t>(got);
  }
  return entry->heard_bytes == bytes;
}

void PathTransport::note_leaving(Watched* entry) {
  if (entry->left || !hung_up(entry->socket.get())) return;
  entry->left = true;
  entry->deadline_ns = std::min(entry->deadline_ns, now_ns() + kLeavingMs * 1'000'000);
}

void PathTransport::advance_dial(size_t index) {
  Watched& entry = watched_[index];
  const auto fail = [&](const std::string& why) { dial_failed(index, why); };
  if (entry.met) return note_leaving(&entry);
  if (const int error = tcp_error(entry.socket.get()); error != 0) {
    // Only a refusal says that nobody is there: the rest is the network's.
    return dial_failed(index, "cannot connect: " + std::system_category().message(error),
                       error == ECONNREFUSED || !entry.anew ? Code::remote : Code::system);
  }
  if (!entry.said_hello) {
    const TcpHelloBytes hello = encode(entry.hello);
    const ssize_t sent = say(entry.socket.get(), hello, entry.start->card());
    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN || errno == EINTR)) return;
    if (sent != static_cast<ssize_t>(hello.size() + maker_->card_bytes()))
      return fail("cannot say hello");
    entry.said_hello = true;
    entry.deadline_ns = now_ns() + context_.settings.init_timeout_ms * 1'000'000;
  }
  const size_t answer_bytes = kTcpAnswerBytes + maker_->card_bytes();
  if (!hear(&entry, answer_bytes)) {
    if (entry.heard_bytes > answer_bytes) fail("hung up on our hello");
    return;
  }
  const std::optional<TcpAnswer> answer =
      decode_tcp_answer(std::span(entry.heard).first(kTcpAnswerBytes));
  if (!answer || answer->proof != proof_of(entry.hello)) return fail("is not a rank of this job");
  if (answer->sockets != entry.hello.sockets) {
    entry.link->fail(fmt::format("{} is {} there and {} here", maker_->paths_variable(),
                                 answer->sockets, entry.hello.sockets));
    return drop(index);
  }
  const auto card = std::span(entry.heard).subspan(kTcpAnswerBytes, maker_->card_bytes());
  entry.met = true;
  const bool plain = line_of(*entry.link).plain;
  const Status status = plain == maker_->is_plain(card)
                            ? entry.start->meet(card)
                            : Status(Code::remote, Scope::link, "it has none; its log says why");
  if (!status.is_ok()) return dial_failed(index, status.text(), status.code());
  entry.deadline_ns = now_ns() + 1'000'000 * (entry.anew ? kReproofMs : kProofMs);
  look_for_proof();
}

void PathTransport::advance_stranger(size_t index) {
  Watched& entry = watched_[index];
  if (entry.met) return note_leaving(&entry);
  const size_t hello_bytes = kTcpHelloBytes + maker_->card_bytes();
  if (!hear(&entry, hello_bytes)) {
    if (entry.heard_bytes > hello_bytes) drop(index);
    return;
  }
  const std::optional<TcpHello> hello =
      decode_tcp_hello(std::span(entry.heard).first(kTcpHelloBytes));
  if (!hello || hello->job != context_.job) {
    complain("a stranger connected: " + tcp_peer_text(entry.socket.get(), control_));
    return drop(index);
  }
  welcome(index, *hello);
}

void PathTransport::welcome(size_t index, const TcpHello& hello) {
  Watched& entry = watched_[index];
  if (hello.to != static_cast<uint32_t>(context_.rank) ||
      hello.from >= static_cast<uint32_t>(context_.rank) || hello.channel >= kChannelsMax ||
      !reaches(static_cast<int>(hello.from))) {
    complain(
        fmt::format("rank {} asks for rank {} channel {}", hello.from, hello.to, hello.channel));
    return drop(index);
  }
  TcpLink* const link = find_link(static_cast<int>(hello.from), static_cast<int>(hello.channel));
  const TcpAnswerBytes answer = encode(TcpAnswer{static_cast<uint16_t>(sockets_), proof_of(hello)});
  if (hello.sockets != sockets_) {
    (void)say(entry.socket.get(), answer, std::vector<std::byte>(maker_->card_bytes()));
    drop(index);
    return link->fail(fmt::format("{} is {} there and {} here", maker_->paths_variable(),
                                  hello.sockets, sockets_));
  }
  if (link->lanes() == 0) link->set_lanes(hello.lanes);
  several_paths_ |= link->striped();
  // Where there are several paths, a lane may come again: the far end has lost the one before.
  if (hello.lanes != link->lanes() || (!link->striped() && link->lane_taken(hello.lane))) {
    complain(fmt::format("rank {} connects a second time", hello.from));
    return drop(index);
  }
  const auto card = std::span(entry.heard).subspan(kTcpHelloBytes, maker_->card_bytes());
  auto start = maker_->answer(card);
  const Status met = start.is_ok() ? (*start)->meet(card) : start.status();
  if (!met.is_ok()) return refuse(index, hello, link, met);
  const ssize_t sent = say(entry.socket.get(), answer, (*start)->card());
  if (sent != static_cast<ssize_t>(answer.size() + maker_->card_bytes())) {
    drop(index);
    if (!link->striped()) link->fail("hung up while we answered its hello");
    return;
  }
  entry.start = std::move(start).value();
  entry.link = link;
  entry.hello = hello;
  entry.met = true;
  entry.deadline_ns = now_ns() + 1'000'000 * kProofMs;
  look_for_proof();
}

// The far end is told when it may come again without a path of the maker's kind.
void PathTransport::refuse(size_t index, const TcpHello& hello, TcpLink* link, const Status& why) {
  complain(fmt::format("rank {} gets no path: {}", hello.from, why.text()));
  const std::unique_ptr<PathStart> plain = maker_->plain();
  if (plain)
    (void)say(watched_[index].socket.get(),
              encode(TcpAnswer{static_cast<uint16_t>(sockets_), proof_of(hello)}), plain->card());
  drop(index);
  if (!plain && !link->striped()) link->fail(why.text(), why.code());
}

// Paths that are known to carry bytes are their links' from now on.
void PathTransport::look_for_proof() {
  for (size_t i = 0; i < watched_.size(); i++) {
    Watched& entry = watched_[i];
    if (!entry.met) continue;
    const Result<bool> proven = entry.start->proven();
    if (proven.is_ok() && !(*proven && agree(&entry))) continue;
    news_ = true;
    if (proven.is_ok()) {
      if (entry.kind == Watched::Kind::dial)
        line_of(*entry.link).redials[entry.hello.lane].dialling = false;
      adopt(i, entry.link, entry.hello);
    } else if (entry.kind == Watched::Kind::dial) {
      dial_failed(i, proven.status().text(), proven.status().code());
    } else {
      complain(proven.status().text());
      drop(i);
    }
  }
}

// The connecting side says the word, and the accepting one waits for it, where only both together
// know that a path is good.
bool PathTransport::agree(Watched* entry) {
  if (entry->agreed || !entry->start->waits_for_word()) return true;
  std::byte word{};
  entry->agreed = entry->kind == Watched::Kind::dial
                      ? send(entry->socket.get(), &word, 1, MSG_NOSIGNAL) == 1
                      : recv(entry->socket.get(), &word, 1, MSG_DONTWAIT) == 1;
  return entry->agreed;
}

void PathTransport::adopt(size_t index, TcpLink* link, const TcpHello& hello) {
  Watched& entry = watched_[index];
  std::erase(strangers_, index);
  unfinished_--;
  entry.kind = Watched::Kind::free;  // until it is the link's
  entry.met = false;
  entry.heard = {};
  const std::unique_ptr<PathStart> start = std::move(entry.start);
  Result<int> path = link->add_socket(hello.lane, hello.home,
                                      start->finish(std::move(entry.socket), link->striped()));
  if (!path.is_ok()) return link->fail(path.status().text(), Code::system);
  if (link->striped()) forget(link, *path);
  entry.kind = Watched::Kind::lane;
  entry.path = *path;
  // Edges come once: a hang-up may have shown together with the greeting.
  link->on_events(entry.path, entry.events);
}

// The number of a path that is gone was given to another: events of the old one mean nothing.
void PathTransport::forget(const TcpLink* link, int path) {
  for (size_t i = 0; i < watched_.size(); i++) {
    Watched& entry = watched_[i];
    if (entry.kind != Watched::Kind::lane || entry.link != link || entry.path != path) continue;
    const uint32_t generation = entry.generation + 1;
    entry = Watched();
    entry.generation = generation;
    free_.push_back(i);
  }
}

void PathTransport::sweep() {
  next_sweep_ns_ = now_ns() + kSweepMs * 1'000'000;
  if (accept_later_) accept_all();
  for (size_t i = 0; i < watched_.size(); i++) {
    const Watched& entry = watched_[i];
    if (entry.deadline_ns == 0 || now_ns() < entry.deadline_ns) continue;
    if (entry.kind == Watched::Kind::stranger) drop(i);
    if (entry.kind != Watched::Kind::dial) continue;
    const char* const why = entry.left  ? "gave the path up"
                            : entry.met ? "nothing passes by the path itself, though TCP does"
                            : entry.said_hello ? "no answer to our hello in time"
                                               : "no connection in time";
    news_ = true;
    dial_failed(i, why, entry.left ? Code::system : Code::timeout);
  }
}

}  // namespace railccl::transport
