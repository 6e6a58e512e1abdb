// Flat patterns' common parts: splitting regions, ordering groups, recognising shared places.
#include "algorithms/flat.h"

#include <algorithm>
#include <cstddef>

namespace railccl::algorithms {

Blocks split(const Region& whole, int n) {
  Blocks blocks;
  blocks.reserve(static_cast<size_t>(n));
  for (int i = 0; i < n; i++)
    blocks.push_back(whole.block(static_cast<uint64_t>(i), static_cast<uint64_t>(n)));
  return blocks;
}

uint64_t largest(const Blocks& blocks) {
  uint64_t count = 0;
  for (const Region& block : blocks) count = std::max(count, block.count);
  return count;
}

Group everyone_by_host(const topology::Topology& topology, int rank) {
  Group group;
  group.members.reserve(static_cast<size_t>(topology.size()));
  std::vector<bool> seen(topology.hosts().size(), false);
  for (int r = 0; r < topology.size(); r++) {
    const int host = topology.rank(r).host;
    if (seen[static_cast<size_t>(host)]) continue;
    seen[static_cast<size_t>(host)] = true;
    for (const int member : topology.ranks_of_host(host)) {
      if (member == rank) group.me = group.size();
      group.members.push_back(member);
    }
  }
  return group;
}

Group rotated(const Group& group, int root) {
  Group turned = group;
  std::rotate(turned.members.begin(), turned.members.begin() + root, turned.members.end());
  turned.me = (group.me - root + group.size()) % group.size();
  return turned;
}

namespace {

/// Elements that the output buffer starts behind the input buffer's start, when in place.
int64_t output_shift(const Builder& builder) {
  const plan::Request& request = builder.request();
  const auto block = static_cast<int64_t>(request.count) * builder.rank();
  switch (request.collective) {
    case Collective::reduce_scatter:
    case Collective::scatter:
      return block;
    case Collective::all_gather:
    case Collective::gather:
      return -block;
    default:
      return 0;
  }
}

}  // namespace

bool same_place(const Builder& builder, const Region& a, const Region& b) {
  if (a.owner != b.owner) return false;
  if (a.buffer == b.buffer) return a.offset == b.offset;
  if (!builder.request().in_place || a.buffer == plan::Buffer::scratch ||
      b.buffer == plan::Buffer::scratch)
    return false;
  const Region& input = a.buffer == plan::Buffer::input ? a : b;
  const Region& output = a.buffer == plan::Buffer::input ? b : a;
  return static_cast<int64_t>(input.offset) ==
         static_cast<int64_t>(output.offset) + output_shift(builder);
}

void place(const Stage& stage, const Region& source, const Region& target, Pre pre, Post post) {
  if (source.count == 0) return;
  const bool scales = pre == Pre::yes || post == Post::yes;
  if (!scales && same_place(stage.builder, source, target)) return;
  stage.on().copy(source.slice(), target.slice(), pre, post);
}

}  // namespace railccl::algorithms
