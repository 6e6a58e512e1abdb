// NIC probe: a poll loop over the listener, what we connected and what others did.
#include "runtime/nic_probe.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/clock.h"
#include "runtime/pack.h"

namespace railccl::runtime {

using transport::TcpEndpoint;
using transport::TcpPath;

namespace {

constexpr uint64_t kMagic = 0x65626f7270636372;  // "rccprobe"
constexpr size_t kGreetingBytes = 4 * sizeof(uint64_t);
constexpr size_t kIncomingMax = 1024;
constexpr int64_t kNsPerMs = 1'000'000;
// Others begin a round a little later or earlier: who began early still sends while they count.
constexpr int64_t kOverlapNs = 5 * kNsPerMs;
constexpr int64_t kAnswerNs = 20 * kNsPerMs;  // longer than any near NIC takes
constexpr int64_t kPatienceMs = 5000;         // of the kernel with bytes that nobody acknowledges
constexpr size_t kPieceBytes = 256 << 10;

void cut_off(int socket) {
  const linger at_once = {.l_onoff = 1, .l_linger = 0};
  (void)setsockopt(socket, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
}

}  // namespace

Result<std::unique_ptr<NicProbe>> NicProbe::open(uint64_t job,
                                                 const std::vector<TcpEndpoint>& ours) {
  for (const TcpEndpoint& nic : ours)
    if (nic.address.address.ss_family == AF_INET && !is_loopback(nic.address.address) &&
        !transport::tcp_answers_alone(nic.interface))
      return Status(Code::system,
                    "any of its NICs answers for the address of {}: set "
                    "net.ipv4.conf.{}.arp_ignore=1 and arp_announce=2",
                    nic.interface, nic.interface);
  RAILCCL_TRY(transport::TcpListener listener, transport::tcp_listen(ours));
  return std::unique_ptr<NicProbe>(new NicProbe(job, std::move(listener)));
}

void NicProbe::close_round() {
  for (const Outgoing& out : outgoing_) cut_off(out.socket.get());
  outgoing_.clear();
  // Who is done earlier connects for the next round already.
  incoming_.remove_if([&](const Incoming& in) { return in.greeted && in.round <= round_; });
}

void NicProbe::dial(const std::vector<Target>& targets) {
  for (const Target& target : targets) {
    auto socket =
        transport::tcp_connect(TcpPath{target.from, target.to, true}, target.port, kPatienceMs);
    if (!socket.is_ok()) continue;
    Outgoing& out = outgoing_.emplace_back();
    out.socket = std::move(socket).value();
    out.flow = target.flow;
  }
}

NicProbe::Values NicProbe::round_trips(const std::vector<Target>& targets, int64_t ms) {
  const int64_t end_ns = now_ns() + ms * kNsPerMs;
  round_ = 0;
  dial(targets);
  auto next = outgoing_.begin();  // one pair at a time
  while (now_ns() < end_ns) {
    if (outgoing_.empty()) {
      turn(end_ns);
      continue;
    }
    if (next->connected && next->pinged_ns == 0) ping(*next);
    turn(
        std::min(end_ns, next->pinged_ns != 0 ? next->pinged_ns + kAnswerNs : now_ns() + kNsPerMs));
    if (next->pinged_ns != 0 && now_ns() < next->pinged_ns + kAnswerNs) continue;
    if (next->pinged_ns != 0) give_up(*next);
    if (++next == outgoing_.end()) next = outgoing_.begin();
  }
  Values least_s;
  for (const Outgoing& out : outgoing_)
    if (out.least_s > 0) least_s[out.flow] = out.least_s;
  close_round();
  return least_s;
}

void NicProbe::connect(uint64_t round, const std::vector<Target>& targets, int64_t ms) {
  const int64_t end_ns = now_ns() + ms * kNsPerMs;
  round_ = round;
  dial(targets);
  const auto decided = [](const Outgoing& out) { return out.connected || !out.socket; };
  while (now_ns() < end_ns && !std::all_of(outgoing_.begin(), outgoing_.end(), decided))
    turn(end_ns);
  outgoing_.remove_if([](const Outgoing& out) { return !out.connected; });
}

NicProbe::Values NicProbe::send_and_count(int64_t ms, uint64_t bytes_max) {
  const int64_t start_ns = now_ns();
  const int64_t count_ns = start_ns + ms * kNsPerMs / 3, end_ns = start_ns + ms * kNsPerMs;
  bytes_max_ = bytes_max;
  for (Outgoing& out : outgoing_) out.sending = true;
  while (now_ns() < count_ns) turn(count_ns);
  counting_ = true;
  const int64_t counted_from_ns = now_ns();
  while (now_ns() < end_ns) turn(end_ns);
  counting_ = false;
  const double seconds = static_cast<double>(now_ns() - counted_from_ns) * 1e-9;
  Values bytes_per_s;
  for (const Incoming& in : incoming_)
    if (in.greeted && in.round == round_)
      bytes_per_s[in.flow] = static_cast<double>(in.bytes) / seconds;
  while (now_ns() < end_ns + kOverlapNs) turn(end_ns + kOverlapNs);
  close_round();
  return bytes_per_s;
}

void NicProbe::turn(int64_t until_ns) {
  std::vector<pollfd> polled = {{listener_.socket.get(), POLLIN, 0}};
  for (const Outgoing& out : outgoing_) {
    const bool writes = !out.connected || out.sending;
    polled.push_back({out.socket.get(), static_cast<short>(writes ? POLLOUT : POLLIN), 0});
  }
  for (const Incoming& in : incoming_) polled.push_back({in.socket.get(), POLLIN, 0});
  const int64_t rest_ns = std::max<int64_t>(0, until_ns - now_ns());
  const timespec timeout = {rest_ns / (1000 * kNsPerMs), rest_ns % (1000 * kNsPerMs)};
  if (ppoll(polled.data(), polled.size(), &timeout, nullptr) <= 0) return;
  size_t i = 1;
  for (Outgoing& out : outgoing_)
    if (polled[i++].revents != 0) on_outgoing(out);
  for (auto in = incoming_.begin(); in != incoming_.end(); i++)
    in = polled[i].revents == 0 || on_incoming(*in) ? std::next(in) : incoming_.erase(in);
  if (polled[0].revents != 0) accept_all();
}

void NicProbe::accept_all() {
  while (true) {
    Result<UniqueFd> socket = transport::tcp_accept(listener_.socket.get(), kPatienceMs);
    if (!socket.is_ok() || !*socket) return;
    if (incoming_.size() >= kIncomingMax) continue;  // closes it
    incoming_.emplace_back().socket = std::move(socket).value();
  }
}

void NicProbe::on_outgoing(Outgoing& out) {
  if (!out.connected) return greet(out);
  if (out.sending) return send_more(out);
  std::byte answer[16];
  const ssize_t got = recv(out.socket.get(), answer, sizeof answer, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got <= 0) return give_up(out);
  if (out.pinged_ns == 0) return;
  const double seconds = static_cast<double>(now_ns() - out.pinged_ns) * 1e-9;
  out.pinged_ns = 0;
  out.least_s = out.least_s > 0 ? std::min(out.least_s, seconds) : seconds;
}

void NicProbe::greet(Outgoing& out) {
  const std::string greeting =
      std::move(Packer().add(kMagic).add(job_).add(round_).add(out.flow)).take();
  if (transport::tcp_error(out.socket.get()) != 0 ||
      send(out.socket.get(), greeting.data(), greeting.size(), MSG_NOSIGNAL | MSG_DONTWAIT) !=
          static_cast<ssize_t>(greeting.size()))
    return give_up(out);
  out.connected = true;
}

void NicProbe::ping(Outgoing& out) {
  const std::byte one{1};
  out.pinged_ns = now_ns();
  if (send(out.socket.get(), &one, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) give_up(out);
}

void NicProbe::give_up(Outgoing& out) {
  out.socket.reset();  // stays in the list, which round_trips() walks
  out.connected = out.sending = false;
  out.pinged_ns = 0;
}

void NicProbe::send_more(Outgoing& out) {
  static const std::vector<std::byte> zeros(kPieceBytes);
  if (out.bytes >= bytes_max_) {
    out.sending = false;
    return;
  }
  const ssize_t sent =
      send(out.socket.get(), zeros.data(), zeros.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (sent <= 0) return give_up(out);
  out.bytes += static_cast<uint64_t>(sent);
  bytes_sent_ += static_cast<uint64_t>(sent);
}

bool NicProbe::hear(Incoming& in) {
  char bytes[kGreetingBytes];
  const ssize_t got = recv(in.socket.get(), bytes, kGreetingBytes - in.heard.size(), MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) return false;
  in.heard.append(bytes, static_cast<size_t>(got));
  if (in.heard.size() < kGreetingBytes) return true;
  Unpacker unpacker(in.heard);
  uint64_t magic = 0, job = 0;
  in.greeted = unpacker.get(&magic) && unpacker.get(&job) && unpacker.get(&in.round) &&
               unpacker.get(&in.flow) && magic == kMagic && job == job_;
  return in.greeted && in.round >= round_;
}

bool NicProbe::on_incoming(Incoming& in) {
  if (!in.greeted) return hear(in);
  if (in.round > 0) {
    // Counted and thrown away, without a copy (tcp(7), MSG_TRUNC).
    const ssize_t got = recv(in.socket.get(), nullptr, size_t{1} << 20, MSG_DONTWAIT | MSG_TRUNC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (got > 0 && counting_) in.bytes += static_cast<uint64_t>(got);
    if (got <= 0) in.socket.reset();  // what was counted stays
    return true;
  }
  std::byte bytes[16];
  const ssize_t got = recv(in.socket.get(), bytes, sizeof bytes, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  return got > 0 &&
         send(in.socket.get(), bytes, static_cast<size_t>(got), MSG_NOSIGNAL | MSG_DONTWAIT) == got;
}

}  // namespace railccl::runtime
