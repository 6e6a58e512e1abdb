// Chooser: which algorithm serves a request, with how many channels and which chunk size.
//
// Takes every registered algorithm that supports the request and that NCCL_ALGO allows, prices it
// for each tuning within the limits, and takes the cheapest; ties go to the one first in the
// registry. It looks only at the request (without in_place, in which ranks may differ), the merged
// topology and settings that all ranks agreed on, so all ranks choose alike without talking. Where
// they have a tuner plugin (tuner.h), its prices count instead for the algorithms that it knows;
// not for calls in which ranks reach into each other's open buffers, which have algorithms of their
// own. Immutable; any thread.
#pragma once

#include <functional>
#include <memory>

#include "algorithms/algorithm.h"
#include "base/settings.h"
#include "plan/plan.h"
#include "runtime/algorithm_filter.h"
#include "runtime/tuner.h"
#include "topology/topology.h"

namespace railccl::runtime {

using algorithms::Reach;

struct Chosen {
  const algorithms::Algorithm* algorithm = nullptr;
  plan::Tuning tuning;
  double predicted_s = 0;
};

class Chooser {
 public:
  /// Channel limits of 0 come from the settings. `load_store`: do ranks of a host share memory?
  /// `tuner`: one that has begun, or null.
  static Result<Chooser> make(const Settings& settings, int min_channels, int max_channels,
                              bool load_store, std::unique_ptr<Tuner> tuner = nullptr);

  /// Among the algorithms that need no more of peers' buffers than `reach`; for open buffers among
  /// those made for them.
  Result<Chosen> choose(const plan::Request& request, const topology::Topology& topology,
                        Reach reach = Reach::none) const;
  /// Is there an algorithm with just that reach for that collective here?
  bool has(Reach reach, Collective collective, const topology::Topology& topology) const;

 private:
  bool usable(const algorithms::Algorithm& algorithm, const plan::Request& request,
              const topology::Topology& topology) const;
  std::vector<plan::Tuning> tunings(const plan::Request& request, int min_channels,
                                    int max_channels) const;
  Chosen best_tuning(const algorithms::Algorithm& algorithm, const plan::Request& request,
                     const topology::Topology& topology,
                     const std::vector<plan::Tuning>& tunings) const;
  Chosen advised(std::vector<Chosen> offers, const plan::Request& request,
                 const topology::Topology& topology, Reach reach) const;

  AlgorithmFilter filter_;
  int min_channels_ = 1;
  int max_channels_ = 8;
  uint64_t chunk_bytes_ = 0;
  bool load_store_ = true;
  std::unique_ptr<Tuner> tuner_;
};

/// Does any rank's program read or write another rank's memory? Builds them all: not for hot paths.
Result<bool> uses_peer_memory(const algorithms::Algorithm& algorithm, const plan::Request& request,
                              const topology::Topology& topology, const plan::Tuning& tuning);

}  // namespace railccl::runtime
