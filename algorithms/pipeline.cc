// Pipeline: one loop over the chunks; sends are posted, so that neighbours work on different
// chunks.
#include "algorithms/pipeline.h"

#include <algorithm>

#include "algorithms/port_meter.h"

namespace railccl::algorithms {

void flow_down(const Stage& stage, const Links& links, const Region& source, const Region& target,
               const std::function<void()>& before_chunk) {
  const bool root = links.parent < 0;
  const Region& held = root ? source : target;
  Builder& b = stage.on();
  b.loop(plan::chunk_count(held.count, stage.chunk), [&] {
    const Slice chunk = held.chunks(stage.chunk);
    if (root && before_chunk) before_chunk();
    if (!root) b.recv(links.parent, chunk);
    for (const int child : links.children) b.send(child, chunk);
  });
  if (root) place(stage, source, target, Pre::no, Post::no);
}

void flow_up(const Stage& stage, const Links& links, const Region& source, const Region& target,
             const std::function<void()>& after_chunk) {
  const bool root = links.parent < 0;
  if (root && links.children.empty()) return place(stage, source, target, stage.pre, stage.post);
  const uint64_t chunk = std::min(stage.chunk, source.count);
  if (chunk == 0) return;
  const uint64_t iterations = plan::chunk_count(source.count, chunk);
  const auto slots = static_cast<uint32_t>(std::min<uint64_t>(kPipelineSlots, iterations));
  const bool inner = !root && !links.children.empty();
  const Region room = stage.take(inner ? slots * chunk : 0);
  const Slice raw = source.chunks(chunk);
  const Slice sum = root ? target.chunks(chunk) : room.slots(chunk, slots, source.count);
  Builder& b = stage.on();
  b.loop(iterations, [&] {
    for (const int child : links.children) {
      const bool first = child == links.children.front(), last = child == links.children.back();
      b.recv_reduce(child, first ? raw : sum, sum, first ? stage.pre : Pre::no,
                    root && last ? stage.post : Post::no);
    }
    if (links.children.empty())
      b.send(links.parent, raw, stage.pre);
    else if (!root)
      b.send(links.parent, sum);
    else if (after_chunk)
      after_chunk();
  });
}

plan::Cost pipeline_cost(const topology::Topology& topology, const std::vector<Edge>& edges,
                         Flow flow, double depth, double bytes, double chunks) {
  plan::Cost cost;
  if (edges.empty() || bytes == 0) return cost;
  PortMeter meter(topology);
  double outer = 0;
  for (const Edge& edge : edges) {
    if (flow != Flow::up) meter.add(edge.parent, edge.child, bytes);
    if (flow != Flow::down) meter.add(edge.child, edge.parent, bytes);
    if (topology.rank(edge.parent).host != topology.rank(edge.child).host) outer++;
  }
  meter.charge(cost);
  // The way down meets wires between hosts in the proportion in which the edges are such wires; the
  // beat of the pipeline is that of its slowest edge. Filling moves depth - 1 chunks more.
  const double share = outer / static_cast<double>(edges.size());
  const double beats = chunks - 1;
  cost.outer_rounds = depth * share + (outer > 0 ? beats : 0);
  cost.inner_rounds = depth * (1 - share) + (outer > 0 ? 0 : beats);
  const double fill = (depth - 1) * bytes / chunks;
  cost.outer_bytes += fill * share;
  cost.inner_bytes += fill * (1 - share);
  return cost;
}

}  // namespace railccl::algorithms
