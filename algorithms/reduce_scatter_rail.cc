// Reduce-scatter, rail: all_gather_rail backwards. First inside hosts, so that each block leaves
// its host as one sum, then along the rails.
//
//   hosts {0,1} and {2,3}:  0 sums {A,C}, 1 sums {B,D} of their host (2 and 3 likewise);
//                           then 0 <-> 2 and 1 <-> 3 exchange sums on their rails
//
// Rails first would carry each host's blocks unreduced, G times as much. Bytes out of a NIC: (N-1)
// blocks for equal hosts with a NIC per rank, the bound; inside a host (G-1) N blocks per rank. The
// sums between the two stages take n/G elements of scratch, n the input's.
#include "algorithms/algorithm.h"
#include "algorithms/columns.h"
#include "algorithms/staged.h"

namespace railccl::algorithms {

Result<plan::Program> compose_reduce_scatter(const plan::Request& request,
                                             const topology::Topology& topology,
                                             const plan::Tuning& tuning, int rank,
                                             const Parts& parts, const char* name) {
  const auto ranks = static_cast<uint64_t>(topology.size());
  const Columns columns(topology, rank, parts);
  const Shards& shards = columns.shards;
  const uint64_t chunk = std::max<uint64_t>(1, tuning.chunk_elements);
  Builder b(request, topology.size(), rank, name);
  const auto lanes = static_cast<uint64_t>(lanes_of(tuning, 3));
  const std::vector<int> brought = columns.brought_by(rank);
  for (uint64_t lane = 0; lane < lanes; lane++) {
    const Region result = b.output().block(lane, lanes);
    const auto inputs = [&, lane](const std::vector<int>& of, uint64_t from, uint64_t n) {
      Blocks list;
      for (const int r : of) {
        list.push_back(
            b.input().block(static_cast<uint64_t>(r), ranks).block(lane, lanes).part(from, n));
      }
      return list;
    };
    // This host's sums of the blocks that this rank carries, in the order of `brought`.
    const Region sums = b.scratch(brought.size() * result.count);
    const auto sums_of = [&](const std::vector<int>& of, uint64_t from, uint64_t n) {
      Blocks list;
      for (const int r : of) {
        const auto at = std::find(brought.begin(), brought.end(), r) - brought.begin();
        list.push_back(sums.part(static_cast<uint64_t>(at) * result.count + from, n));
      }
      return list;
    };
    const StageBody within = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      const std::vector<int>& locals = shards.part(columns.part);
      std::vector<Blocks> lists;
      for (const int r : locals) lists.push_back(inputs(columns.brought_by(r), from, n));
      const Stage stage{builder, group_of(locals, rank), channel, ranks * n, Pre::yes, Post::no};
      const uint64_t bytes = n * ranks * size_of(request.datatype);
      scatter_lists(stage, lists, sums_of(brought, from, n),
                    spread_within(stage.group.size(), bytes), chunk);
    };
    const StageBody across = [&](Builder& builder, int channel, uint64_t from, uint64_t n) {
      for (const int s : columns.owned) {
        std::vector<Blocks> lists;
        for (int p = 0; p < shards.parts(); p++) {
          lists.push_back(sums_of(shards.blocks_of(p, s), from, n));
        }
        Blocks targets = lists[static_cast<size_t>(columns.part)];
        const std::vector<int> own = shards.blocks_of(columns.part, s);
        for (size_t i = 0; i < own.size(); i++) {
          if (own[i] == rank) targets[i] = result.part(from, n);
        }
        const Stage stage{builder,  group_of(shards.across(s), rank), channel, ranks * n, Pre::no,
                          Post::yes};
        const uint64_t bytes = n * lists.size() * size_of(request.datatype);
        scatter_lists(stage, lists, targets, spread_across(shards.parts(), bytes), chunk);
      }
    };
    const StageBody hand_over = [&](Builder& builder, int, uint64_t from, uint64_t n) {
      for (const int r : columns.handed()) builder.send(r, sums_of({r}, from, n)[0].slice());
      const int carrier = columns.carrier(rank);
      if (carrier != rank) builder.recv(carrier, result.part(from, n).slice());
    };
    write_stages(b, static_cast<int>(lane) * 3, result.count, chunk, {within, across, hand_over});
  }
  return std::move(b).take();
}

namespace {

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::reduce_scatter && has_rails(topology);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return compose_reduce_scatter(request, topology, tuning, rank, host_parts(topology), "rail");
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_rail){Collective::reduce_scatter, "rail", supports, columns_cost,
                                       build};

}  // namespace railccl::algorithms
