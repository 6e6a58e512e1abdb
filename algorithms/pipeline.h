// Pipeline: chunks flow along a tree or chain, down to everyone or up to one, summing on the way.
#pragma once

#include <functional>

#include "algorithms/flat.h"
#include "algorithms/tree.h"

namespace railccl::algorithms {

/// Slots that sums on their way up pass through: a rank may be that many chunks ahead of its
/// parent.
inline constexpr uint32_t kPipelineSlots = 4;

/// `source` of the rank without parent goes to everyone's `target`. `before_chunk` is written ahead
/// of each chunk's steps at that rank.
void flow_down(const Stage& stage, const Links& links, const Region& source, const Region& target,
               const std::function<void()>& before_chunk = {});

/// Everyone's `source`, reduced, goes to `target` of the rank without parent. `after_chunk` is
/// written behind each chunk's steps at that rank.
void flow_up(const Stage& stage, const Links& links, const Region& source, const Region& target,
             const std::function<void()>& after_chunk = {});

/// What a pipeline of `depth` hops costs when each of `edges` (as often as it is there) carries
/// `bytes` in `chunks` chunks, downwards, upwards or both: the first chunk's way, then a chunk a
/// beat.
enum class Flow { down, up, both };
plan::Cost pipeline_cost(const topology::Topology& topology, const std::vector<Edge>& edges,
                         Flow flow, double depth, double bytes, double chunks);

}  // namespace railccl::algorithms
