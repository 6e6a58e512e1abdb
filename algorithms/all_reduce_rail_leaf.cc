// All-reduce, rail_leaf: as rail, but hosts that are weaker than others (a NIC of theirs is down,
// slow or was never there) are leaves of a part of the data (leaves.h), so that the others use all
// of their NICs.
//
//   hosts A, B, C, D with 4 NICs, one of A's down: A is on the rings of 2/5 of the data
//
//   X, 2/5    reduced within all hosts, on rings of all of them over three rails, gathered
//   Y, 3/5    reduced within A; a third by each NIC of A to B, C and D, one third each; there added
//             to the raw input of the rank that gets it, which the reduction within the host then
//             takes for that; on rings of B, C and D over four rails; gathered within them; what A
//             handed over goes back to it the same way, and is gathered within A
//
// A's NICs carry (3/2 X + Y)/3 = 2/5 n in each direction, the others' (3/2 X + 5/3 Y)/4 = 2/5 n;
// the cut bound is 2 * 3/15 n, and with the rail dropped everywhere 1/2 n would be needed. No byte
// is on the spine. X and Y are pipelines side by side, on channels of their own: neither waits for
// the other, and each uses what the other leaves of the NICs that they share. X has three stages, Y
// five, which in leaves come in another order than in others.
//
// Messages under way share a NIC about equally, so each kind has as many as its bytes there are
// worth: through A's NICs as many of X's rings as A hands to neighbours at a time, through the
// others' two of Y's rings for each message of A's. With one each, X would be a third done when Y
// is through, and half of the NICs idle from then on. Scratch: what the inner patterns take for one
// chunk; partial sums live in the output.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <set>

#include "algorithms/algorithm.h"
#include "algorithms/compose.h"
#include "algorithms/domains.h"
#include "algorithms/leaves.h"
#include "algorithms/port_meter.h"
#include "algorithms/staged.h"

namespace railccl::algorithms {
namespace {

/// Between hosts. What folds members into a power of two sends the folded ones' data twice more,
/// and some of three, five or seven hosts are soon too many.
const AllReducePattern& outer_of(int size, uint64_t bytes) {
  constexpr uint64_t kFewBytes = 8 << 10;
  const bool power = std::has_single_bit(static_cast<unsigned>(size));
  return power || bytes <= kFewBytes ? all_reduce_across(size, bytes) : all_reduce_patterns()[0];
}

/// A leaf's sum of elements [begin, end) of Y, and its way back.
struct Pass {
  int leaf = 0, neighbour = 0;  // ranks on one rail
  uint64_t begin = 0, end = 0;
};

/// Elements of Y that pass together, from several leaves maybe.
struct Piece {
  uint64_t begin = 0, end = 0;
  std::vector<Pass> passes;  // at most one of each leaf
};

/// Everyone's part in the plan: the same on every rank.
class Plan {
 public:
  explicit Plan(const topology::Topology& topology)
      : leaves(leaves_of(topology)),
        all(topology, Group::everyone(topology.size(), 0).members, host_parts(topology)),
        rings(topology, ranks_of(topology, leaves.others), host_parts(topology), leaves.rings) {
    for (size_t i = 0; i < leaves.hosts.size(); i++) {
      std::vector<int> hosts = leaves.others;
      hosts.push_back(leaves.hosts[i]);
      passing.emplace_back(topology, ranks_of(topology, hosts), host_parts(topology),
                           leaves.passes[i]);
    }
    widths = widths_of(leaves);
  }

  static Region x(const Region& whole, const Leaves& leaves) {
    return whole.part(0, whole.count * leaves.without / Leaves::kUnits);
  }
  static Region y(const Region& whole, const Leaves& leaves) {
    const uint64_t from = x(whole, leaves).count;
    return whole.part(from, whole.count - from);
  }

