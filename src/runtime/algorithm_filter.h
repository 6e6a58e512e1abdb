// AlgorithmFilter: what NCCL_ALGO allows.
//
//   NCCL_ALGO=ring,tree                          these, for every collective that has them
//   NCCL_ALGO=^tree                              all but these
//   NCCL_ALGO="allreduce:ring;broadcast:^tree"   per collective; an entry without one is for all
//
// Case, '_' and '-' do not matter. NCCL's algorithms that need hardware of their own
// (CollnetDirect, CollnetChain, NVLS, NVLSTree) are accepted and match nothing. Anything else
// unknown is an error. Immutable.
#pragma once

#include <array>
#include <set>
#include <string>
#include <string_view>

#include "base/status.h"
#include "railccl/types.h"

namespace railccl::runtime {

class AlgorithmFilter {
 public:
  static Result<AlgorithmFilter> parse(std::string_view text);

  bool allows(Collective collective, std::string_view name) const;
  /// Was the collective named in an entry of its own? Then an empty choice is an error even when
  /// no algorithm of the collective has a listed name.
  bool explicit_for(Collective collective) const { return rule(collective).own; }
  /// True when the list names no algorithm that the collective has, so that it says nothing here.
  bool silent_for(Collective collective) const;

 private:
  struct Rule {
    bool present = false;
    bool exclude = false;
    bool own = false;
    std::set<std::string> names;
  };
  const Rule& rule(Collective collective) const { return rules_[static_cast<size_t>(collective)]; }
  std::array<Rule, kCollectiveCount> rules_;
};

}  // namespace railccl::runtime
