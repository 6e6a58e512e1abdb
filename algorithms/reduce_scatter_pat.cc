// Reduce-scatter, PAT (Jeaugey 2025; see pat.h): all_gather_pat run backwards; each block is
// reduced up its own binomial tree, near hops first, with as many partial sums in one message as
// fit into a chunk.
//
// Bytes: p-1 blocks in and out per rank, the bound. Rounds as for all-gather. Scratch: one bundle
// per tree level (times two, so that a bundle may still be leaving while the next one is summed),
// at most 2 (log2 p + 2) chunks per channel.
#include "algorithms/algorithm.h"
#include "algorithms/bundle.h"
#include "algorithms/pat.h"

namespace railccl::algorithms {
namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::reduce_scatter;
}

int log2_of(int power) {
  int exponent = 0;
  while ((1 << exponent) < power) exponent++;
  return exponent;
}

/// The part of every block that one channel reduces.
struct Lane {
  plan::Builder& b;
  int p;
  int rank;
  uint64_t index, lanes;

  plan::Region input_for(int offset) const {
    return b.input()
        .block(static_cast<uint64_t>((rank - offset + p) % p), static_cast<uint64_t>(p))
        .block(index, lanes);
  }
  plan::Region output() const { return b.output().block(index, lanes); }
};

/// One block per message, pipelined over chunks.
void build_single(const Lane& lane, const std::vector<PatRound>& rounds, uint64_t chunk) {
  plan::Builder& b = lane.b;
  const int p = lane.p, rank = lane.rank;
  const uint64_t count = lane.output().count;
  // A partial sum lives in the slot of its level (its lowest set bit); levels of one chain differ.
  std::vector<plan::Region> slots;
  std::vector<size_t> turn;
  for (int d = 1; d < p; d *= 2) {
    // Offsets with the lowest bit set have no children: they leave straight from the input.
    const uint64_t room = d == 1 ? 0 : std::min(chunk, count);
    slots.push_back(b.scratch(room));
    slots.push_back(b.scratch(room));
    turn.push_back(0);
  }
  b.loop(plan::chunk_count(count, chunk), [&] {
    std::vector<bool> begun(static_cast<size_t>(p), false);
    const auto sum_of = [&](int offset) {
      if (offset == 0) return lane.output().chunks(chunk);
      const auto level = static_cast<size_t>(log2_of(offset & -offset));
      return slots[2 * level + turn[level] % 2].slots(chunk, 1, count);
    };
    if (p == 1) {
      b.copy(lane.input_for(0).chunks(chunk), lane.output().chunks(chunk), plan::Pre::yes,
             plan::Post::yes);
    }
    for (size_t i = 0; i < rounds.size(); i++) {
      const int d = rounds[i].distance, child = rounds[i].offsets[0], parent = child - d;
      const bool leaf = !begun[static_cast<size_t>(child)];
      b.send((rank - d + p) % p, leaf ? lane.input_for(child).chunks(chunk) : sum_of(child),
             leaf ? plan::Pre::yes : plan::Pre::no);
      if (!leaf) turn[static_cast<size_t>(log2_of(child & -child))]++;
      const bool first = !begun[static_cast<size_t>(parent)];
      begun[static_cast<size_t>(parent)] = true;
      b.recv_reduce((rank + d) % p, first ? lane.input_for(parent).chunks(chunk) : sum_of(parent),
                    sum_of(parent), first ? plan::Pre::yes : plan::Pre::no,
                    i + 1 == rounds.size() ? plan::Post::yes : plan::Post::no);
    }
  });
}

/// Several blocks per message.
void build_bundled(const Lane& lane, const std::vector<PatRound>& rounds, int aggregation) {
  plan::Builder& b = lane.b;
  const int p = lane.p, rank = lane.rank;
  const uint64_t count = lane.output().count;
  int span = 1;
  while (span < p) span *= 2;
  span /= aggregation;
  const uint64_t bundle = static_cast<uint64_t>(aggregation) * count;
  const auto levels = static_cast<size_t>(log2_of(span)) + 1;  // the last one is offset 0's
  std::vector<plan::Region> slots;
  for (size_t i = 0; i < 2 * levels; i++) slots.push_back(b.scratch(bundle));
  const plan::Region arriving = b.scratch(bundle);
  const plan::Region leaving[2] = {b.scratch(bundle), b.scratch(bundle)};
  std::vector<size_t> turn(levels, 0);
  std::vector<bool> begun(static_cast<size_t>(span), false);

  // The partial sums of the offsets low, low + span, low + 2 span ..., in this order.
  const auto sums_of = [&](int low) {
    const size_t level = low == 0 ? levels - 1 : static_cast<size_t>(log2_of(low & -low));
    const plan::Region slot = slots[2 * level + turn[level] % 2];
    if (!begun[static_cast<size_t>(low)]) {
      begun[static_cast<size_t>(low)] = true;
      std::vector<plan::Slice> own;
      for (int k = low; k < p; k += span) own.push_back(lane.input_for(k).slice());
      pack(b, own, slot, plan::Pre::yes);
    }
    return slot;
  };
  size_t sent = 0;
  for (const PatRound& round : rounds) {
    const int d = round.distance, to = (rank - d + p) % p, from = (rank + d) % p;
    const uint64_t n = round.offsets.size() * count;
    if (!round.high) {
      // A bundle's last offset may lie beyond p for the child only: both are prefixes.
      const int child = round.offsets[0];
      b.send(to, sums_of(child).part(0, n).slice());
      turn[static_cast<size_t>(log2_of(child & -child))]++;
      const plan::Slice sums = sums_of(child - d).part(0, n).slice();
      b.recv_reduce(from, sums, sums);
      continue;
    }
    const plan::Region sums = sums_of(0);
    const auto sum_at = [&](int offset) {
      return sums.part(static_cast<uint64_t>(offset / span) * count, count).slice();
    };
    std::vector<plan::Slice> children;
    for (const int k : round.offsets) children.push_back(sum_at(k));
    send_bundle(b, to, children, leaving[sent++ % 2]);
    if (round.offsets.size() == 1) {
      // Only the last round has a single block, and it completes this rank's own.
      const bool last = &round == &rounds.back();
      b.recv_reduce(from, sum_at(round.offsets[0] - d),
                    last ? lane.output().slice() : sum_at(round.offsets[0] - d), plan::Pre::no,
                    last ? plan::Post::yes : plan::Post::no);
      continue;
    }
    b.recv(from, arriving.part(0, n).slice());
    for (size_t i = 0; i < round.offsets.size(); i++) {
      const plan::Slice sum = sum_at(round.offsets[i] - d);
      const plan::Slice other = arriving.part(i * count, count).slice();
      b.reduce(sum, std::span(&other, 1), sum);
    }
  }
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  const int p = topology.size();
  const auto lanes = static_cast<uint64_t>(tuning.channels);
  const uint64_t lane_block = (request.count + lanes - 1) / lanes;
  const int aggregation = pat_aggregation(p, lane_block, tuning.chunk_elements);
  std::vector<PatRound> rounds = pat_rounds(p, aggregation);
  std::reverse(rounds.begin(), rounds.end());

  plan::Builder b(request, p, rank, "pat");
  for (uint64_t i = 0; i < lanes; i++) {
    b.channel(static_cast<int>(i));
    const Lane lane{b, p, rank, i, lanes};
    if (aggregation == 1) {
      build_single(lane, rounds, tuning.chunk_elements);
    } else {
      build_bundled(lane, rounds, aggregation);
    }
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_pat){Collective::reduce_scatter, "pat", supports, pat_cost, build};

}  // namespace railccl::algorithms
