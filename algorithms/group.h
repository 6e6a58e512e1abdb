// Group: the ranks that take part in one (sub-)collective, in order. Algorithms are written against
// a Group and Regions, not against ranks 0..n-1, so that they compose: the same ring runs over all
// ranks, over the ranks of a host, or over one rail.
#pragma once

#include <cstddef>
#include <vector>

namespace railccl::algorithms {

struct Group {
  std::vector<int> members;  // global ranks in group order
  int me = 0;                // this rank's index in members

  int size() const { return static_cast<int>(members.size()); }
  /// Global rank of index i, taken modulo the size (also for negative i).
  int at(int i) const {
    const int n = size();
    return members[static_cast<size_t>(((i % n) + n) % n)];
  }
  static Group everyone(int ranks, int me) {
    Group group;
    for (int r = 0; r < ranks; r++) group.members.push_back(r);
    group.me = me;
    return group;
  }
};

}  // namespace railccl::algorithms
