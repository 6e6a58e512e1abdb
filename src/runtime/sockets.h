// Sockets: what rendezvous and control need of TCP, with every wait bounded and cancellable.
//
// Addresses travel as text, "192.0.2.2:5123,[fd00::2]:5123": several ways to one listener, the best
// first. Frames are an 8-byte length and that many bytes. Private to this room.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/owners.h"
#include "base/settings.h"
#include "base/status.h"

namespace railccl::runtime {

/// Of a frame's length, in front of it.
inline constexpr size_t kLengthBytes = sizeof(uint64_t);

/// How long a wait may last, and who may end it early. `cancel` may be null.
struct WaitLimit {
  Deadline deadline = Deadline::never();
  const std::atomic<bool>* cancel = nullptr;

  bool cancelled() const {
    // Relaxed: the flag carries no data.
    return cancel != nullptr && cancel->load(std::memory_order_relaxed);
  }
  /// ok, aborted or timeout.
  Status check() const;
  /// The same, ending after `ms` at the latest.
  WaitLimit at_most_ms(int64_t ms) const;
  /// Sleeps up to `ms`, in slices that watch cancel.
  Status sleep_ms(int ms) const;
};

struct Endpoint {
  sockaddr_storage address{};
  socklen_t bytes = 0;
};
std::string text_of(const Endpoint& endpoint);  // "192.0.2.2:5123"

/// Parses text like the above; numeric addresses only, 1 to 16 of them.
Result<std::vector<Endpoint>> parse_endpoints(std::string_view text);
/// Splits "host:port", "1.2.3.4:port" or "[v6]:port"; the port is 1 to 65535.
Result<std::pair<std::string, uint16_t>> split_host_port(std::string_view text);
/// Looks a name or address up; of the family that the settings allow.
Result<std::vector<Endpoint>> resolve(const std::string& host, uint16_t port,
                                      const Settings& settings);

/// Listens on all addresses of the allowed families; port 0 takes a free one.
Result<UniqueFd> listen_on(uint16_t port, const Settings& settings);
Result<uint16_t> port_of(const UniqueFd& listener);
/// Where others reach this host on `port`, as text of at most `bytes_max`: addresses of the
/// interfaces that the settings choose; loopback only when there is no other.
Result<std::string> published(uint16_t port, const Settings& settings, size_t bytes_max);

/// Connects; the socket is non-blocking, without delay, with keep-alive.
Result<UniqueFd> connect_to(const Endpoint& endpoint, const WaitLimit& wait_limit);

Status send_frame(const UniqueFd& socket, std::string_view bytes, const WaitLimit& wait_limit);
/// Memory grows with what arrives, not with what the length claims.
Result<std::string> receive_frame(const UniqueFd& socket, uint64_t bytes_max,
                                  const WaitLimit& wait_limit);

/// The other end has closed, or the connection broke. Never blocks.
bool is_closed(const UniqueFd& socket);

/// A door: accepts connections and reads one frame from each, all at the same time, so that
/// nobody's silence or garbage keeps another out. Who is too slow, too big or too many is dropped.
/// One thread.
class Gate {
 public:
  struct Limits {
    uint64_t frame_bytes_max = 4096;
    size_t visitors_max = 1024;
    int64_t patience_ms = 5000;
  };
  struct Guest {
    UniqueFd socket;
    std::string frame;
  };
  Gate() = default;  // closed: nobody comes
  Gate(UniqueFd listener, Limits limits) : listener_(std::move(listener)), limits_(limits) {}

  /// Waits up to `wait_ms` and appends those whose frame is complete.
  Status poll(int wait_ms, std::vector<Guest>* guests);

 private:
  struct Visitor {
    UniqueFd socket;
    std::string bytes;  // the length, then the frame
    Deadline deadline;
  };
  enum class Reading : uint8_t { waiting, complete, hopeless };

  void accept_all();
  Reading read(Visitor& visitor);

  UniqueFd listener_;
  Limits limits_;
  std::list<Visitor> visitors_;  // oldest first
};

}  // namespace railccl::runtime
