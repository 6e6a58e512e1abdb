// Whole: a flat pattern as an algorithm over all ranks, each channel with its share of the data.
#pragma once

#include <algorithm>
#include <string>
#include <utility>

#include "algorithms/algorithm.h"
#include "algorithms/flat.h"

namespace railccl::algorithms {

/// One of several nearly equal shares of every region.
struct Share {
  int index = 0;
  int of = 1;

  Region operator()(const Region& region) const {
    return region.block(static_cast<uint64_t>(index), static_cast<uint64_t>(of));
  }
  /// The shares of `buffer`'s blocks, one block per rank, in the order of the group.
  Blocks of_each(const Region& buffer, const Group& group) const {
    Blocks blocks;
    blocks.reserve(group.members.size());
    for (const int member : group.members)
      blocks.push_back((*this)(buffer.block(static_cast<uint64_t>(member), group.members.size())));
    return blocks;
  }
};

/// The program of `rank` when `pattern(stage, share)` is written once per share. A pattern that
/// takes `channels_each` channels gets as many shares as fit into the tuning's, at least one.
template <typename Pattern>
Result<plan::Program> build_whole(const plan::Request& request, const topology::Topology& topology,
                                  const plan::Tuning& tuning, int rank, const char* name,
                                  const Pattern& pattern, int channels_each = 1) {
  Builder b(request, topology.size(), rank, name);
  const int shares = std::max(1, tuning.channels / channels_each);
  const Stage first{b, everyone_by_host(topology, rank), 0,
                    std::max<uint64_t>(1, tuning.chunk_elements)};
  for (int i = 0; i < shares; i++) {
    Stage stage = first;
    stage.channel = i * channels_each;
    pattern(stage, Share{i, shares});
  }
  return std::move(b).take();
}

/// The group index of a rank.
inline int index_of(const Group& group, int rank) {
  const auto at = std::find(group.members.begin(), group.members.end(), rank);
  return static_cast<int>(at - group.members.begin());
}

}  // namespace railccl::algorithms
