// All-reduce, Bruck: everyone gathers everything as all_gather_bruck does, and reduces by itself.
//
//   p = 3, contributions A B C:  0 sends A to 2, 1 sends B to 0, 2 sends C to 1;
//                                0 sends A to 1, 1 sends B to 2, 2 sends C to 0;  all add A + B + C
//
// ceil(log2 p) rounds for any p, the least possible, where doubling takes two more than log2 of the
// next smaller power; but (p-1) n bytes sent and received per rank. For messages so small that only
// their number counts. Each rank keeps the blocks in its own order, its own first, so that a round
// is one message; it adds them in the order of the group, so that all get the same bits. Scratch: p
// chunks per channel.
#include "algorithms/circle_cost.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {
namespace {

/// One chunk, or one iteration's: `mine` and `result` have `chunk` elements, `room` has p times as
/// many.
void gather_and_reduce(const Stage& stage, const Region& room, uint64_t chunk, const Slice& mine,
                       const Slice& result) {
  const Group& group = stage.group;
  const int p = group.size(), me = group.me;
  // Blocks i to i + n of the circle, counted from this rank.
  const auto blocks = [&](int i, int n) {
    return room.part(static_cast<uint64_t>(i) * chunk, static_cast<uint64_t>(n) * chunk).slice();
  };
  Builder& b = stage.builder;
  b.copy(mine, blocks(0, 1), stage.pre);
  for (int have = 1; have < p; have *= 2) {
    const int n = std::min(have, p - have);
    b.send(group.at(me - have), blocks(0, n));
    b.recv(group.at(me + have), blocks(have, n));
  }
  std::vector<Slice> in_order;
  for (int i = 0; i < p; i++) in_order.push_back(blocks((i + p - me) % p, 1));
  b.reduce(in_order[0], std::span(in_order).subspan(1), result, Pre::no, stage.post);
}

}  // namespace

void bruck_all_reduce(const Stage& stage, const Region& input, const Region& output) {
  const auto p = static_cast<uint64_t>(stage.group.size());
  if (p == 1) return place(stage, input, output, stage.pre, stage.post);
  if (input.count == 0) return;
  const uint64_t chunk = std::min(stage.chunk, input.count);
  const Region room = stage.take(p * chunk);
  const uint64_t full = input.count / chunk, rest = input.count % chunk;
  stage.on().loop(full, [&] {
    gather_and_reduce(stage, room, chunk, input.part(0, full * chunk).chunks(chunk),
                      output.part(0, full * chunk).chunks(chunk));
  });
  // Blocks lie side by side at their true size, so a shorter last chunk is laid out anew.
  if (rest > 0)
    gather_and_reduce(stage, room, rest, input.part(full * chunk, rest).slice(),
                      output.part(full * chunk, rest).slice());
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_reduce;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double n = static_cast<double>(plan::bytes_of(request));
  const double iterations = iterations_of(request.count, tuning, tuning.channels, 1);
  for (int have = 1; have < p; have *= 2)
    cost.skip(-have, iterations, n * std::min(have, p - have));
  cost.local(n * (p + 1));
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "bruck", [](const Stage& stage, const Share& share) {
        bruck_all_reduce(stage, share(stage.builder.input()), share(stage.builder.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_bruck){Collective::all_reduce, "bruck", supports, cost, build};

}  // namespace railccl::algorithms
