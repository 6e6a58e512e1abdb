// Sockets: addresses as text, connections, frames and the gate; see sockets.h.
#include "runtime/sockets.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/interfaces.h"

namespace railccl::runtime {
namespace {

constexpr int kCancelMs = 50;  // how late a cancel may be noticed
constexpr size_t kEndpointsMax = 16;

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

void set(int fd, int level, int option, int value) {
  // Best effort: these options change speed and promptness, never correctness.
  (void)::setsockopt(fd, level, option, &value, sizeof value);
}

void prepare(int fd) {
  set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 10);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, 5);
  set(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

Status wait_for(const UniqueFd& socket, short events, const WaitLimit& wait_limit) {
  while (true) {
    RAILCCL_CHECK(wait_limit.check());
    pollfd entry{socket.get(), events, 0};
    const int ready = ::poll(&entry, 1, wait_limit.deadline.left_ms(kCancelMs));
    if (ready > 0) return ok();
    if (ready < 0 && errno != EINTR) return system_error(errno, "poll");
  }
}

void set_port(Endpoint* endpoint, uint16_t port) {
  if (endpoint->address.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(&endpoint->address)->sin6_port = htons(port);
    endpoint->bytes = sizeof(sockaddr_in6);
  } else {
    reinterpret_cast<sockaddr_in*>(&endpoint->address)->sin_port = htons(port);
    endpoint->bytes = sizeof(sockaddr_in);
  }
}

uint16_t get_port(const Endpoint& endpoint) {
  return ntohs(endpoint.address.ss_family == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(&endpoint.address)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(&endpoint.address)->sin_port);
}

Result<UniqueFd> listen_family(int family, uint16_t port) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return system_error(errno, "socket");
  set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  Endpoint any;
  any.address.ss_family = static_cast<sa_family_t>(family);
  set_port(&any, port);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&any.address), any.bytes) != 0)
    return system_error(errno, fmt::format("cannot listen on port {}", port));
  if (::listen(fd.get(), SOMAXCONN) != 0) return system_error(errno, "listen");
  return fd;
}

Result<UniqueFd> listen_both(uint16_t port) {
  UniqueFd fd(::socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int off = 0;
  if (!fd || ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) != 0)
    return listen_family(AF_INET, port);  // a kernel without IPv6
  set(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  Endpoint any;
  any.address.ss_family = AF_INET6;
  set_port(&any, port);
  if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&any.address), any.bytes) != 0) {
    if (errno == EADDRNOTAVAIL) return listen_family(AF_INET, port);  // IPv6 switched off
    return system_error(errno, fmt::format("cannot listen on port {}", port));
  }
  if (::listen(fd.get(), SOMAXCONN) != 0) return system_error(errno, "listen");
  return fd;
}

}  // namespace

Status WaitLimit::check() const {
  if (cancelled()) return Status(Code::aborted, Scope::communicator, "aborted");
  if (deadline.passed()) return Status(Code::timeout, Scope::communicator, "the time ran out");
  return ok();
}

WaitLimit WaitLimit::at_most_ms(int64_t ms) const {
  const int left = deadline.left_ms(static_cast<int>(ms));
  return {Deadline::after_ms(left), cancel};
}

Status WaitLimit::sleep_ms(int ms) const {
  const Deadline end = Deadline::after_ms(ms);
  while (!end.passed()) {
    RAILCCL_CHECK(check());
    const timespec slice{0,
                         std::min(end.left_ms(kCancelMs), deadline.left_ms(kCancelMs)) * 1'000'000};
    ::nanosleep(&slice, nullptr);
  }
  return ok();
}

std::string text_of(const Endpoint& endpoint) {
  const std::string host = railccl::text_of(endpoint.address);
  const bool six = endpoint.address.ss_family == AF_INET6;
  return fmt::format("{}{}{}:{}", six ? "[" : "", host, six ? "]" : "", get_port(endpoint));
}

Result<std::pair<std::string, uint16_t>> split_host_port(std::string_view text) {
  const size_t colon = text.rfind(':');
  unsigned port = 0;
  if (colon != std::string_view::npos) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + colon + 1, end, port);
    if (parsed.ec != std::errc() || parsed.ptr != end) port = 0;
  }
  if (port == 0 || port > 65535)
    return Status(Code::invalid_argument, "\"{}\": expected host:port, with a port from 1 to 65535",
                  text);
  std::string_view host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  else if (host.find(':') != std::string_view::npos)
    return Status(Code::invalid_argument,
                  "\"{}\": an IPv6 address needs brackets, as in [::1]:5000", text);
  if (host.empty())
    return Status(Code::invalid_argument, "\"{}\": the host before the port is missing", text);
  return std::make_pair(std::string(host), static_cast<uint16_t>(port));
}

