// Compose: the pattern tables, the recursive all-reduce, and collectives over lists of pieces.
#include "algorithms/compose.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <utility>

#include "algorithms/bundle.h"
#include "algorithms/staged.h"

namespace railccl::algorithms {
namespace {

double log2_rounds(int size) { return std::bit_width(static_cast<unsigned>(size - 1)); }
double ring_rounds(int size) { return size - 1; }
double one_round(int size) { return size > 1 ? 1 : 0; }
double no_extra(int) { return 0; }
double all_at_once(int size) { return std::max(0, size - 2); }
double twice_the_rest(int size, double bytes) { return 2 * bytes * (size - 1) / size; }

constexpr uint64_t kTinyBytes = 4096;       // where bytes do not count, only messages
constexpr uint64_t kSmallBytes = 32 << 10;  // where a message's latency is about its transfer time

}  // namespace

const std::vector<SpreadPattern>& spread_patterns() {
  static const std::vector<SpreadPattern> patterns = {
      {"ring",
       [](const Stage& stage, const Blocks& input, const Region& output) {
         ring_reduce_scatter(stage, input, output);
       },
       ring_all_gather, ring_rounds, no_extra},
      {"halving",
       [](const Stage& stage, const Blocks& input, const Region& output) {
         halving_reduce_scatter(stage, input, output);
       },
       bruck_all_gather, log2_rounds, no_extra},
      {"direct", direct_reduce_scatter, direct_all_gather, one_round, all_at_once},
  };
  return patterns;
}

const std::vector<AllReducePattern>& all_reduce_patterns() {
  static const std::vector<AllReducePattern> patterns = {
      {"ring", ring_all_reduce, [](int size) { return 2 * ring_rounds(size); }, twice_the_rest},
      {"halving_doubling", halving_doubling_all_reduce,
       [](int size) { return 2 * log2_rounds(size); }, twice_the_rest},
      {"doubling", doubling_all_reduce,
       [](int size) {
         const bool power = std::has_single_bit(static_cast<unsigned>(size));
         return power ? log2_rounds(size) : log2_rounds(size) + 1;
       },
       [](int size, double bytes) { return bytes * log2_rounds(size); }},
      {"bruck", bruck_all_reduce, log2_rounds,
       [](int size, double bytes) { return bytes * (size - 1); }},
  };
  return patterns;
}

const SpreadPattern& spread_within(int size, uint64_t bytes) {
  const bool crowded = size > 8 && bytes / static_cast<uint64_t>(size) > kSmallBytes;
  return spread_patterns()[crowded ? 0 : 2];
}

const SpreadPattern& spread_across(int size, uint64_t bytes) {
  return spread_patterns()[bytes / static_cast<uint64_t>(size) > kSmallBytes ? 0 : 1];
}

const AllReducePattern& all_reduce_across(int size, uint64_t bytes) {
  // Gathering everything saves a round or two where the members are no power of two.
  const bool power = std::has_single_bit(static_cast<unsigned>(size));
  if (!power && bytes * static_cast<uint64_t>(size) <= kTinyBytes) return all_reduce_patterns()[3];
  // Doubling sends everything each round: as good as halving only for two, and for tiny data.
  if (size == 2 || bytes <= kTinyBytes)
    return all_reduce_patterns()[size == 2 && bytes > kTinyBytes ? 0 : 2];
  return all_reduce_patterns()[bytes / static_cast<uint64_t>(size) > kSmallBytes ? 0 : 1];
}

Group group_of(const std::vector<int>& members, int rank) {
  const auto at = std::find(members.begin(), members.end(), rank);
  return {members, static_cast<int>(at - members.begin())};
}

int lanes_of(const plan::Tuning& tuning, int stages) {
  return std::max(1, tuning.channels / stages);
}

uint64_t chunk_of(const plan::Tuning& tuning, const Shards& shards) {
  return std::max<uint64_t>(1, tuning.chunk_elements) * static_cast<uint64_t>(shards.count());
}

namespace {

/// This rank's place in the hierarchy: its part's group, the shards it owns, and for each of them
/// the across group one level up. Without shards: the top, where the flat pattern runs.
struct Node {
  Group group;
  std::unique_ptr<Shards> shards;
  int part = 0;
  std::vector<int> owned;
  std::vector<Node> above;