  /// What passes of `count` elements of Y, in order.
  std::vector<Piece> pieces(const topology::Topology& topology, uint64_t count) const {
    const Region y{plan::Buffer::output, plan::kHere, 0, count};
    std::vector<Pass> passes;
    std::set<uint64_t> cuts;
    const auto others = leaves.others.size();
    const auto turns = std::min<size_t>(others, Leaves::kNeighbours);
    for (size_t leaf = 0; leaf < passing.size(); leaf++) {
      const Shards& shards = passing[leaf];
      const auto part_of = [&](int host) {
        return shards.part_with(topology.ranks_of_host(host).front());
      };
      const int leaf_part = part_of(leaves.hosts[leaf]);
      for (int s = 0; s < shards.count(); s++) {
        for (size_t turn = 0; turn < turns; turn++) {
          const Region region = shards.of(y, s).block(turn, turns);
          if (region.count == 0) continue;
          const int other = leaves.others[(static_cast<size_t>(s) * turns + leaf + turn) % others];
          passes.push_back({shards.owner(s, leaf_part), shards.owner(s, part_of(other)),
                            region.offset, region.offset + region.count});
          cuts.insert({passes.back().begin, passes.back().end});
        }
      }
    }
    std::vector<Piece> pieces;
    for (auto cut = cuts.begin(); cut != cuts.end() && std::next(cut) != cuts.end(); cut++) {
      pieces.push_back({*cut, *std::next(cut), {}});
      for (const Pass& pass : passes)
        if (pass.begin <= *cut && *cut < pass.end) pieces.back().passes.push_back(pass);
    }
    return pieces;
  }

  Leaves leaves;
  Shards all;                   // of X
  Shards rings;                 // of Y on hosts that are no leaves
  std::vector<Shards> passing;  // of Y on each leaf, and whom on other hosts it passes to
  struct Widths {
    size_t x = 1, y = 1;
  } widths;  // channels of the rings

 private:
  /// As many messages of each kind as its bytes are worth on the NICs that all share.
  static Widths widths_of(const Leaves& leaves) {
    constexpr double kMost = 4;
    const double x = static_cast<double>(leaves.without) / Leaves::kUnits, y = 1 - x;
    const auto k = static_cast<double>(leaves.hosts.size());
    const auto m = static_cast<double>(leaves.others.size());
    const double neighbours = std::min<double>(m, Leaves::kNeighbours);
    uint64_t weights = 0, common = 0;  // of Y's rings on all rails, and on those that leaves have
    for (size_t r = 0; r < leaves.rings.size(); r++) {
      weights += leaves.rings[r];
      const bool had = std::all_of(leaves.passes.begin(), leaves.passes.end(),
                                   [&](const Leaves::Weights& passes) { return passes[r] > 0; });
      if (had) common += leaves.rings[r];
    }
    // For each message that a leaf's NIC has under way to a neighbour.
    const double ring_x = 2 * (m + k - 1) / (m + k) * x;
    const double ring_y = 2 * (m - 1) / m * y * static_cast<double>(common) /
                          static_cast<double>(std::max<uint64_t>(1, weights));
    const auto width = [&](double bytes) {
      return static_cast<size_t>(std::clamp(std::round(bytes * neighbours / y), 1.0, kMost));
    };
    return {width(ring_x), width(ring_y)};
  }
  static std::vector<int> ranks_of(const topology::Topology& topology,
                                   const std::vector<int>& hosts) {
    std::vector<int> ranks;
    for (const int host : hosts) {
      const std::vector<int>& more = topology.ranks_of_host(host);
      ranks.insert(ranks.end(), more.begin(), more.end());
    }
    std::sort(ranks.begin(), ranks.end());
    return ranks;
  }
};

Region between(const Region& whole, const Region& region, uint64_t begin, uint64_t end) {
  const uint64_t from = std::clamp(region.offset, whole.offset + begin, whole.offset + end);
  const uint64_t to =
      std::clamp(region.offset + region.count, whole.offset + begin, whole.offset + end);
  return whole.part(from - whole.offset, to - from);
}

/// The stages of one rank, each for one chunk.
class Writer {
 public:
  Writer(const topology::Topology& topology, const Plan& plan, int rank, uint64_t element_bytes)
      : topology_(topology), plan_(plan), rank_(rank), element_bytes_(element_bytes) {
    const int host = topology.rank(rank).host;
    const std::vector<int>& hosts = plan.leaves.hosts;
    const auto at = std::find(hosts.begin(), hosts.end(), host);
    leaf_ = at != hosts.end();
    own_ = leaf_ ? &plan.passing[static_cast<size_t>(at - hosts.begin())] : &plan.rings;
    group_ = group_of(topology.ranks_of_host(host), rank);
  }