Result<std::vector<Endpoint>> parse_endpoints(std::string_view text) {
  std::vector<Endpoint> endpoints;
  while (true) {
    const size_t comma = text.find(',');
    RAILCCL_TRY(const auto part, split_host_port(text.substr(0, comma)));
    RAILCCL_TRY(const InterfaceAddress parsed, parse_address(part.first));
    Endpoint endpoint;
    endpoint.address = parsed.address;
    set_port(&endpoint, part.second);
    endpoints.push_back(endpoint);
    if (comma == std::string_view::npos) return endpoints;
    if (endpoints.size() == kEndpointsMax)
      return Status(Code::invalid_argument, "more than {} addresses", kEndpointsMax);
    text.remove_prefix(comma + 1);
  }
}

Result<std::vector<Endpoint>> resolve(const std::string& host, uint16_t port,
                                      const Settings& settings) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_family = settings.socket_family == "AF_INET"    ? AF_INET
                    : settings.socket_family == "AF_INET6" ? AF_INET6
                                                           : AF_UNSPEC;
  addrinfo* list = nullptr;
  // This name is this machine, whether or not a file or a server says so (RFC 6761, 6.3); without a
  // name getaddrinfo gives loopback addresses, but wants a service then.
  const bool here = host == "localhost";
  const int error =
      ::getaddrinfo(here ? nullptr : host.c_str(), here ? "1" : nullptr, &hints, &list);
  if (error != 0)
    return Status(Code::system, "cannot look up host \"{}\": {}", host, ::gai_strerror(error));
  std::vector<Endpoint> endpoints;
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    if (entry->ai_family != AF_INET && entry->ai_family != AF_INET6) continue;
    if (endpoints.size() == kEndpointsMax) break;
    Endpoint endpoint;
    std::memcpy(&endpoint.address, entry->ai_addr, entry->ai_addrlen);
    set_port(&endpoint, port);
    endpoints.push_back(endpoint);
  }
  ::freeaddrinfo(list);
  if (endpoints.empty()) return Status(Code::system, "host \"{}\" has no usable address", host);
  return endpoints;
}

Result<UniqueFd> listen_on(uint16_t port, const Settings& settings) {
  if (settings.socket_family == "AF_INET") return listen_family(AF_INET, port);
  if (settings.socket_family == "AF_INET6") return listen_family(AF_INET6, port);
  return listen_both(port);
}

Result<uint16_t> port_of(const UniqueFd& listener) {
  Endpoint own;
  own.bytes = sizeof own.address;
  if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&own.address), &own.bytes) != 0)
    return system_error(errno, "getsockname");
  return get_port(own);
}

Result<std::string> published(uint16_t port, const Settings& settings, size_t bytes_max) {
  RAILCCL_TRY(const std::vector<Interface> interfaces, usable_interfaces(settings));
  std::string text;
  // First each interface's first address, then the second ones: with little room, different
  // networks are worth more than both families of one.
  for (size_t place = 0; place < kEndpointsMax; place++) {
    for (const Interface& interface : interfaces) {
      if (place >= interface.addresses.size()) continue;
      Endpoint endpoint;
      endpoint.address = interface.addresses[place].address;
      if (is_link_local(endpoint.address)) continue;
      set_port(&endpoint, port);
      const std::string one = text_of(endpoint);
      const bool many =
          std::count(text.begin(), text.end(), ',') + 1 >= static_cast<int>(kEndpointsMax);
      if (many || text.size() + one.size() + 1 > bytes_max) continue;
      text += (text.empty() ? "" : ",") + one;
    }
  }
  if (text.empty())
    text = fmt::format("{}:{}", settings.socket_family == "AF_INET6" ? "[::1]" : "127.0.0.1", port);
  return text;
}

