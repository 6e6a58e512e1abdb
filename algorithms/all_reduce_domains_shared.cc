// All-reduce, domains_shared: all_reduce_domains with the stages inside domains through peers'
// scratch; what crosses domains goes by messages.
//
// D domains of G ranks: each rank lays out n in all where its neighbours load it, loads
// 2 (G-1)/G n, and sends and takes in 2 (D-1)/D n/G across; nothing in another domain's memory is
// loaded, which shared_all_reduce does with 2 (p-G)/p n per rank. The three stages of a chunk
// follow each other on one channel, since one thread does the work of all; channels overlap.
// Scratch: G + 2 shards of a chunk per channel.
#include <algorithm>
#include <cmath>

#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domain_cost.h"
#include "algorithms/staged.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_reduce && has_domains(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const DomainCut cut(request, topology, tuning);
  const AllReducePattern& outer = all_reduce_across(cut.domains, cut.shard_bytes());
  plan::Cost cost;
  cost.staged = true;
  cost.inner_bytes = cost.cross_bytes = outer.bytes(cut.domains, cut.owned_most());
  cost.peer_bytes = 2 * cut.spread_bytes();
  cost.shared_bytes = cut.bytes;
  const double turns = std::ceil(cut.chunks / std::max(1, tuning.channels));
  cost.inner_rounds = turns * (4 + outer.rounds(cut.domains));
  cost.inner_extra = turns * 4 * std::max(0, cut.most - 2);
  cost.local_bytes = cut.owned_most();
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  const Shards shards(topology, Group::everyone(topology.size(), rank).members,
                      domain_parts(topology));
  const int part = shards.part_with(rank);
  const Group domain = group_of(shards.part(part), rank);
  const auto me = static_cast<size_t>(domain.me);
  const std::vector<int> owned = shards.owned_by(rank);
  const uint64_t chunk = chunk_of(tuning, shards);
  const auto lanes = static_cast<uint64_t>(std::max(1, tuning.channels));

  Builder b(request, topology.size(), rank, "domains_shared");
  const uint64_t most = std::min(chunk, b.output().block(0, lanes).count);
  const uint64_t piece = largest(shards.pieces(b.output().part(0, most), part));
  // Taken at once, to lie at the same offset in scratch of the same size on all ranks of the
  // domain, also where they own different numbers of shards. The second is for doubling and Bruck's
  // pattern.
  const Region rooms = b.scratch(lanes * domain.members.size() * piece);
  const uint64_t slots = std::max<uint64_t>(2, static_cast<uint64_t>(shards.parts()));
  const Region halls = b.scratch(lanes * slots * shards.of(b.output().part(0, most), 0).count);
  for (uint64_t lane = 0; lane < lanes; lane++) {
    const Region in = b.input().block(lane, lanes), out = b.output().block(lane, lanes);
    const StageBody all = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      Scratch room(rooms.block(lane, lanes)), hall(halls.block(lane, lanes));
      const uint64_t whole = std::max<uint64_t>(1, n);
      const Stage first{builder, domain, channel, whole, Pre::yes, Post::no, &room};
      const Blocks pieces = shards.pieces(out.part(from, n), part);
      shared_reduce_scatter(first, shards.pieces(in.part(from, n), part), pieces[me]);
      for (const int s : owned) {
        const Region shard = shards.of(out.part(from, n), s);
        const Group across = group_of(shards.across(s), rank);
        all_reduce_across(across.size(), shard.count * size_of(request.datatype))
            .all_reduce({builder, across, channel, whole, Pre::no, Post::yes, &hall}, shard, shard);
      }
      shared_all_gather({builder, domain, channel, whole, Pre::no, Post::no, &room}, pieces[me],
                        pieces);
    };
    write_stages(b, static_cast<int>(lane), in.count, chunk, {all});
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_domains_shared){Collective::all_reduce, "domains_shared", supports,
                                             cost, build};

}  // namespace railccl::algorithms
