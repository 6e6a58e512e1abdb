// Broadcast, rail: the root scatters shards in its host, each goes to all hosts on its own rail,
// and every host puts them together.
//
//   hosts {0,1} and {2,3}, root 0, data AB:  0 -> 1: B;  0 -> 2: A and 1 -> 3: B on their rails;
//                                            0 <-> 1 and 2 <-> 3 exchange A and B
//
// Bytes: with R rails every NIC takes in n/R at most once and passes it on at most once (a chain or
// a tree outside); one NIC alone would need R times as long. Inside a host each rank takes in
// (G-1)/G n; the root's port sends (G-1)/G n once more than the others'. No scratch; three
// pipelined stages.
#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/rail_rooted.h"
#include "algorithms/staged.h"

namespace railccl::algorithms {

Result<plan::Program> compose_broadcast(const plan::Request& request,
                                        const topology::Topology& topology,
                                        const plan::Tuning& tuning, int rank, const Parts& parts,
                                        const char* name) {
  const int root = request.root;
  const bool is_root = rank == root;
  const Shards shards(topology, Group::everyone(topology.size(), rank).members, parts);
  const int part = shards.part_with(rank), root_part = shards.part_with(root);
  const std::vector<int>& locals = shards.part(part);
  const Group group = group_of(locals, rank);
  const auto me = static_cast<size_t>(group.me);

  Builder b(request, topology.size(), rank, name);
  const auto lanes = static_cast<uint64_t>(lanes_of(tuning, 3));
  for (uint64_t lane = 0; lane < lanes; lane++) {
    const Region out = b.output().block(lane, lanes);
    const StageBody scatter = [&](Builder& builder, int, uint64_t from, uint64_t n) {
      if (part != root_part) return;
      const Blocks pieces = shards.pieces(out.part(from, n), part);
      if (!is_root) return builder.recv(root, pieces[me].slice());
      const Region in = builder.input().block(lane, lanes);
      const Blocks sources = shards.pieces(in.part(from, n), part);
      for (size_t i = 0; i < locals.size(); i++) {
        if (i != me) {
          builder.send(locals[i], sources[i].slice());
        } else if (!request.in_place) {
          builder.copy(sources[i].slice(), pieces[i].slice());
        }
      }
    };
    const StageBody across = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      for (const int s : shards.owned_by(rank)) {
        const Region shard = shards.of(out.part(from, n), s);
        const Stage stage{builder, group_of(shards.across(s), rank), channel,
                          std::max<uint64_t>(1, n)};
        if (chain_across(shard.count * size_of(request.datatype))) {
          ring_broadcast(stage, root_part, shard, shard);
        } else {
          tree_broadcast(stage, 0, root_part, shard, shard);
        }
      }
    };
    const StageBody gather = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      const Blocks pieces = shards.pieces(out.part(from, n), part);
      const Stage stage{builder, group, channel, std::max<uint64_t>(1, n)};
      spread_within(group.size(), n * size_of(request.datatype))
          .all_gather(stage, pieces[me], pieces);
    };
    write_stages(b, static_cast<int>(lane) * 3, out.count, chunk_of(tuning, shards),
                 {scatter, across, gather});
  }
  return std::move(b).take();
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::broadcast && has_rails(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  return rail_rooted_cost(request, topology, tuning);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_broadcast(request, topology, tuning, rank, host_parts(topology), "rail");
}

}  // namespace

RAILCCL_ALGORITHM(broadcast_rail){Collective::broadcast, "rail", supports, cost, build};

}  // namespace railccl::algorithms
