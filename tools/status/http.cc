// Connections, their bounds and answers; see http.h.
#include "status/http.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <list>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/interfaces.h"

namespace railccl::status {
namespace {

constexpr size_t kConnectionsMax = 64;
constexpr int kAcceptsMax = 256;  // per turn
constexpr int64_t kAskNs = 2'000'000'000, kTellNs = 10'000'000'000;
constexpr int64_t kPageNs = 1'000'000'000;
constexpr int64_t kRestMs = 100;

struct Connection {
  UniqueFd socket;
  int64_t until_ns = 0;
  std::string in, out;
  size_t sent = 0;
  bool over = false;
};

std::string answer(const char* status, const char* type, const std::string& body) {
  return fmt::format(
      "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
      status, type, body.size(), body);
}

std::string answer_to(Wanted wanted, const std::function<std::string()>& page) {
  constexpr char kText[] = "text/plain; charset=utf-8";
  switch (wanted) {
    case Wanted::metrics:
      return answer("200 OK", "application/openmetrics-text; version=1.0.0; charset=utf-8", page());
    case Wanted::nothing_here:
      return answer("404 Not Found", kText, "there is only /metrics\n");
    case Wanted::another_method:
      return answer("405 Method Not Allowed", kText, "only GET\n");
    default:
      return answer("400 Bad Request", kText, "");
  }
}

void go_on(Connection* one, const std::function<std::string()>& page) {
  while (one->out.empty()) {
    char bytes[4096];
    const ssize_t got = ::recv(one->socket.get(), bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (got <= 0) {
      one->over = true;
      return;
    }
    one->in.append(bytes, static_cast<size_t>(got));
    const Wanted wanted = parse_request(one->in);
    if (wanted == Wanted::more) continue;
    one->out = answer_to(wanted, page);
    one->until_ns = now_ns() + kTellNs;
  }
  while (one->sent < one->out.size()) {
    const ssize_t sent = ::send(one->socket.get(), one->out.data() + one->sent,
                                one->out.size() - one->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (sent < 0) break;
    one->sent += static_cast<size_t>(sent);
  }
  one->over = true;
}

/// False: it is better to rest a little.
bool accept_all(const UniqueFd& listener, std::list<Connection>* open) {
  for (int accepts = 0; accepts < kAcceptsMax; accepts++) {
    UniqueFd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) return errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM;
    // Those that came first had the most time to say something.
    if (open->size() == kConnectionsMax) open->pop_front();
    open->emplace_back();
    open->back().socket = std::move(socket);
    open->back().until_ns = now_ns() + kAskNs;
  }
  return true;
}

}  // namespace

Wanted parse_request(std::string_view bytes) {
  const size_t line_end = bytes.find("\r\n");
  if (line_end == std::string_view::npos)
    return bytes.size() < kRequestBytesMax ? Wanted::more : Wanted::nonsense;
  const std::string_view line = bytes.substr(0, line_end);
  const size_t first = line.find(' '), last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return Wanted::nonsense;
  const std::string_view version = line.substr(last + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return Wanted::nonsense;
  if (bytes.find("\r\n\r\n") == std::string_view::npos)
    return bytes.size() < kRequestBytesMax ? Wanted::more : Wanted::nonsense;
  if (line.substr(0, first) != "GET") return Wanted::another_method;
  const std::string_view target = line.substr(first + 1, last - first - 1);
  return target.substr(0, target.find('?')) == "/metrics" ? Wanted::metrics : Wanted::nothing_here;
}

Result<UniqueFd> listen_at(const std::string& address) {
  std::string host = "127.0.0.1", port = address;
  if (const size_t colon = address.rfind(':'); colon != std::string::npos) {
    host = address.substr(0, colon);
    port = address.substr(colon + 1);
    if (host.size() > 2 && host.front() == '[' && host.back() == ']')
      host = host.substr(1, host.size() - 2);
  }
  uint16_t number = 0;  // not for getaddrinfo to read, which takes any number modulo 65536
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (host.empty() || error != std::errc() || end != port.data() + port.size() ||
      ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found) != 0)
    return Status(Code::invalid_argument, "{}: expected a port, or an address and a port", address);
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  UniqueFd socket(::socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  if (!socket || ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(socket.get(), found->ai_addr, found->ai_addrlen) != 0 ||
      ::listen(socket.get(), static_cast<int>(kConnectionsMax)) != 0)
    return system_error(errno, fmt::format("cannot listen at {}", address));
  return socket;
}

Result<std::string> address_of(const UniqueFd& listener) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &bytes) != 0)
    return system_error(errno, "getsockname");
  char port[16] = "";
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), bytes, nullptr, 0, port,
                    sizeof port, NI_NUMERICSERV) != 0)
    return Status(Code::internal, "a socket without a port");
  const bool v6 = address.ss_family == AF_INET6;
  return fmt::format("{}{}{}:{}", v6 ? "[" : "", text_of(address), v6 ? "]" : "", port);
}

Status serve(const UniqueFd& listener, int stop, const std::function<std::string()>& page) {
  std::list<Connection> open;
  std::string kept;
  int64_t kept_ns = 0;
  const auto fresh_page = [&] {
    // However many ask, the processes are asked once per second.
    if (kept.empty() || now_ns() - kept_ns > kPageNs) {
      kept = page();
      kept_ns = now_ns();
    }
    return kept;
  };
  bool rest = false;
  while (true) {
    std::vector<pollfd> entries{{stop, POLLIN, 0},
                                {listener.get(), static_cast<short>(rest ? 0 : POLLIN), 0}};
    for (const Connection& one : open)
      entries.push_back(
          {one.socket.get(), static_cast<short>(one.out.empty() ? POLLIN : POLLOUT), 0});
    (void)::poll(entries.data(), entries.size(),
                 rest           ? static_cast<int>(kRestMs)
                 : open.empty() ? -1
                                : 500);
    if ((entries[0].revents & POLLIN) != 0) return ok();
    size_t index = 2;
    const int64_t now = now_ns();
    for (Connection& one : open) {
      if (entries[index++].revents != 0) go_on(&one, fresh_page);
      one.over = one.over || now >= one.until_ns;
    }
    open.remove_if([](const Connection& one) { return one.over; });
    rest = !accept_all(listener, &open);
  }
}

}  // namespace railccl::status