  bool leaf() const { return leaf_; }

  // Of X.

  void reduce_x(Builder& b, int channel, const Region& in, const Region& out) const {
    reduce(stage(b, group_, channel, in.count, Pre::yes), plan_.all, in, out, 0, ~0ull);
  }
  void across_x(Builder& b, int channel, const Region& out, size_t part) const {
    across(b, channel, plan_.all, out, part, plan_.widths.x);
  }
  void gather_x(Builder& b, int channel, const Region& out) const {
    gather(stage(b, group_, channel, out.count), plan_.all, out);
  }

  // Of Y.

  void reduce_y(Builder& b, int channel, const Region& from, const Region& to) const {
    if (leaf_)
      return reduce(stage(b, group_, channel, from.count, Pre::yes), *own_, from, to, 0, ~0ull);
    // One reduction for all neighbouring pieces that leaves handed to the same ranks of this host:
    // for those ranks, what they got is their input.
    const std::vector<Piece> pieces = plan_.pieces(topology_, from.count);
    for (size_t i = 0; i < pieces.size();) {
      const std::set<int> fed = fed_by(pieces[i]);
      size_t next = i + 1;
      while (next < pieces.size() && fed_by(pieces[next]) == fed) next++;
      const bool me = fed.contains(rank_);
      reduce(stage(b, group_, channel, from.count, me ? Pre::no : Pre::yes), *own_, me ? to : from,
             to, pieces[i].begin, pieces[next - 1].end);
      i = next;
    }
  }

  /// Leaves hand over, and their neighbours add.
  void pass_up(Builder& b, int channel, const Region& from, const Region& to) const {
    b.channel(channel);
    for (const Piece& piece : plan_.pieces(topology_, to.count)) {
      bool raw = true;
      const plan::Slice sum = to.part(piece.begin, piece.end - piece.begin).slice();
      for (const Pass& pass : piece.passes) {
        if (pass.leaf == rank_) b.send(pass.neighbour, sum);
        if (pass.neighbour != rank_) continue;
        const plan::Slice input = from.part(piece.begin, piece.end - piece.begin).slice();
        b.recv_reduce(pass.leaf, raw ? input : sum, sum, raw ? Pre::yes : Pre::no);
        raw = false;
      }
    }
  }

  void across_y(Builder& b, int channel, const Region& out, size_t part) const {
    if (!leaf_) across(b, channel, plan_.rings, out, part, plan_.widths.y);
  }

  void pass_down(Builder& b, int channel, const Region& to) const {
    b.channel(channel);
    for (const Piece& piece : plan_.pieces(topology_, to.count)) {
      const plan::Slice result = to.part(piece.begin, piece.end - piece.begin).slice();
      for (const Pass& pass : piece.passes) {
        if (pass.neighbour == rank_) b.send(pass.leaf, result);
        if (pass.leaf == rank_) b.recv(pass.neighbour, result);
      }
    }
  }

  void gather_y(Builder& b, int channel, const Region& out) const {
    gather(stage(b, group_, channel, out.count), *own_, out);
  }

 private:
  static Stage stage(Builder& b, const Group& group, int channel, uint64_t count, Pre pre = Pre::no,
                     Post post = Post::no) {
    // One chunk is one message: the loop over chunks is the caller's.
    return {b, group, channel, std::max<uint64_t>(1, count), pre, post};
  }

  const SpreadPattern& within(uint64_t count) const {
    return spread_within(group_.size(), count * element_bytes_);
  }

  /// Of a part of the data elements [begin, end) to their owners in this host.
  void reduce(const Stage& stage, const Shards& shards, const Region& in, const Region& out,
              uint64_t begin, uint64_t end) const {
    begin = std::min(begin, in.count), end = std::min(end, in.count);
    if (begin == end) return;
    const int part = shards.part_with(rank_);
    Blocks sources, targets;
    for (const Region& piece : shards.pieces(in, part))
      sources.push_back(between(in, piece, begin, end));
    for (const Region& piece : shards.pieces(out, part))
      targets.push_back(between(out, piece, begin, end));
    within(end - begin).reduce_scatter(stage, sources, targets[static_cast<size_t>(group_.me)]);
  }

