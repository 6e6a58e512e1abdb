// fuzz-link: railccl_transport
// Fuzzes what tcp hears from others: published addresses, greetings and answers (the first byte of
// the input picks one), whose accepted forms must read back equal; and the frames of a striped
// link, fed to a real TcpLink through socket pairs, which must deliver bytes or fail, never both
// wrong.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <string_view>

#include "transport/socket_path.h"
#include "transport/tcp_link.h"
#include "transport/tcp_wire.h"

namespace {

using namespace railccl;
using namespace railccl::transport;

// Alternately feeds pieces of the input (length byte, then bytes) to two lanes and reads.
void feed_striped(std::span<const std::byte> input) {
  AbortFlag abort;
  TcpLink link(&abort, "tcp", 1, 0, "fuzz");
  link.set_lanes(2);
  std::array<UniqueFd, 2> ours;
  for (int lane = 0; lane < 2; lane++) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return;
    ours[static_cast<size_t>(lane)].reset(ends[0]);
    auto path = std::make_unique<SocketPath>(UniqueFd(ends[1]), "nic", "fuzz", true);
    if (!link.add_socket(lane, true, std::move(path)).is_ok()) return;
  }
  uint64_t received = 0;
  bool failed = false;
  const auto read = [&] {
    std::array<std::byte, 300> buffer;
    for (int lane = 0; lane < 2; lane++) link.on_events(lane, EPOLLIN);
    while (true) {
      const Result<std::span<const std::byte>> view = link.peek(10);
      if (view.is_ok() && view->size() >= 10) {
        received += 10;
        link.consume(10);
      }
      const Result<size_t> got = link.receive(buffer.data(), buffer.size());
      if (failed && got.is_ok()) std::abort();  // failures are for ever
      failed = !got.is_ok();
      if (failed || *got == 0) return;
      received += *got;
    }
  };
  size_t lane = 0;
  uint64_t sent = 0;
  while (!input.empty()) {
    const size_t size = std::min<size_t>(std::to_integer<size_t>(input[0]), input.size() - 1);
    input = input.subspan(1);
    if (send(ours[lane].get(), input.data(), size, MSG_NOSIGNAL) == static_cast<ssize_t>(size))
      sent += size;
    input = input.subspan(size);
    lane = 1 - lane;
    read();
  }
  for (UniqueFd& fd : ours) fd.reset();
  for (int i = 0; i < 2; i++) link.on_events(i, EPOLLIN | EPOLLRDHUP);
  read();
  if (!failed || received > sent) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0: {
      const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      const auto address = decode_tcp_address(text);
      if (!address) break;
      const auto again = decode_tcp_address(encode(*address));
      if (!again || encode(*again) != encode(*address)) std::abort();
      break;
    }
    case 1: {
      const auto hello = decode_tcp_hello(bytes);
      if (hello && decode_tcp_hello(encode(*hello)) != hello) std::abort();
      break;
    }
    case 2: {
      const auto answer = decode_tcp_answer(bytes);
      if (answer && decode_tcp_answer(encode(*answer)) != answer) std::abort();
      break;
    }
    default:
      feed_striped(bytes);
  }
  return 0;
}
