// Simulation: how long a plan takes on a cluster that need not exist.
//
// Performs all ranks' programs step for step, event by event: messages and local work are flows
// over the links of a Fabric, which they share max-min fairly (sharing.h). What a step does:
//
//   send         is posted and goes on; messages of one (sender, receiver, channel) follow each
//                other in order, one flowing at a time, waited for or not. A message arrives
//                a latency after its last byte has left
//   recv         waits until the message has arrived
//   recv_reduce  likewise, then reads message and operand and writes the sum
//   copy, reduce read all sources and write all targets, here or over the in-host ports
//   signal, wait a message without bytes; between channels of a rank free and at once
//
// Waiting is as the plan language has it (plan.h): at most kSendWindow messages of a (sender,
// receiver, channel) are posted and not yet taken; what a send reads is not written before its last
// byte has left. Each step that does something costs its channel `step_s` besides.
//
// The same plan, topology and options give the same report, to the bit. Any thread; two
// simulations share nothing.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "plan/plan.h"
#include "simulator/fabric.h"
#include "topology/topology.h"

namespace railccl::simulator {

/// A rank whose memory and steps take `factor` times as long as they should (1 or more).
struct SlowRank {
  int rank = 0;
  double factor = 1;
};

/// From `time_s` on, both directions of a NIC carry `factor` (0 to 1) of what they should.
struct Fault {
  double time_s = 0;
  int host = 0;
  int nic = 0;  // index into Host::nics
  double factor = 1;
};

struct Options {
  /// What a channel of a rank does for a step besides moving bytes: what the cost model charges for
  /// a message that is under way together with others.
  double step_s = 0.2e-6;
  std::vector<SlowRank> slow;
  std::vector<Fault> faults;
  /// Latencies and steps take longer by a random share, exponentially distributed with this mean.
  double jitter = 0;
  uint64_t seed = 1;
  /// Simulate one for all ranks that do the same at the same time: the same times up to rounding,
  /// in a fraction of the time. Only where nothing sets one apart: no slow ranks, faults, jitter.
  bool fold = false;
  /// Steps of all ranks before the simulator gives up (plans from files may ask for 2^64).
  uint64_t steps_max = uint64_t{1} << 32;
};

struct LinkLoad {
  LinkFacts link;
  double bytes = 0;
  /// Of what it could have carried without faults in the time that the plan took.
  double used = 0;
};

struct Report {
  double seconds = 0;
  /// How many ranks were simulated as one. Of pairs and links only those whose (sending) rank stood
  /// in for the others are told, with what each of them moves; totals are of all.
  int folds = 1;
  std::map<std::pair<int, int>, uint64_t> bytes;     // (from, to): message payload
  std::map<std::pair<int, int>, uint64_t> messages;  // (from, to): incl. signals
  uint64_t inter_host_bytes = 0;
  std::vector<uint64_t> bytes_of_rail;  // between hosts, on that rail
  uint64_t spine_bytes = 0;             // between hosts, leaving their rail
  std::vector<LinkLoad> links;          // those that carried anything
  uint64_t steps = 0;                   // of all ranks
  uint64_t events = 0;

  /// The link that was used most; null when nothing moved.
  const LinkLoad* most_loaded() const;
};

/// `make(rank)` gives rank's Program, and is not kept; called once for each rank, in order, or with
/// Options::fold for some ranks only, more than once, in any order. Fails when
/// an option is out of range, a program is not valid, or the plan cannot finish (what the checker
/// would find, or a link that carries nothing any more), naming who waits for what.
Result<Report> simulate(const plan::Request& request, const topology::Topology& topology,
                        const MakeProgram& make, const Options& options = {});

}  // namespace railccl::simulator
