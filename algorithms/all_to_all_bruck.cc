// All-to-all, Bruck (Bruck, Ho, Kipnis, Upfal & Weathersby 1997): log2 p rounds for small blocks.
//
// A block for rank + j has "offset" j. In round k every block whose offset has bit k set moves 2^k
// ranks on, all of them in one message; after the last round it has moved j ranks in all.
//
//     p = 4, offsets 1 2 3:   round 0 moves 1 and 3 by one rank;  round 1 moves 2 and 3 by two
//
// Rounds: ceil(log2 p), the bound. Bytes: about (p/2) log2 p blocks per rank instead of p-1. The
// rotations of the original are not needed, since a plan knows where each block lies. Blocks are
// cut so that a message is about a chunk; scratch: (log2 p + 2) messages.
#include "algorithms/algorithm.h"
#include "algorithms/bundle.h"
#include "algorithms/port_meter.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::all_to_all;
}

std::vector<int> offsets_with(int bit, int ranks) {
  std::vector<int> offsets;
  for (int j = bit; j < ranks; j++) {
    if ((j & bit) != 0) offsets.push_back(j);
  }
  return offsets;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning&) {
  const int p = topology.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  PortMeter meter(topology);
  plan::Cost cost;
  double rounds = 0;
  for (int bit = 1; bit < p; bit *= 2) {
    const double bytes = static_cast<double>(offsets_with(bit, p).size()) * block;
    for (int r = 0; r < p; r++) meter.add(r, (r + bit) % p, bytes);
    cost.local_bytes += 2 * bytes;  // packed and unpacked
    rounds++;
  }
  meter.charge(cost);
  (topology.used_hosts().size() > 1 ? cost.outer_rounds : cost.inner_rounds) = rounds;
  cost.local_bytes += block;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  const int p = topology.size();
  const auto block = [&](const plan::Region& whole, int r) {
    return whole.block(static_cast<uint64_t>((r + p) % p), static_cast<uint64_t>(p));
  };
  const auto message_blocks = static_cast<uint64_t>(std::max(p / 2, 1));
  const uint64_t part =
      std::min(std::max(tuning.chunk_elements / message_blocks, uint64_t{1}), request.count);

  plan::Builder b(request, p, rank, "bruck");
  b.channel(0);
  std::vector<plan::Region> arrivals;
  for (int bit = 1; bit < p; bit *= 2) {
    arrivals.push_back(b.scratch(static_cast<uint64_t>(offsets_with(bit, p).size()) * part));
  }
  // Two rooms to pack in, so that packing need not wait for the message before to have left.
  const plan::Region leaving[2] = {b.scratch(message_blocks * part),
                                   b.scratch(message_blocks * part)};
  if (request.count == 0) return std::move(b).take();

  each_chunk(b, request.count, part, [&](const Chunk& chunk) {
    std::vector<plan::Slice> held;  // by offset: where that block lies at this rank now
    for (int j = 0; j < p; j++) held.push_back(chunk.of(block(b.input(), rank + j)));
    b.copy(held[0], chunk.of(block(b.output(), rank)));
    size_t round = 0;
    for (int bit = 1; bit < p; bit *= 2, round++) {
      const std::vector<int> offsets = offsets_with(bit, p);
      std::vector<plan::Slice> moving;
      for (const int j : offsets) moving.push_back(held[static_cast<size_t>(j)]);
      send_bundle(b, (rank + bit) % p, moving, leaving[round % 2]);
      const plan::Region arrived = arrivals[round].part(0, offsets.size() * chunk.count());
      b.recv((rank - bit + p) % p, arrived.slice());
      for (size_t i = 0; i < offsets.size(); i++) {
        const int j = offsets[i];
        const plan::Slice here = arrived.part(i * chunk.count(), chunk.count()).slice();
        held[static_cast<size_t>(j)] = here;
        if (j < 2 * bit) b.copy(here, chunk.of(block(b.output(), rank - j)));
      }
    }
  });
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_to_all_bruck){Collective::all_to_all, "bruck", supports, cost, build};

}  // namespace railccl::algorithms
