// All-gather, rail: first along the rails, so that each host has every block once, then inside
// hosts.
//
//   hosts {0,1} and {2,3}:  0 <-> 2 and 1 <-> 3 exchange blocks on their rails;
//                           then 0 <-> 1 and 2 <-> 3 exchange the pairs {A,C} and {B,D}
//
// Bytes into a NIC: the blocks of its column from the other hosts, (N-1) for equal hosts with a NIC
// per rank; the bound, as each host must take in all blocks of the others once. Inside a host each
// rank takes in what it did not bring, (G-1) N blocks. Nothing is stored but in the output, apart
// from bundles of small blocks (at most a chunk of scratch per stage and owned shard); the stages
// are pipelined.
#include "algorithms/algorithm.h"
#include "algorithms/columns.h"
#include "algorithms/staged.h"

namespace railccl::algorithms {

Result<plan::Program> compose_all_gather(const plan::Request& request,
                                         const topology::Topology& topology,
                                         const plan::Tuning& tuning, int rank, const Parts& parts,
                                         const char* name) {
  const auto ranks = static_cast<uint64_t>(topology.size());
  const Columns columns(topology, rank, parts);
  const Shards& shards = columns.shards;
  const uint64_t chunk = std::max<uint64_t>(1, tuning.chunk_elements);
  Builder b(request, topology.size(), rank, name);
  const auto lanes = static_cast<uint64_t>(lanes_of(tuning, 3));
  for (uint64_t lane = 0; lane < lanes; lane++) {
    const Region mine = b.input().block(lane, lanes);
    const auto blocks = [&, lane](const std::vector<int>& of, uint64_t from, uint64_t n) {
      Blocks list;
      for (const int r : of) {
        list.push_back(
            b.output().block(static_cast<uint64_t>(r), ranks).block(lane, lanes).part(from, n));
      }
      return list;
    };
    const StageBody hand_over = [&](Builder& builder, int, uint64_t from, uint64_t n) {
      const int carrier = columns.carrier(rank);
      const Slice own = mine.part(from, n).slice();
      if (carrier != rank) {
        builder.send(carrier, own);
      } else if (!request.in_place) {
        builder.copy(own, blocks({rank}, from, n)[0].slice());
      }
      for (const int r : columns.handed()) builder.recv(r, blocks({r}, from, n)[0].slice());
    };
    const StageBody across = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      for (const int s : columns.owned) {
        std::vector<Blocks> lists;
        for (int p = 0; p < shards.parts(); p++) {
          lists.push_back(blocks(shards.blocks_of(p, s), from, n));
        }
        const Stage stage{builder, group_of(shards.across(s), rank), channel, ranks * n};
        const uint64_t bytes = n * lists.size() * size_of(request.datatype);
        gather_lists(stage, lists, spread_across(shards.parts(), bytes), chunk);
      }
    };
    const StageBody within = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      const std::vector<int>& locals = shards.part(columns.part);
      std::vector<Blocks> lists;
      for (const int r : locals) lists.push_back(blocks(columns.brought_by(r), from, n));
      const Stage stage{builder, group_of(locals, rank), channel, ranks * n};
      const uint64_t bytes = n * ranks * size_of(request.datatype);
      gather_lists(stage, lists, spread_within(stage.group.size(), bytes), chunk);
    };
    write_stages(b, static_cast<int>(lane) * 3, mine.count, chunk, {hand_over, across, within});
  }
  return std::move(b).take();
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_gather && has_rails(topology);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_all_gather(request, topology, tuning, rank, host_parts(topology), "rail");
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_rail){Collective::all_gather, "rail", supports, columns_cost, build};

}  // namespace railccl::algorithms
