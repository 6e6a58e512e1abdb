// Checker: proves a plan right by running all ranks' programs symbolically.
//
// The verdict is a property of the plan: it does not depend on the order in which ranks are run.
//
// Each element carries the set of contributions it is made of. Proven per collective: every output
// element has each contribution it must have exactly once, pre- and post-scaled exactly once; no
// element is read before it was written; sends match receives in number and size; every access to
// a peer's memory is ordered against its owner's by signals (vector clocks); the program cannot
// deadlock with `send_window` messages in flight per (peer, channel); nothing is left in flight;
// slices lie inside their buffers. Counted: bytes per (from, to), messages, local bytes, and bytes
// that leave their rail.
//
// Interval-based: the cost grows with the number of steps, not of elements. Not for hot paths.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "plan/plan.h"

namespace railccl::plan {

struct CheckOptions {
  int send_window = kSendWindow;
  /// Steps run before the checker gives up (plans from files may ask for 2^64 iterations).
  uint64_t steps_max = uint64_t{1} << 32;
  /// In which order ranks are run; 0: as they come. The verdict is the same for all, and the tests
  /// use this to show it.
  uint64_t order_seed = 0;
  /// May `reader` load and store `owner`'s buffer? Default: no peer memory at all.
  std::function<bool(int reader, int owner, Buffer buffer)> load_store;
  /// Does the runtime make sure that all ranks have entered the call before any step happens? It
  /// does where peers' inputs and outputs are reached, of which it has to learn first.
  bool all_entered = false;
  /// Rank -> host and rank -> rail, for the crossing count. Empty: everything on one host.
  std::vector<int> host_of;
  std::vector<int> rail_of;
};

/// Signals between two channels of a rank are no messages and are not counted anywhere.
struct CheckReport {
  std::map<std::pair<int, int>, uint64_t> bytes;     // (from, to): message payload
  std::map<std::pair<int, int>, uint64_t> messages;  // (from, to): incl. signals
  std::vector<uint64_t> local_bytes;  // per rank: read by copy, reduce, recv_reduce (local operand)
  uint64_t inter_host_bytes = 0;
  uint64_t cross_rail_bytes = 0;  // between hosts and between different rails
  uint64_t rounds = 0;            // longest chain of dependent messages, signals included

  uint64_t sent_by(int rank) const;
  uint64_t received_by(int rank) const;
};

/// Is the program well formed on its own: step ranges, peers, channels and marks that its verbs can
/// have? The executor and print() may rely on what this accepts. check() does it for every rank.
Status validate(const Program& program);

/// `make(rank)` gives rank's Program. The Status names the rank, channel, step and element.
Result<CheckReport> check(const Request& request, int ranks,
                          const std::function<Result<Program>(int rank)>& make,
                          const CheckOptions& options = {});

}  // namespace railccl::plan