Result<UniqueFd> connect_to(const Endpoint& endpoint, const WaitLimit& wait_limit) {
  UniqueFd fd(::socket(endpoint.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return system_error(errno, "socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&endpoint.address), endpoint.bytes) !=
      0) {
    if (errno != EINPROGRESS) return system_error(errno, text_of(endpoint));
    RAILCCL_CHECK(wait_for(fd, POLLOUT, wait_limit).context("{}", text_of(endpoint)));
    int error = 0;
    socklen_t bytes = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
    if (error != 0) return system_error(error, text_of(endpoint));
  }
  prepare(fd.get());
  return fd;
}

Status send_frame(const UniqueFd& socket, std::string_view bytes, const WaitLimit& wait_limit) {
  const uint64_t size = bytes.size();
  std::string head(kLengthBytes, '\0');
  std::memcpy(head.data(), &size, kLengthBytes);
  // A small frame goes out as one segment.
  constexpr size_t kJoin = 4096;
  const size_t joined = std::min(bytes.size(), kJoin);
  head.append(bytes.substr(0, joined));
  bytes.remove_prefix(joined);
  for (std::string_view part : {std::string_view(head), bytes}) {
    while (!part.empty()) {
      const ssize_t sent = ::send(socket.get(), part.data(), part.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        part.remove_prefix(static_cast<size_t>(sent));
      } else if (would_block(errno)) {
        RAILCCL_CHECK(wait_for(socket, POLLOUT, wait_limit));
      } else {
        return system_error(errno, "send");
      }
    }
  }
  return ok();
}

Result<std::string> receive_frame(const UniqueFd& socket, uint64_t bytes_max,
                                  const WaitLimit& wait_limit) {
  constexpr uint64_t kGrowth = 1 << 20;
  uint64_t size = 0;
  std::string bytes(kLengthBytes, '\0');
  size_t got = 0;
  bool have_size = false;
  while (true) {
    if (got == bytes.size()) {
      if (!have_size) {
        std::memcpy(&size, bytes.data(), kLengthBytes);
        if (size > bytes_max)
          return Status(Code::remote, "a message of {} bytes arrived where {} are allowed", size,
                        bytes_max);
        have_size = true;
        bytes.clear();
        got = 0;
      }
      if (got == size) return bytes;
      bytes.resize(std::min(size, got + kGrowth));
    }
    const ssize_t received = ::recv(socket.get(), bytes.data() + got, bytes.size() - got, 0);
    if (received > 0) {
      got += static_cast<size_t>(received);
    } else if (received == 0) {
      return Status(Code::remote, "the other end closed the connection");
    } else if (would_block(errno)) {
      RAILCCL_CHECK(wait_for(socket, POLLIN, wait_limit));
    } else {
      const Status cause = system_error(errno, "receive");
      return Status(Code::remote, "{}", cause.text());
    }
  }
}

bool is_closed(const UniqueFd& socket) {
  char byte;
  const ssize_t peeked = ::recv(socket.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return peeked == 0 || (peeked < 0 && !would_block(errno));
}

// ---- Gate -------------------------------------------------------------------------------------

void Gate::accept_all() {
  while (true) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      // Out of descriptors: the oldest who has said nothing yet makes room.
      if (errno != EMFILE && errno != ENFILE) return;
      if (visitors_.empty()) {
        const timespec pause{0, 10'000'000};  // the newcomer stays readable: do not spin
        ::nanosleep(&pause, nullptr);
        return;
      }
      visitors_.pop_front();
      continue;
    }
    prepare(fd.get());
    if (visitors_.size() == limits_.visitors_max) visitors_.pop_front();
    visitors_.push_back({std::move(fd), {}, Deadline::after_ms(limits_.patience_ms)});
  }
}

Gate::Reading Gate::read(Visitor& visitor) {
  while (true) {
    uint64_t size = 0;
    const bool have_size = visitor.bytes.size() >= kLengthBytes;
    if (have_size) {
      std::memcpy(&size, visitor.bytes.data(), kLengthBytes);
      if (size == 0 || size > limits_.frame_bytes_max) return Reading::hopeless;
    }
    const size_t want = kLengthBytes + size;  // never more: what follows is not ours
    if (have_size && visitor.bytes.size() == want) {
      visitor.bytes.erase(0, kLengthBytes);
      return Reading::complete;
    }
    char buffer[1024];
    const ssize_t got = ::recv(visitor.socket.get(), buffer,
                               std::min(sizeof buffer, want - visitor.bytes.size()), 0);
    if (got > 0)
      visitor.bytes.append(buffer, static_cast<size_t>(got));
    else if (got < 0 && would_block(errno))
      return Reading::waiting;
    else
      return Reading::hopeless;
  }
}

Status Gate::poll(int wait_ms, std::vector<Guest>* guests) {
  std::vector<pollfd> entries{{listener_.get(), POLLIN, 0}};
  for (const Visitor& visitor : visitors_) {
    entries.push_back({visitor.socket.get(), POLLIN, 0});
    wait_ms = std::min(wait_ms, visitor.deadline.left_ms(wait_ms));
  }
  const int ready = ::poll(entries.data(), entries.size(), wait_ms);
  if (ready < 0 && errno != EINTR) return system_error(errno, "poll");
  if (ready > 0 && entries[0].revents != 0) accept_all();  // newcomers mostly speak at once
  for (auto visitor = visitors_.begin(); visitor != visitors_.end();) {
    const Reading reading = read(*visitor);
    if (reading == Reading::waiting && !visitor->deadline.passed()) {
      ++visitor;
      continue;
    }
    if (reading == Reading::complete)
      guests->push_back({std::move(visitor->socket), std::move(visitor->bytes)});
    visitor = visitors_.erase(visitor);
  }
  return ok();
}

}  // namespace railccl::runtime
