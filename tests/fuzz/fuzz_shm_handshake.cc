// fuzz-link: railccl_transport
// What shm hears from others (the first byte picks one): published addresses; the greeting with
// file descriptors in it, of which none may leak whatever arrives; and a segment whose first page
// a peer has scribbled over, which is refused or used without harm.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "transport/shm_handshake.h"
#include "transport/shm_segment.h"

namespace {

using namespace railccl;
using namespace railccl::transport;

int lowest_free() {
  const int fd = dup(STDIN_FILENO);
  if (fd >= 0) close(fd);
  return fd;
}

/// Sends `bytes` with `fds` descriptors as one message.
void send_greeting(int socket, const uint8_t* bytes, size_t size, int fds) {
  const int borrowed[3] = {STDIN_FILENO, STDIN_FILENO, STDIN_FILENO};
  iovec data{const_cast<uint8_t*>(bytes), size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof borrowed)] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (fds > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(static_cast<size_t>(fds) * sizeof(int));
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(static_cast<size_t>(fds) * sizeof(int));
    std::memcpy(CMSG_DATA(rights), borrowed, static_cast<size_t>(fds) * sizeof(int));
  }
  if (sendmsg(socket, &message, MSG_NOSIGNAL) != static_cast<ssize_t>(size)) std::abort();
}

void greet(const uint8_t* bytes, size_t size) {
  if (size == 0) return;
  // Without a standard input there is nothing to lend.
  if (fcntl(STDIN_FILENO, F_GETFD) < 0) return;
  const int before = lowest_free();
  {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return;
    const UniqueFd ours(ends[0]), theirs(ends[1]);
    const int fds = bytes[0] % 4;
    send_greeting(ours.get(), bytes + 1, std::min<size_t>(size - 1, 4096), fds);
    const auto hello = shm_receive_hello(theirs.get());
    if (hello.is_ok() && hello->has_value() &&
        (fds != 2 || !(*hello)->segment || !(*hello)->scratch))
      std::abort();
    if (!hello.is_ok() && hello.status().code() != Code::remote) std::abort();
  }
  if (lowest_free() != before) std::abort();
}

/// The first two bytes say where the rest is written over the page that describes the segment.
void adopt(const uint8_t* bytes, size_t size) {
  if (size < 2) return;
  const ShmIdentity identity{7, 1, 2};
  auto made = ShmSegment::create(identity);
  if (!made.is_ok()) return;
  constexpr size_t kPage = 4096;
  void* page = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, (*made)->segment_fd(), 0);
  if (page == MAP_FAILED) return;
  const Mapping mapped(page, kPage);
  const size_t at = (bytes[0] | size_t{bytes[1]} << 8) % kPage;
  std::memcpy(mapped.bytes() + at, bytes + 2, std::min(size - 2, kPage - at));
  auto adopted = ShmSegment::adopt(UniqueFd(dup((*made)->segment_fd())),
                                   UniqueFd(dup((*made)->scratch_fd())), identity);
  if (!adopted.is_ok()) {
    if (adopted.status().code() != Code::remote) std::abort();
    return;
  }
  // What the peer claims to have but has not must not be touched.
  const auto scratch = (*adopted)->scratch(kPage);
  if (scratch.is_ok() && *scratch != nullptr) std::abort();
  (void)(*adopted)->left();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  switch (data[0] % 3) {
    case 0: {
      const std::string address(reinterpret_cast<const char*>(data) + 1, size - 1);
      const auto key = decode_shm_address(address);
      if (key && encode_shm_address(*key) != address) std::abort();
      break;
    }
    case 1:
      greet(data + 1, size - 1);
      break;
    default:
      adopt(data + 1, size - 1);
  }
  return 0;
}
