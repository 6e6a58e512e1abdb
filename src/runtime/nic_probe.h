// NIC probe: one host's end of measuring how its NICs reach those of other hosts.
//
// It listens on one port and connects from given NICs to given ones, both ends tied to their NIC
// (transport/tcp_socket.h), as the tcp transport would. Two things are measured: the least round
// trip of single bytes, one pair of NICs at a time, and what arrives while all hosts send at once.
// The hosts agree by other means on who does what when; every call here ends at a time of its own
// clock, whatever the others do. Connections are new for each round and cut off after it, so that
// what is still under way does not weigh on the next. Strangers and what comes late are dropped.
//
// One thread. Failures of single connections show as results that are missing.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/owners.h"
#include "base/status.h"
#include "transport/tcp_socket.h"

namespace railccl::runtime {

class NicProbe {
 public:
  /// One of our NICs to one of another host's. `flow` is its number for both ends.
  struct Target {
    uint64_t flow = 0;
    transport::TcpEndpoint from;
    transport::TcpEndpoint to;
    uint16_t port = 0;  // where the other host's probe listens
  };
  using Values = std::map<uint64_t, double>;  // by flow

  /// `job` is what strangers do not know; `ours` are this host's NICs with one address each. Fails
  /// where connections cannot be tied to them, and says what to set.
  static Result<std::unique_ptr<NicProbe>> open(uint64_t job,
                                                const std::vector<transport::TcpEndpoint>& ours);
  uint16_t port() const { return listener_.port; }

  /// Seconds of the least round trip on each flow that answered; answers others meanwhile. Returns
  /// after `ms`.
  Values round_trips(const std::vector<Target>& targets, int64_t ms);

  /// Connects for round `round`; at most `ms`.
  void connect(uint64_t round, const std::vector<Target>& targets, int64_t ms);
  /// Sends to all of them, each at most `bytes_max`; bytes/s of each flow that arrives here, in the
  /// latter two thirds of `ms`. Returns a little after that, with everything closed.
  Values send_and_count(int64_t ms, uint64_t bytes_max);

  uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  struct Outgoing {
    UniqueFd socket;
    uint64_t flow = 0;
    bool connected = false;
    bool sending = false;
    uint64_t bytes = 0;     // sent in this round
    int64_t pinged_ns = 0;  // when the byte that is under way left; 0: none is
    double least_s = 0;     // 0: no answer yet
  };
  struct Incoming {
    UniqueFd socket;
    std::string heard;  // until the greeting is complete
    bool greeted = false;
    uint64_t round = 0;  // 0: every byte is sent back
    uint64_t flow = 0;
    uint64_t bytes = 0;  // counted
  };

  NicProbe(uint64_t job, transport::TcpListener listener)
      : job_(job), listener_(std::move(listener)) {}

  void dial(const std::vector<Target>& targets);
  void turn(int64_t until_ns);
  void accept_all();
  void greet(Outgoing& out);
  void on_outgoing(Outgoing& out);
  void send_more(Outgoing& out);
  /// False: the connection is done with.
  bool on_incoming(Incoming& in);
  bool hear(Incoming& in);
  void ping(Outgoing& out);
  void give_up(Outgoing& out);
  void close_round();

  const uint64_t job_;
  transport::TcpListener listener_;
  uint64_t round_ = 0;  // 0: of round trips
  std::list<Outgoing> outgoing_;
  std::list<Incoming> incoming_;
  bool counting_ = false;
  uint64_t bytes_max_ = 0;
  uint64_t bytes_sent_ = 0;
};

}  // namespace railccl::runtime
