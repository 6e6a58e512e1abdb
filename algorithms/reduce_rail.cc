// Reduce, rail: broadcast_rail backwards. Hosts reduce-scatter shards, each shard is reduced along
// its rail to the root's host, and the root collects the shards there.
//
//   hosts {0,1} and {2,3}, root 0, data AB:  0 sums A and 1 sums B of their host (2 and 3
//   likewise);
//                                            2 -> 0: A and 3 -> 1: B on their rails;  1 -> 0: B
//
// Bytes: with R rails every NIC sends n/R once and takes it in at most once (twice in a tree);
// inside a host each rank carries (G-1)/G n, the root's port twice that. Scratch: n/G elements for
// the host's sums, as only the root has an output. Three pipelined stages.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/rail_rooted.h"
#include "algorithms/staged.h"

namespace railccl::algorithms {

Result<plan::Program> compose_reduce(const plan::Request& request,
                                     const topology::Topology& topology, const plan::Tuning& tuning,
                                     int rank, const Parts& parts, const char* name) {
  const int root = request.root;
  const bool is_root = rank == root;
  const Shards shards(topology, Group::everyone(topology.size(), rank).members, parts);
  const int part = shards.part_with(rank), root_part = shards.part_with(root);
  const std::vector<int>& locals = shards.part(part);
  const Group group = group_of(locals, rank);
  const auto me = static_cast<size_t>(group.me);
  const uint64_t chunk = chunk_of(tuning, shards);

  Builder b(request, topology.size(), rank, name);
  const auto lanes = static_cast<uint64_t>(lanes_of(tuning, 3));
  for (uint64_t lane = 0; lane < lanes; lane++) {
    const Region in = b.input().block(lane, lanes);
    // This host's sums of the shards that this rank owns, chunk after chunk.
    const auto piece_in = [&](uint64_t n) { return shards.pieces(in.part(0, n), part)[me].count; };
    const uint64_t full_piece = piece_in(chunk);
    const Region sums = b.scratch(in.count / chunk * full_piece + piece_in(in.count % chunk));
    const auto sum_of = [&](uint64_t from, uint64_t n) {
      return sums.part(from / chunk * full_piece, piece_in(n));
    };
    const StageBody scatter = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      const Stage stage{builder, group, channel, std::max<uint64_t>(1, n), Pre::yes, Post::no};
      spread_within(group.size(), n * size_of(request.datatype))
          .reduce_scatter(stage, shards.pieces(in.part(from, n), part), sum_of(from, n));
    };
    const StageBody across = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      const Region sum = sum_of(from, n);
      uint64_t at = 0;
      for (const int s : shards.owned_by(rank)) {
        const uint64_t count = shards.of(in.part(from, n), s).count;
        const Region shard = sum.part(at, count);
        at += count;
        const Region target =
            is_root ? shards.of(builder.output().block(lane, lanes).part(from, n), s) : shard;
        const Stage stage{builder, group_of(shards.across(s), rank),
                          channel, std::max<uint64_t>(1, count),
                          Pre::no, Post::yes};
        if (chain_across(count * size_of(request.datatype))) {
          ring_reduce(stage, root_part, shard, target);
        } else {
          tree_reduce(stage, 0, root_part, shard, target);
        }
      }
    };
    const StageBody collect = [&](Builder& builder, int, uint64_t from, uint64_t n) {
      if (part != root_part) return;
      if (!is_root) return builder.send(root, sum_of(from, n).slice());
      const Region out = builder.output().block(lane, lanes);
      const Blocks pieces = shards.pieces(out.part(from, n), part);
      for (size_t i = 0; i < locals.size(); i++) {
        if (i != me) builder.recv(locals[i], pieces[i].slice());
      }
    };
    write_stages(b, static_cast<int>(lane) * 3, in.count, chunk, {scatter, across, collect});
  }
  return std::move(b).take();
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::reduce && has_rails(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  return rail_rooted_cost(request, topology, tuning);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_reduce(request, topology, tuning, rank, host_parts(topology), "rail");
}

}  // namespace

RAILCCL_ALGORITHM(reduce_rail){Collective::reduce, "rail", supports, cost, build};

}  // namespace railccl::algorithms
