// Shared: how ranks of one host meet in each other's scratch.
#pragma once

#include <algorithm>
#include <vector>

#include "algorithms/flat.h"
#include "base/caches.h"

namespace railccl::algorithms {

/// One host holds everybody.
inline bool one_host(const topology::Topology& topology) {
  return topology.used_hosts().size() <= 1;
}

/// Everyone tells everyone, then hears from everyone: what was done before is done for all.
inline void meet(const Stage& stage) {
  const Group& group = stage.group;
  Builder& b = stage.on();
  for (int i = 1; i < group.size(); i++) b.signal(group.at(group.me + i));
  for (int i = 1; i < group.size(); i++) b.wait(group.at(group.me - i));
}

/// The same scratch on another member; here for oneself.
inline Region at_peer(const Group& group, int index, Region region) {
  region.owner = index == group.me ? plan::kHere : group.at(index);
  return region;
}

/// The cost of a pattern priced as if it sent its messages, when instead each rank writes `written`
/// bytes where its peers load them.
inline plan::Cost loaded(plan::Cost cost, double written) {
  cost.shared_bytes += written;
  cost.peer_bytes += cost.inner_bytes;
  cost.inner_bytes = 0;
  return cost;
}

/// In how many slots each the iterations of a loop should take turns that use `elements` of scratch
/// apiece. Between calls the executor does the like.
inline uint32_t turns(const Stage& stage, uint64_t elements, uint64_t iterations) {
  const uint64_t bytes = elements * size_of(stage.builder.request().datatype);
  const uint64_t enough = std::max<uint64_t>(1, kForgottenBytes / std::max<uint64_t>(1, bytes));
  return static_cast<uint32_t>(std::clamp<uint64_t>(iterations, 1, enough));
}

/// `turns` slots of a chunk per block of scratch for contributions: block i's from
/// i * turns * chunk on.
class Contributions {
 public:
  Contributions(const Stage& stage, const Region& room, uint64_t chunk, uint32_t turns,
                const Blocks& input)
      : stage_(stage), room_(room), chunk_(chunk), turns_(turns), input_(input) {}

  /// Others' blocks of my input, into my slots.
  void publish() const {
    for (int i = 1; i < stage_.group.size(); i++) {
      const int block = (stage_.group.me + i) % stage_.group.size();
      stage_.builder.copy(raw(block), slot_of(stage_.group.me, block), stage_.pre);
    }
  }

  /// My block of everyone's input, reduced to all `targets`.
  void reduce_mine(const std::vector<Slice>& targets) const {
    const int p = stage_.group.size(), me = stage_.group.me;
    std::vector<Slice> others;
    for (int i = 1; i < p; i++) others.push_back(slot_of((me + i) % p, me));
    stage_.builder.reduce(raw(me), others, targets, stage_.pre, stage_.post);
  }

 private:
  Slice raw(int block) const { return input_[static_cast<size_t>(block)].chunks(chunk_); }
  Slice slot_of(int member, int block) const {
    const uint64_t room = turns_ * chunk_;
    const Region here = room_.part(static_cast<uint64_t>(block) * room, room);
    return at_peer(stage_.group, member, here)
        .slots(chunk_, turns_, input_[static_cast<size_t>(block)].count);
  }

  const Stage& stage_;
  Region room_;
  uint64_t chunk_;
  uint32_t turns_;
  const Blocks& input_;
};

}  // namespace railccl::algorithms
