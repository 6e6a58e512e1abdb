// Flat patterns: the collectives inside one group of ranks, to be used whole or as a hierarchy's
// level.
//
// A pattern writes the steps of this rank (group index `stage.group.me`) into a Builder. It knows
// no buffers of its own: the caller says in Regions where data lies and where it goes, so the same
// ring serves all ranks, the ranks of one host, or one rail. The
// `algorithms/<collective>_<name>.cc` file that holds a pattern also registers it as an algorithm
// over all ranks, and states its bound.
//
//   Stage in_host{b, host_group, /*channel=*/0, chunk, Pre::yes, Post::no, &scratch};
//   ring_reduce_scatter(in_host, blocks_of_input, shard, {});
//   b.signal_channel(1);
//   b.channel(1).wait_channel(0);
//   Stage across{b, rail_group, /*channel=*/1, chunk, Pre::no, Post::yes, &scratch1};
//   ring_all_reduce(across, shard, shard);
//
// Rules for every pattern:
// - All members call it with the same sizes, the same chunk and channel, and with blocks that
// adjoin
//   each other in the same places (their offsets and buffers may differ).
// - Blocks: entry i belongs to group index i. Sizes may differ and may be 0. Any group size >= 1; a
//   group of one is a local copy (with pre and post), or nothing when source and target coincide.
// - Source and target may coincide (equal Regions, or input and output of an in-place request: see
//   same_place), but must not overlap otherwise.
// - A pattern writes only to its target, to `work` where it takes one, and to scratch. Its source
// is
//   left alone, apart from places that coincide with a target.
// - Pre::yes: the source holds raw contributions and gets the operator's pre-scaling. Post::yes:
// the
//   result is finished and gets the post-scaling. A hierarchy sets Pre at its first stage and Post
//   at its last reduction only.
// - Successive patterns on one channel are in order. A pattern uses only `stage.channel`, except
//   tree_all_reduce, which uses kTreeChannels of them from there on. Results are complete, for
//   later steps of the same channel, when its steps are done.
// - Results of an all-reduce are the same bits on every member.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "algorithms/group.h"
#include "plan/builder.h"
#include "topology/topology.h"

namespace railccl::algorithms {

using plan::Builder;
using plan::Post;
using plan::Pre;
using plan::Region;
using plan::Slice;
using Blocks = std::vector<Region>;

/// Scratch that patterns running one after the other on the same channel share: each gets the same
/// elements again. It grows to the largest demand; make the most demanding call first to save room.
/// Never share one between channels that are not ordered. Owned by the caller.
class Scratch {
 public:
  Scratch() = default;
  /// Scratch the caller has taken already, to be handed out again.
  explicit Scratch(const Region& room) : region_(room) {}
  Region take(Builder& builder, uint64_t count) {
    if (region_.count < count) region_ = builder.scratch(count);
    return region_.part(0, count);
  }

 private:
  Region region_{plan::Buffer::scratch, plan::kHere, 0, 0};
};

/// Where and how a pattern runs. A value; the Builder and Scratch outlive the pattern's call.
struct Stage {
  Builder& builder;
  Group group;
  int channel = 0;
  uint64_t chunk = 1 << 16;  // elements per message and scratch slot of a pipelined loop, >= 1
  Pre pre = Pre::yes;
  Post post = Post::yes;
  Scratch* scratch = nullptr;  // null: the pattern takes its own from the builder

