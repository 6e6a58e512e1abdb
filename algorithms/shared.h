// Shared: how ranks of one host meet in each other's scratch.
#pragma once

#include <algorithm>
#include <vector>

#include "algorithms/flat.h"

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

/// The cost of a pattern priced as if it sent its messages, when it loads them from its peers'
/// memory instead: nobody copies anything out first.
inline plan::Cost loaded(plan::Cost cost) {
  cost.peer_bytes += cost.inner_bytes;
  cost.inner_bytes = 0;
  return cost;
}

/// A slot that every iteration uses again, as long as chunk i of `total` elements.
inline Slice slot(const Region& region, uint64_t chunk, uint64_t total) {
  return region.slots(chunk, 1, total);
}

/// One slot per block of scratch for contributions: block i's at part(i * chunk, chunk).
class Contributions {
 public:
  Contributions(const Stage& stage, const Region& room, uint64_t chunk, const Blocks& input)
      : stage_(stage), room_(room), chunk_(chunk), input_(input) {}

  /// Others' blocks of my input, into my slots.
  void publish() const {
    for (int i = 1; i < stage_.group.size(); i++) {
      const int block = (stage_.group.me + i) % stage_.group.size();
      stage_.builder.copy(raw(block), slot_of(stage_.group.me, block), stage_.pre);
    }
  }

  /// My block of everyone's input, reduced to `target`.
  void reduce_mine(const Slice& target) const {
    const int p = stage_.group.size(), me = stage_.group.me;
    std::vector<Slice> others;
    for (int i = 1; i < p; i++) others.push_back(slot_of((me + i) % p, me));
    stage_.builder.reduce(raw(me), others, target, stage_.pre, stage_.post);
  }

 private:
  Slice raw(int block) const { return input_[static_cast<size_t>(block)].chunks(chunk_); }
  Slice slot_of(int member, int block) const {
    const Region here = room_.part(static_cast<uint64_t>(block) * chunk_, chunk_);
    return slot(at_peer(stage_.group, member, here), chunk_,
                input_[static_cast<size_t>(block)].count);
  }

  const Stage& stage_;
  Region room_;
  uint64_t chunk_;
  const Blocks& input_;
};

}  // namespace railccl::algorithms
