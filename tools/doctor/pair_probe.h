// Pair probe: tries a connection from one NIC of this host to one of another: does it come about,
// is it the right host that answers, do small and large messages pass, how fast, with what losses.
//
// The far end runs a ProbeServer. Every step has a deadline: what is swallowed shows as a missing
// answer. One call of probe_pair() takes at most about kProbeMsMost.
#pragma once

#include <atomic>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "base/status.h"
#include "transport/tcp_socket.h"

namespace railccl::doctor {

struct PairResult {
  enum class Outcome : uint8_t {
    good,
    no_route,         // the system here refuses to send
    refused,          // somebody answers that nobody listens there
    no_answer,        // to the request for a connection
    another_host,     // a stranger, or a host that was not meant, answers
    silent,           // connected, and then nothing comes back
    large_swallowed,  // small messages pass, full packets do not
    broken,           // the connection broke
  };
  int from = 0, to = 0;      // hosts
  std::string nic, far_nic;  // ours and theirs
  std::string subnet;        // of ours: names the rail
  Outcome outcome = Outcome::good;
  std::string text;          // the system's word for it, or empty
  double round_trip_us = 0;  // the least of some
  double bytes_per_s = 0;    // from us to them
  double lost_share = 0;     // of small packets one by one, those sent again
};
inline constexpr int64_t kProbeMsMost = 3000;

/// Answers probes until it is destroyed. Its threads end within a second of that.
class ProbeServer {
 public:
  /// `secret`: of the job; `host`: whom it answers for.
  static Result<std::unique_ptr<ProbeServer>> start(uint64_t secret, int host,
                                                    transport::TcpListener listener);
  ~ProbeServer();
  uint16_t port() const { return listener_.port; }

 private:
  ProbeServer(uint64_t secret, int host, transport::TcpListener listener)
      : secret_(secret), host_(host), listener_(std::move(listener)) {}
  void serve();
  void answer(UniqueFd socket) const;

  const uint64_t secret_;
  const int host_;
  transport::TcpListener listener_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// Probes `path` to `port` there; from and to are filled in by the caller.
PairResult probe_pair(uint64_t secret, int to, const transport::TcpPath& path, uint16_t port);

std::string encode(const std::vector<PairResult>& results);
/// Code::remote for text that is none. Hostile-safe.
Result<std::vector<PairResult>> decode_pair_results(std::string_view text);

}  // namespace railccl::doctor