  /// The stage's channel, selected.
  Builder& on() const { return builder.channel(channel); }
  Region take(uint64_t count) const {
    return scratch ? scratch->take(builder, count) : builder.scratch(count);
  }
};

/// The whole region as n blocks that adjoin each other, the first ones longer by one where needed.
Blocks split(const Region& whole, int n);
/// Elements of the largest block.
uint64_t largest(const Blocks& blocks);
/// All ranks, those of a host next to each other (hosts in order of their first rank): what rings
/// and trees over everyone use, so that they cross between hosts as rarely as possible.
Group everyone_by_host(const topology::Topology& topology, int rank);
/// The group turned so that index `root` becomes 0.
Group rotated(const Group& group, int root);
/// Do both name the same memory under the builder's request (in-place rules included)?
bool same_place(const Builder& builder, const Region& a, const Region& b);
/// target = post(pre(source)) on the stage's channel; nothing when it would change nothing.
void place(const Stage& stage, const Region& source, const Region& target, Pre pre, Post post);

/// When ranks on a circle exchange several messages per round, sends may lead receives by this
/// many: all sends first could fill every window of the circle, none first would cost a round per
/// message.
inline constexpr size_t kSendLead = plan::kSendWindow / 2;

// Reduce-scatter: block i of everyone's `input`, reduced, goes to the `output` of index i.
// `work` is empty (partial sums pass through scratch), or one region per block, each as large as
// the block, where partial sums may be kept instead; it may coincide with the input. work[me] is
// not used. direct needs neither. Scratch: ring min(4, p - 2) * chunk; halving ceil(p / 2) *
// min(chunk, largest block); direct 0.
void ring_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output,
                         const Blocks& work = {});
void halving_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output,
                            const Blocks& work = {});
void direct_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output);

// All-gather: `mine` of index i goes to output[i] on everyone. No scratch. No pre, no post.
void ring_all_gather(const Stage& stage, const Region& mine, const Blocks& output);
void bruck_all_gather(const Stage& stage, const Region& mine, const Blocks& output);
void direct_all_gather(const Stage& stage, const Region& mine, const Blocks& output);

// Broadcast: `source` at index `root` goes to `target` on everyone, root included (where source is
// looked at only there). No scratch. No pre, no post.
// tree_broadcast runs one of the two trees over the whole region; the other tree, on another
// channel, with the other half of the data, completes Sanders' algorithm.
void ring_broadcast(const Stage& stage, int root, const Region& source, const Region& target);
void tree_broadcast(const Stage& stage, int tree, int root, const Region& source,
                    const Region& target);
void scatter_gather_broadcast(const Stage& stage, int root, const Region& source,
                              const Region& target);

// Reduce: everyone's `source`, reduced, goes to `target` at index `root` (looked at only there).
// Scratch: ring and tree 4 * chunk; scatter_gather as halving, plus the largest of p blocks.
void ring_reduce(const Stage& stage, int root, const Region& source, const Region& target);
void tree_reduce(const Stage& stage, int tree, int root, const Region& source,
                 const Region& target);
void scatter_gather_reduce(const Stage& stage, int root, const Region& source,
                           const Region& target);

// All-reduce: everyone's `input`, reduced, goes to everyone's `output`.
// Scratch: ring, halving_doubling, two_shot 0; doubling 2 * chunk; direct and bruck p * chunk;
// tree 8 * chunk (taken from the builder, never from stage.scratch: its channels are concurrent).
inline constexpr int kTreeChannels = 4;  // two trees, up and down
void ring_all_reduce(const Stage& stage, const Region& input, const Region& output);
void tree_all_reduce(const Stage& stage, const Region& input, const Region& output);
void doubling_all_reduce(const Stage& stage, const Region& input, const Region& output);
void halving_doubling_all_reduce(const Stage& stage, const Region& input, const Region& output);
void direct_all_reduce(const Stage& stage, const Region& input, const Region& output);
void bruck_all_reduce(const Stage& stage, const Region& input, const Region& output);
void two_shot_all_reduce(const Stage& stage, const Region& input, const Region& output);

// The same through peers' scratch with loads and stores: all members on one host, and the scratch
// that the pattern takes must lie at the same offset on all of them (take it first, or hand it over
// in stage.scratch). Nobody's steps end before the others have finished reading from him.
// Scratch: all_reduce (p + 1) * chunk, reduce_scatter p * chunk, all_gather chunk, broadcast
// 2 * chunk; each chunk at most as long as the largest block.
void shared_reduce_scatter(const Stage& stage, const Blocks& input, const Region& output);
void shared_all_gather(const Stage& stage, const Region& mine, const Blocks& output);
void shared_broadcast(const Stage& stage, int root, const Region& source, const Region& target);
void shared_all_reduce(const Stage& stage, const Region& input, const Region& output);

}  // namespace railccl::algorithms
