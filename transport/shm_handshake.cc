// Unix socket messages with file descriptors in them.
#include "transport/shm_handshake.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace railccl::transport {
namespace {

constexpr char kAddressMagic[] = {'r', 's', 'h', '1'};
constexpr uint64_t kHelloMagic = 0x7261696c68656c6f;  // "railhelo"
constexpr int kBacklog = 4096;

struct WireHello {
  uint64_t magic;
  uint64_t job;
  int32_t from;
  int32_t to;
};

socklen_t fill_name(const ShmKey& key, sockaddr_un* name) {
  *name = {};
  name->sun_family = AF_UNIX;
  // The leading zero byte makes it abstract.
  const std::string text = fmt::format("railccl-{:016x}{:016x}", key.high, key.low);
  std::memcpy(name->sun_path + 1, text.data(), text.size());
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
}

Result<UniqueFd> make_socket() {
  UniqueFd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return system_error(errno, "shm: socket");
  return fd;
}

}  // namespace

std::string encode_shm_address(const ShmKey& key) {
  std::string bytes(kAddressMagic, sizeof(kAddressMagic));
  bytes.append(reinterpret_cast<const char*>(&key), sizeof(key));
  return bytes;
}

std::optional<ShmKey> decode_shm_address(const std::string& address) {
  ShmKey key;
  if (address.size() != sizeof(kAddressMagic) + sizeof(key) ||
      std::memcmp(address.data(), kAddressMagic, sizeof(kAddressMagic)) != 0) {
    return std::nullopt;
  }
  std::memcpy(&key, address.data() + sizeof(kAddressMagic), sizeof(key));
  return key;
}

Result<UniqueFd> shm_listen(const ShmKey& key) {
  RAILCCL_TRY(UniqueFd fd, make_socket());
  sockaddr_un name;
  const socklen_t length = fill_name(key, &name);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&name), length) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return system_error(errno, "shm: cannot listen");
  }
  return fd;
}

Result<UniqueFd> shm_connect(const ShmKey& key) {
  RAILCCL_TRY(UniqueFd fd, make_socket());
  sockaddr_un name;
  const socklen_t length = fill_name(key, &name);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&name), length) == 0) return fd;
  if (errno == EAGAIN || errno == EINTR) return UniqueFd();
  return system_error(errno, "shm: cannot connect (has the process ended?)");
}

Result<UniqueFd> shm_accept(int listener) {
  UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
    return system_error(errno, "shm: accept");
  }
  return fd;
}

Result<pid_t> shm_peer_process(int socket) {
  ucred credentials;
  socklen_t length = sizeof(credentials);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return system_error(errno, "shm: peer credentials");
  }
  if (credentials.uid != geteuid()) {
    return Status(Code::remote, "shm: process {} belongs to user {}, not to {}", credentials.pid,
                  credentials.uid, geteuid());
  }
  return credentials.pid;
}

Status shm_send_hello(int socket, uint64_t job, int from, int to, const ShmSegment& segment) {
  WireHello hello{kHelloMagic, job, from, to};
  iovec data{&hello, sizeof(hello)};
  const int fds[2] = {segment.segment_fd(), segment.scratch_fd()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(fds))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(fds));
  std::memcpy(CMSG_DATA(rights), fds, sizeof(fds));
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != sizeof(hello)) {
    return system_error(errno, "shm: cannot send file descriptors");
  }
  return ok();
}

Result<std::optional<ShmHello>> shm_receive_hello(int socket) {
  WireHello wire;
  iovec data{&wire, sizeof(wire)};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return std::optional<ShmHello>();
  if (got < 0) return system_error(errno, "shm: no greeting");
  // Whatever came is owned first, so that no refusal below leaks a descriptor.
  ShmHello hello;
  const cmsghdr* rights = CMSG_FIRSTHDR(&message);
  int fds[2] = {-1, -1};
  if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
    const size_t bytes = rights->cmsg_len - CMSG_LEN(0);
    std::memcpy(fds, CMSG_DATA(rights), bytes < sizeof(fds) ? bytes : sizeof(fds));
  }
  hello.segment.reset(fds[0]);
  hello.scratch.reset(fds[1]);
  const bool whole = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  if (got != sizeof(wire) || !whole || wire.magic != kHelloMagic || !hello.segment ||
      !hello.scratch) {
    return Status(Code::remote, "shm: the greeting is malformed ({} bytes)", got);
  }
  hello.job = wire.job;
  hello.from = wire.from;
  hello.to = wire.to;
  return std::optional<ShmHello>(std::move(hello));
}

}  // namespace railccl::transport