  Node(const topology::Topology& topology, const std::vector<int>& members, int rank,
       const std::vector<Parts>& levels, size_t depth) {
    if (depth == levels.size()) {
      group = group_of(members, rank);
      return;
    }
    shards = std::make_unique<Shards>(topology, members, levels[depth]);
    part = shards->part_with(rank);
    group = group_of(shards->part(part), rank);
    owned = shards->owned_by(rank);
    for (const int s : owned)
      above.emplace_back(topology, shards->across(s), rank, levels, depth + 1);
  }
};

struct AllReduceWriter {
  Choice choice;
  size_t levels;
  uint64_t element_bytes;

  /// Stage `position` of 2 * levels + 1: reduce-scatters going up, the outer pattern on top,
  /// all-gathers going down.
  void write(const Node& node, size_t position, size_t depth, Builder& b, int channel,
             const Region& in, const Region& out) const {
    const uint64_t bytes = in.count * element_bytes;
    const int size = node.group.size();
    // One chunk is one message: the loop over chunks is the caller's.
    Stage stage{b,
                node.group,
                channel,
                std::max<uint64_t>(1, in.count),
                depth == 0 ? Pre::yes : Pre::no,
                Post::no};
    if (depth == levels) {
      if (position != levels) return;
      stage.post = Post::yes;
      const AllReducePattern& outer = choice.outer ? *choice.outer : all_reduce_across(size, bytes);
      return outer.all_reduce(stage, in, out);
    }
    const SpreadPattern& inner = choice.inner ? *choice.inner : spread_within(size, bytes);
    const auto me = static_cast<size_t>(node.group.me);
    if (position == depth) {
      return inner.reduce_scatter(stage, node.shards->pieces(in, node.part),
                                  node.shards->pieces(out, node.part)[me]);
    }
    if (position == 2 * levels - depth) {
      const Blocks pieces = node.shards->pieces(out, node.part);
      return inner.all_gather(stage, pieces[me], pieces);
    }
    for (size_t i = 0; i < node.owned.size(); i++) {
      const Region shard = node.shards->of(out, node.owned[i]);
      write(node.above[i], position, depth + 1, b, channel, shard, shard);
    }
  }
};

}  // namespace

Result<plan::Program> compose_all_reduce(const plan::Request& request,
                                         const topology::Topology& topology,
                                         const plan::Tuning& tuning, int rank,
                                         const std::vector<Parts>& levels, const Choice& choice,
                                         const char* name) {
  Builder b(request, topology.size(), rank, name);
  const Node root(topology, Group::everyone(topology.size(), rank).members, rank, levels, 0);
  const AllReduceWriter writer{choice, levels.size(), size_of(request.datatype)};
  const int stages = 2 * static_cast<int>(levels.size()) + 1;
  const auto lanes = static_cast<uint64_t>(lanes_of(tuning, stages));
  const uint64_t chunk = root.shards ? chunk_of(tuning, *root.shards)
                                     : std::max<uint64_t>(1, tuning.chunk_elements) *
                                           static_cast<uint64_t>(topology.size());
  for (uint64_t lane = 0; lane < lanes; lane++) {
    const Region in = b.input().block(lane, lanes), out = b.output().block(lane, lanes);
    std::vector<StageBody> bodies;
    for (size_t position = 0; position < static_cast<size_t>(stages); position++) {
      bodies.push_back([&, position](Builder& builder, int channel, uint64_t from, uint64_t n) {
        writer.write(root, position, 0, builder, channel, in.part(from, n), out.part(from, n));
      });
    }
    write_stages(b, static_cast<int>(lane) * stages, in.count, chunk, bodies);
  }
  return std::move(b).take();
}

namespace {

Blocks joined(const Blocks& pieces) {
  Blocks runs;
  for (const Region& piece : pieces) {
    if (piece.count == 0) continue;
    if (!runs.empty() && runs.back().buffer == piece.buffer && runs.back().owner == piece.owner &&
        runs.back().offset + runs.back().count == piece.offset) {
      runs.back().count += piece.count;
    } else {
      runs.push_back(piece);
    }
  }
  return runs;
}

std::vector<Blocks> joined(const std::vector<Blocks>& lists) {
  std::vector<Blocks> runs;
  for (const Blocks& list : lists) runs.push_back(joined(list));
  return runs;
}

size_t longest(const std::vector<Blocks>& lists) {
  size_t length = 0;
  for (const Blocks& list : lists) length = std::max(length, list.size());
  return length;
}

uint64_t elements(const Blocks& list) {
  uint64_t count = 0;
  for (const Region& piece : list) count += piece.count;
  return count;
}

constexpr Region kNothing{plan::Buffer::scratch, plan::kHere, 0, 0};

/// Entry `turn` of each list, or an empty one.
Blocks pick(const std::vector<Blocks>& lists, size_t turn) {
  Blocks blocks;
  for (const Blocks& list : lists) blocks.push_back(turn < list.size() ? list[turn] : kNothing);
  return blocks;
}

std::vector<Slice> slices_of(const Blocks& list) {
  std::vector<Slice> slices;
  for (const Region& piece : list) slices.push_back(piece.slice());
  return slices;
}

/// One range of scratch per list, side by side.
Blocks rooms_for(const Stage& stage, const std::vector<Blocks>& lists) {
  uint64_t total = 0;
  for (const Blocks& list : lists) total += elements(list);
  const Region all = stage.take(total);
  Blocks rooms;
  uint64_t at = 0;
  for (const Blocks& list : lists) {
    rooms.push_back(all.part(at, elements(list)));
    at += elements(list);
  }
  return rooms;
}

bool small_enough(const std::vector<Blocks>& lists, uint64_t bundle_max) {
  uint64_t total = 0;
  for (const Blocks& list : lists) total += elements(list);
  return total <= bundle_max;
}

}  // namespace

void gather_lists(const Stage& stage, const std::vector<Blocks>& lists,
                  const SpreadPattern& pattern, uint64_t bundle_max) {
  const std::vector<Blocks> runs = joined(lists);
  const auto me = static_cast<size_t>(stage.group.me);
  if (longest(runs) > 1 && small_enough(lists, bundle_max)) {
    Builder& b = stage.on();
    const Blocks rooms = rooms_for(stage, lists);
    pack(b, slices_of(lists[me]), rooms[me]);
    pattern.all_gather(stage, rooms[me], rooms);
    stage.on();
    for (size_t i = 0; i < lists.size(); i++) {
      if (i != me) unpack(b, rooms[i], slices_of(lists[i]));
    }
    return;
  }
  for (size_t turn = 0; turn < longest(runs); turn++) {
    const Blocks blocks = pick(runs, turn);
    pattern.all_gather(stage, blocks[me], blocks);
  }
}

void scatter_lists(const Stage& stage, const std::vector<Blocks>& lists, const Blocks& mine,
                   const SpreadPattern& pattern, uint64_t bundle_max) {
  const std::vector<Blocks> runs = joined(lists);
  const bool one_run_each = longest(runs) <= 1;
  const auto me = static_cast<size_t>(stage.group.me);
  if (!one_run_each && !small_enough(lists, bundle_max)) {
    for (size_t turn = 0; turn < longest(lists); turn++) {
      const Region target = turn < mine.size() ? mine[turn] : kNothing;
      pattern.reduce_scatter(stage, pick(lists, turn), target);
    }
    return;
  }
  // The shape of the messages depends on the lists only, which look alike to everyone; whether this
  // rank's targets join up is its own affair.
  const Blocks targets = joined(mine);
  Builder& b = stage.on();
  Stage bundled = stage;
  Blocks blocks;
  if (one_run_each) {
    blocks = pick(runs, 0);
  } else {
    blocks = rooms_for(stage, lists);
    for (size_t i = 0; i < lists.size(); i++) pack(b, slices_of(lists[i]), blocks[i], stage.pre);
    bundled.pre = Pre::no;
  }
  if (targets.size() <= 1) {
    pattern.reduce_scatter(bundled, blocks, targets.empty() ? kNothing : targets[0]);
    return;
  }
  const Region sums = one_run_each ? stage.take(elements(mine)) : blocks[me];
  pattern.reduce_scatter(bundled, blocks, sums);
  unpack(stage.on(), sums, slices_of(targets));
}

}  // namespace railccl::algorithms