  void across(Builder& b, int channel, const Shards& shards, const Region& out, size_t part,
              size_t parts) const {
    if (out.count == 0) return;
    for (const int s : shards.owned_by(rank_)) {
      const Group owners = group_of(shards.across(s), rank_);
      const Region shard = shards.of(out, s).block(part, parts);
      outer_of(owners.size(), shard.count * element_bytes_)
          .all_reduce(stage(b, owners, channel, shard.count, Pre::no, Post::yes), shard, shard);
    }
  }

  void gather(const Stage& stage, const Shards& shards, const Region& out) const {
    if (out.count == 0) return;
    const Blocks pieces = shards.pieces(out, shards.part_with(rank_));
    within(out.count).all_gather(stage, pieces[static_cast<size_t>(group_.me)], pieces);
  }

  /// Ranks of this host that get the piece from leaves.
  std::set<int> fed_by(const Piece& piece) const {
    std::set<int> fed;
    for (const Pass& pass : piece.passes)
      if (topology_.rank(pass.neighbour).host == topology_.rank(rank_).host)
        fed.insert(pass.neighbour);
    return fed;
  }

  const topology::Topology& topology_;
  const Plan& plan_;
  const int rank_;
  const uint64_t element_bytes_;
  bool leaf_ = false;
  const Shards* own_ = nullptr;  // of Y in this host
  Group group_;                  // ranks of this host
};

constexpr int kStagesX = 3, kStagesY = 5;

/// `width` channels from `first` on.
std::vector<int> channels(int first, size_t width = 1) {
  std::vector<int> channels(width);
  std::iota(channels.begin(), channels.end(), first);
  return channels;
}

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_reduce && has_rails(topology) &&
         !leaves_of(topology).hosts.empty();
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const Plan plan(topology);
  const double n = static_cast<double>(plan::bytes_of(request));
  const int hosts = plan.all.parts(), most = topology.ranks_per_host_max();
  const auto element_bytes = static_cast<double>(size_of(request.datatype));
  const Region whole{plan::Buffer::output, plan::kHere, 0, request.count};
  const Region x = Plan::x(whole, plan.leaves), y = Plan::y(whole, plan.leaves);
  const auto chunk = std::min(chunk_of(tuning, plan.rings), std::max<uint64_t>(1, y.count));
  const uint64_t chunk_bytes = chunk * size_of(request.datatype);
  const AllReducePattern& outer =
      outer_of(hosts, chunk_bytes / static_cast<uint64_t>(plan.rings.count()));
  const SpreadPattern& inner = spread_within(most, chunk_bytes);
  const auto chunks = std::max(1.0, static_cast<double>(plan::chunk_count(y.count, chunk)));
  const auto chunks_x = static_cast<double>(plan::chunk_count(x.count, chunk_of(tuning, plan.all)));

