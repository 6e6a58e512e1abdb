// All-gather, PAT (Jeaugey 2025; see pat.h): a binomial tree per block, far hops first, with as
// many blocks in one message as fit into a chunk.
//
// Bytes: p-1 blocks in and out per rank, the bound. Rounds: log2 p and a few for small blocks, p-1
// pipelined ones for large. Scratch: 3 chunks per channel, nothing when a block fills a chunk.
#include "algorithms/algorithm.h"
#include "algorithms/bundle.h"
#include "algorithms/pat.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_gather;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  const int p = topology.size();
  const auto lanes = static_cast<uint64_t>(tuning.channels);
  const uint64_t lane_block = (request.count + lanes - 1) / lanes;
  const uint64_t chunk = tuning.chunk_elements;
  const int aggregation = pat_aggregation(p, lane_block, chunk);
  const std::vector<PatRound> rounds = pat_rounds(p, aggregation);

  plan::Builder b(request, p, rank, "pat");
  for (uint64_t lane = 0; lane < lanes; lane++) {
    b.channel(static_cast<int>(lane));
    const auto block_of = [&](int r) {
      return b.output()
          .block(static_cast<uint64_t>((r + p) % p), static_cast<uint64_t>(p))
          .block(lane, lanes);
    };
    const uint64_t count = block_of(0).count;
    const plan::Region mine = b.input().block(lane, lanes);

    if (aggregation == 1) {
      b.loop(plan::chunk_count(count, chunk), [&] {
        if (!request.in_place) b.copy(mine.chunks(chunk), block_of(rank).chunks(chunk));
        for (const PatRound& round : rounds) {
          const int d = round.distance, k = round.offsets[0];
          const plan::Region held = k == d ? mine : block_of(rank - k + d);
          b.send((rank + d) % p, held.chunks(chunk));
          b.recv((rank - d + p) % p, block_of(rank - k).chunks(chunk));
        }
      });
      continue;
    }
    const uint64_t bundle = static_cast<uint64_t>(aggregation) * count;
    const plan::Region arriving = b.scratch(bundle);
    // Two rooms to pack in, so that packing need not wait for the message before to have left.
    const plan::Region leaving[2] = {b.scratch(bundle), b.scratch(bundle)};
    size_t turn = 0;
    if (!request.in_place) b.copy(mine.slice(), block_of(rank).slice());
    for (const PatRound& round : rounds) {
      std::vector<plan::Slice> sent, received;
      for (const int k : round.offsets) {
        sent.push_back(block_of(rank - k + round.distance).slice());
        received.push_back(block_of(rank - k).slice());
      }
      send_bundle(b, (rank + round.distance) % p, sent, leaving[turn++ % 2]);
      recv_bundle(b, (rank - round.distance + p) % p, received, arriving);
    }
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_gather_pat){Collective::all_gather, "pat", supports, pat_cost, build};

}  // namespace railccl::algorithms
