// TcpNics: what one rank's links over several paths have found out about its NICs: which are its
// own, which work, what they carry. Tells the log once when one fails and once when it is back.
//
// One thread, that of the transport.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "transport/path_log.h"
#include "transport/tcp_link.h"

namespace railccl::transport {

class TcpNics {
 public:
  /// What is told to the log, in the medium's name, is told to `events`, too.
  TcpNics(const char* medium, PathLog* events) : medium_(medium), events_(events) {}
  /// `ours`: the interfaces of this rank, in order; `peers`: whose NIC each rank's is.
  void set_peers(int rank, const std::vector<std::string>& ours, const Peers& peers);

  /// Do links of this rank use the NIC while all is well? Its own; and of those that no rank of the
  /// host owns, every so-many-th.
  bool home(const std::string& nic) const;

  /// A link's news: what failed, or speaks again.
  void tell(const TcpLink& link, const TcpLink::News& news, int64_t now_ns);
  /// Is it time for a look at what paths carry?
  bool measure_now(int64_t now_ns) const { return now_ns - measured_ns_ >= kMeasureNs; }
  /// What became of the links' paths, added up over links by TcpLink::add_loads(); with what they
  /// carried if `measured`.
  void observe(const std::vector<TcpLink::NicLoad>& loads, bool measured, int64_t now_ns);
  /// Our home NICs, and what each was measured to carry.
  std::vector<NicSpeed> measured() const;

 private:
  static constexpr int64_t kMeasureNs = 5'000'000;
  struct State {
    // Since the last measurement, of the stretches at one end of which at least some path was busy.
    // The kernel tells for how long, but in ticks: to it, messages that begin and end between two
    // of them take no time, and several short ones at once made a NIC twice as fast as it is.
    bool busy = false;  // at the end of the last stretch
    uint64_t bytes = 0;
    int64_t busy_us = 0, waited_us = 0;
    // What it carried for all ranks that share it, the last times that it was measured: what else
    // goes on makes single figures smaller, nothing makes them larger, so the largest counts.
    std::array<double, 4> measured{};
    size_t next = 0;
    int64_t down_since_ns = 0;  // 0: it is not
  };
  const char* const medium_;
  PathLog* const events_;
  std::string rank_text_;
  std::vector<std::string> home_;
  std::map<std::string, int> sharers_;  // ranks of this host that own it
  std::map<std::string, State> states_;
  int64_t measured_ns_ = 0;  // the end of the last stretch
};

}  // namespace railccl::transport