  plan::Cost cost;
  cost.staged = true;
  PortMeter meter(topology);
  const auto add_rings = [&](const Shards& shards, const Region& region) {
    for (int s = 0; region.count > 0 && s < shards.count(); s++) {
      const double bytes = static_cast<double>(shards.of(region, s).count) * element_bytes;
      const std::vector<int>& owners = shards.across(s);
      for (size_t i = 0; i < owners.size(); i++)
        meter.add(owners[i], owners[(i + 1) % owners.size()],
                  outer.bytes(static_cast<int>(owners.size()), bytes));
    }
  };
  add_rings(plan.all, x);
  add_rings(plan.rings, y);
  for (const Piece& piece : plan.pieces(topology, y.count)) {
    const double bytes = static_cast<double>(piece.end - piece.begin) * element_bytes;
    for (const Pass& pass : piece.passes) {
      meter.add(pass.leaf, pass.neighbour, bytes);
      meter.add(pass.neighbour, pass.leaf, bytes);
    }
  }
  meter.charge(cost);
  // The ways of the first chunk to the rings and of the last one from them are not hidden; together
  // they take about as long as the rings of one.
  cost.outer_bytes *= 1 + 1 / chunks;
  cost.inner_bytes = 2 * n * (most - 1) / most;
  cost.cross_bytes = cost.inner_bytes * cross_share(topology);
  cost.inner_rounds = 2 * inner.rounds(most);
  cost.inner_extra = 2 * inner.extra(most);
  cost.outer_rounds = std::max(chunks, chunks_x) * outer.rounds(hosts) + 2;
  const auto turns = std::min<size_t>(plan.leaves.others.size(), Leaves::kNeighbours);
  cost.outer_extra = 2 * chunks * (static_cast<double>(turns) - 1);
  cost.local_bytes = n;
  return cost;
}

void write_x(Builder& b, const Plan& plan, const Writer& writer, int first, const Region& in,
             const Region& out, uint64_t chunk) {
  const auto within = [&](Builder& to, int channel, size_t, uint64_t from, uint64_t n) {
    writer.reduce_x(to, channel, in.part(from, n), out.part(from, n));
  };
  const auto across = [&](Builder& to, int channel, size_t part, uint64_t from, uint64_t n) {
    writer.across_x(to, channel, out.part(from, n), part);
  };
  const auto gather = [&](Builder& to, int channel, size_t, uint64_t from, uint64_t n) {
    writer.gather_x(to, channel, out.part(from, n));
  };
  const std::vector<WideStage> stages = {{channels(first), within},
                                         {channels(first + 2, plan.widths.x), across},
                                         {channels(first + 1), gather}};
  write_stages(b, in.count, chunk, stages);
}

void write_y(Builder& b, const Plan& plan, const Writer& writer, int first, const Region& in,
             const Region& out, uint64_t chunk) {
  const auto reduce_within = [&](Builder& to, int channel, size_t, uint64_t from, uint64_t n) {
    writer.reduce_y(to, channel, in.part(from, n), out.part(from, n));
  };
  const auto pass_up = [&](Builder& to, int channel, size_t, uint64_t from, uint64_t n) {
    writer.pass_up(to, channel, in.part(from, n), out.part(from, n));
  };
  const auto across = [&](Builder& to, int channel, size_t part, uint64_t from, uint64_t n) {
    writer.across_y(to, channel, out.part(from, n), part);
  };
  const auto pass_down = [&](Builder& to, int channel, size_t, uint64_t from, uint64_t n) {
    writer.pass_down(to, channel, out.part(from, n));
  };
  const auto gather_within = [&](Builder& to, int channel, size_t, uint64_t from, uint64_t n) {
    writer.gather_y(to, channel, out.part(from, n));
  };
  // Leaves reduce, hand over, get back and gather; others get, reduce, gather and hand back.
  const WideStage within{channels(first), reduce_within}, up{channels(first + 1), pass_up},
      down{channels(first + 2), pass_down}, back{channels(first + 3), gather_within},
      rings{channels(first + 4, plan.widths.y), across};
  const std::vector<WideStage> stages = writer.leaf()
                                            ? std::vector<WideStage>{within, up, rings, down, back}
                                            : std::vector<WideStage>{up, within, rings, back, down};
  write_stages(b, in.count, chunk, stages);
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  Builder b(request, topology.size(), rank, "rail_leaf");
  const Plan plan(topology);
  const Writer writer(topology, plan, rank, size_of(request.datatype));
  const auto width_x = static_cast<int>(plan.widths.x) + kStagesX - 1;
  const int width = width_x + static_cast<int>(plan.widths.y) + kStagesY - 1;
  const auto lanes = static_cast<uint64_t>(lanes_of(tuning, width));
  for (uint64_t lane = 0; lane < lanes; lane++) {
    const Region in = b.input().block(lane, lanes), out = b.output().block(lane, lanes);
    const int first = static_cast<int>(lane) * width;
    write_x(b, plan, writer, first, Plan::x(in, plan.leaves), Plan::x(out, plan.leaves),
            chunk_of(tuning, plan.all));
    write_y(b, plan, writer, first + width_x, Plan::y(in, plan.leaves), Plan::y(out, plan.leaves),
            chunk_of(tuning, plan.rings));
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_reduce_rail_leaf){Collective::all_reduce, "rail_leaf", supports, cost, build};

}  // namespace railccl::algorithms
