// Reduce-scatter, halving: on a circle of skips, for any number of ranks (Träff 2023, "Optimal,
// non-pipelined reduce-scatter and allreduce algorithms").
//
// Let R[i] be the partial sum of block me + i (mod p), and s = p. While s > 1, with h = ceil(s/2):
// send R[h..s) to the rank h further, take R[0..s-h) from the rank h before, add, set s = h. Every
// block leaves a rank at most once, so each rank sends p-1 blocks, the least possible, in
// ceil(log2 p) rounds, the least possible too. For a power of two this is recursive halving with
// other partners. Five ranks: h = 3 (R3 R4 go to +3), h = 2 (R2 goes to +2), h = 1 (R1 goes to +1).
//
// When all blocks fit into one chunk, blocks that adjoin travel in one message. Otherwise the
// rounds repeat per chunk of every block, so that scratch is (ceil(p/2) - 1) chunks.
#include <cassert>

#include "algorithms/circle_cost.h"
#include "algorithms/halving.h"
#include "algorithms/whole.h"

namespace railccl::algorithms {
namespace {

bool adjoin(const Blocks& blocks, size_t a, size_t b) {
  return blocks[a].buffer == blocks[b].buffer && blocks[a].owner == blocks[b].owner &&
         blocks[a].offset + blocks[a].count == blocks[b].offset;
}

/// Writes the rounds; keeps track of which entries of R are sums already, and where those lie.
class Halving {
 public:
  Halving(const Stage& stage, const Blocks& input, const Region& output, const Blocks& work)
      : stage_(stage),
        input_(input),
        output_(output),
        work_(work),
        p_(stage.group.size()),
        touched_(static_cast<size_t>(p_), false) {
    // Work that is as large as the blocks needs no loop to keep scratch small.
    iterations_ = work.empty() ? plan::chunk_count(largest(input), stage.chunk) : 1;
    room_ = stage.take(work.empty() ? halving_scratch(stage, input) : 0);
  }

  void write() {
    stage_.on().loop(iterations_, [&] {
      for (int s = p_; s > 1; s = (s + 1) / 2) round(s, (s + 1) / 2);
    });
  }

 private:
  /// R[half..s) goes to +half; R[0..s-half) takes up what comes from -half.
  void round(int s, int half) {
    Builder& b = stage_.builder;
    const int me = stage_.group.me, count = s - half;
    const Post post = half == 1 ? stage_.post : Post::no;
    for (int step = 0, sent = 0, taken = 0; sent < count || taken < count; step++) {
      if (sent < count) {
        const int n = run(half, sent, count, me + half);
        const bool raw = !touched_[static_cast<size_t>(half + sent)];
        b.send(stage_.group.at(me + half), slice(half + sent, n, raw), raw ? stage_.pre : Pre::no);
        sent += n;
      }
      if (step >= static_cast<int>(kSendLead) && taken < count) {
        const int n = run(half, taken, count, me);
        const bool raw = !touched_[static_cast<size_t>(taken)];
        b.recv_reduce(stage_.group.at(me - half), slice(taken, n, raw), slice(taken, n, false),
                      raw ? stage_.pre : Pre::no, post);
        taken += n;
      }
    }
    for (int i = 0; i < count; i++) touched_[static_cast<size_t>(i)] = true;
  }

  /// How many entries from i on travel in one message: sender and receiver must come to the same
  /// answer, so only what both know counts. `first` is the block that entry 0 of the message is.
  int run(int half, int i, int count, int first) const {
    int n = 1;
    while (i + n < count && iterations_ == 1) {
      const size_t a = static_cast<size_t>((first + i + n - 1) % p_);
      const size_t z = static_cast<size_t>((first + i + n) % p_);
      const auto alike = [&](int entry) {
        return touched_[static_cast<size_t>(entry)] == touched_[static_cast<size_t>(entry - 1)];
      };
      // Entry 0 of a receiver is its own block, whose sums lie in the output, not in the work.
      if (z == 0 || i + n == 1 || !adjoin(input_, a, z) || !alike(i + n) || !alike(half + i + n) ||
          (!work_.empty() && !adjoin(work_, a, z)))
        break;
      n++;
    }
    return n;
  }

  /// Entries [i, i + n): the raw input, or the place of the partial sums.
  Slice slice(int i, int n, bool raw) const {
    const size_t block = static_cast<size_t>((stage_.group.me + i) % p_);
    Region region = raw ? input_[block] : i == 0 ? output_ : place_of(i);
    if (iterations_ > 1) {
      const bool in_slot = !raw && i > 0 && work_.empty();
      return region.slots(stage_.chunk, in_slot ? 1 : 0, input_[block].count);
    }
    region.count = 0;
    for (int k = i; k < i + n; k++)
      region.count += input_[static_cast<size_t>((stage_.group.me + k) % p_)].count;
    return region.slice();
  }

  Region place_of(int i) const {
    if (!work_.empty()) return work_[static_cast<size_t>((stage_.group.me + i) % p_)];
    uint64_t offset = 0;
    for (int k = 1; k < i; k++) offset += slot_count(k);
    return room_.part(offset, slot_count(i));
  }

  uint64_t slot_count(int i) const {
    return std::min(stage_.chunk, input_[static_cast<size_t>((stage_.group.me + i) % p_)].count);
  }

  const Stage& stage_;
  const Blocks& input_;
  const Region& output_;
  const Blocks& work_;
  int p_;
  uint64_t iterations_ = 1;
  Region room_;
  std::vector<bool> touched_;  // R[i] is a sum already; the same on every rank
};

}  // namespace

uint64_t halving_scratch(const Stage& stage, const Blocks& input) {
  const int p = stage.group.size();
  uint64_t count = 0;
  for (int i = 1; i < (p + 1) / 2; i++)
    count += std::min(stage.chunk, input[static_cast<size_t>((stage.group.me + i) % p)].count);
  return count;
}

void halving_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output,
                            const Blocks& work) {
  assert(work.empty() || work.size() == input.size());
  if (stage.group.size() == 1) return place(stage, input[0], output, stage.pre, stage.post);
  Halving(stage, input, output, work).write();
}

namespace {

bool supports(const plan::Request& request, const topology::Topology&) {
  return request.collective == Collective::reduce_scatter;
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  CircleCost cost(topology);
  const int p = cost.size();
  const double block = static_cast<double>(plan::bytes_of(request));
  const double iterations = iterations_of(request.count, tuning, tuning.channels, 1);
  for (int s = p; s > 1; s = (s + 1) / 2) {
    const int half = (s + 1) / 2;
    cost.skip(half, iterations, block * (s - half));
  }
  cost.local(p == 1 ? block : block * (p - 1));
  return cost.total();
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  return build_whole(
      request, topology, tuning, rank, "halving", [](const Stage& stage, const Share& share) {
        const Builder& b = stage.builder;
        halving_reduce_scatter(stage, share.of_each(b.input(), stage.group), share(b.output()));
      });
}

}  // namespace

RAILCCL_ALGORITHM(reduce_scatter_halving){Collective::reduce_scatter, "halving", supports, cost,
                                          build};

}  // namespace railccl::algorithms
