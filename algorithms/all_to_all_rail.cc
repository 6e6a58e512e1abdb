// All-to-all, rail: what a rank sends to another host travels as one bundle along its rail, to the
// rank there on the same rail, which hands the blocks out in its host.
//
//   hosts {0,1} and {2,3}:  0 -> 2: the blocks for 2 and 3;  2 keeps its own and gives 3 the other
//
// A rank whose rail does not reach the other host first hands its bundle to a local rank whose rail
// does (NCCL's PXN), so bytes cross rails only between hosts that have no rail in common. (p - G)
// blocks leave through each rank's NIC, the bound, in N - 1 messages instead of p - G; inside a
// host the same blocks travel once more. Hosts take turns: in round d host h sends to h + d.
//
// Small blocks are bundled; when a bundle would exceed a chunk, one block per message and round is
// sent, in chunks. Scratch: per channel a few bundles or chunks times the ranks per host.
#include <algorithm>
#include <map>
#include <tuple>
#include <utility>
#include <vector>

#include "algorithms/algorithm.h"
#include "algorithms/bundle.h"
#include "algorithms/domains.h"
#include "algorithms/rails.h"

namespace railccl::algorithms {
namespace {

/// One block's way from a rank of one host to a rank of another.
struct Route {
  int source = 0, target = 0;
  int out = 0, in = 0;  // equal to source and target where there is nothing to hand over
};

/// How each rank of host `from` reaches host `to`.
std::vector<Crossing> crossings(const topology::Topology& topology, int from, int to) {
  std::vector<Crossing> ways;
  for (const int source : topology.ranks_of_host(from)) {
    ways.push_back(crossing(topology, source, to));
  }
  return ways;
}

/// The routes of one round and step from host `from` to host `to`, ordered as messages carry them:
/// by gateway pair, then target, then source.
using Routes = std::vector<Route>;

Routes routes_of(const topology::Topology& topology, int from, int to,
                 const std::vector<Crossing>& ways, bool bundled, int step) {
  const std::vector<int>& sources = topology.ranks_of_host(from);
  const std::vector<int>& targets = topology.ranks_of_host(to);
  Routes routes;
  for (size_t i = 0; i < sources.size(); i++) {
    const Crossing& way = ways[i];
    for (size_t j = 0; j < targets.size(); j++) {
      // Unbundled, each step has one target per source, a different one for neighbours.
      const bool now = bundled || (i + static_cast<size_t>(step)) % targets.size() == j;
      if (now && (bundled || static_cast<size_t>(step) < targets.size())) {
        routes.push_back({sources[i], targets[j], way.out, way.in});
      }
    }
  }
  std::sort(routes.begin(), routes.end(), [](const Route& a, const Route& b) {
    return std::tie(a.out, a.in, a.target, a.source) < std::tie(b.out, b.in, b.target, b.source);
  });
  return routes;
}

/// Room for blocks one after the other.
struct Room {
  plan::Region region;
  uint64_t used = 0;

  void clear() { used = 0; }
  plan::Region take(uint64_t count) {
    used += count;
    return region.part(used - count, count);
  }
};

/// Elements of one block per message, and whether a message carries a whole bundle.
struct Shape {
  bool bundled = false;
  uint64_t part = 1;
};

class Writer {
 public:
  Writer(plan::Builder& b, const topology::Topology& topology, int rank, uint64_t lane,
         uint64_t lanes, uint64_t chunk)
      : b_(b), topology_(topology), rank_(rank), lane_(lane), lanes_(lanes) {
    count_ = place(b.input(), rank).count;
    const auto most = static_cast<uint64_t>(topology.ranks_per_host_max());
    shape_.bundled = count_ * most <= chunk;
    shape_.part = std::min(chunk, count_);
    const std::vector<int>& hosts = topology.used_hosts();
    const auto home = std::find(hosts.begin(), hosts.end(), topology.rank(rank).host);
    home_ = static_cast<int>(home - hosts.begin());
    make_room();
  }

  void write() {
    if (count_ == 0) return;
    each_chunk(b_, count_, shape_.part, [&](const Chunk& chunk) {
      write_home(chunk);
      for_rounds([&](const Routes& leaving, const Routes& arriving) {
        write_round(leaving, arriving, chunk);
      });
    });
  }

 private:
  plan::Region place(const plan::Region& whole, int r) const {
    return whole.block(static_cast<uint64_t>(r), static_cast<uint64_t>(topology_.size()))
        .block(lane_, lanes_);
  }

  template <typename Body>
  void for_rounds(const Body& body) const {
    const std::vector<int>& hosts = topology_.used_hosts();
    const int n = static_cast<int>(hosts.size());
    const int steps = shape_.bundled ? 1 : topology_.ranks_per_host_max();
    for (int d = 1; d < n; d++) {
      const int to = hosts[static_cast<size_t>((home_ + d) % n)];
      const int from = hosts[static_cast<size_t>((home_ - d + n) % n)];
      const int home = hosts[static_cast<size_t>(home_)];
      const std::vector<Crossing> out = crossings(topology_, home, to);
      const std::vector<Crossing> in = crossings(topology_, from, home);
      for (int step = 0; step < steps; step++) {
        body(routes_of(topology_, home, to, out, shape_.bundled, step),
             routes_of(topology_, from, home, in, shape_.bundled, step));
      }
    }
  }

  /// Scratch for the fullest round, twice what packs messages and what arrives to be handed on, so
  /// that a round need not wait until the last one's messages have left.
  void make_room() {
    size_t handed = 0, arrived = 0, leaving_most = 0;
    for_rounds([&](const Routes& leaving, const Routes& arriving) {
      size_t to_me = 0, through_me = 0, mine = 0, own = 0;
      for (const Route& route : leaving) {
        if (route.out == rank_ && route.source != rank_) to_me++;
        if (route.out == rank_ || route.source == rank_) mine++;
      }
      for (const Route& route : arriving) {
        if (route.in == rank_) through_me++;
        if (route.target == rank_) own++;
      }
      handed = std::max(handed, to_me);
      arrived = std::max(arrived, std::max(through_me, own));
      leaving_most = std::max(leaving_most, std::max(mine, through_me));
    });
    const auto room = [&](size_t blocks) {
      return Room{b_.scratch(static_cast<uint64_t>(blocks) * shape_.part), 0};
    };
    handed_ = room(handed);
    for (size_t i = 0; i < 2; i++) {
      arrived_[i] = room(arrived);
      packed_[i] = room(2 * leaving_most);
    }
    unpacked_ = room(arrived);
  }

  /// The blocks that stay in this host, pairwise.
  void write_home(const Chunk& chunk) {
    const std::vector<int>& locals = topology_.ranks_of_host(topology_.rank(rank_).host);
    const int n = static_cast<int>(locals.size()), me = topology_.rank(rank_).local;
    b_.copy(chunk.of(place(b_.input(), rank_)), chunk.of(place(b_.output(), rank_)));
    for (int i = 1; i < n; i++) {
      const int to = locals[static_cast<size_t>((me + i) % n)];
      const int from = locals[static_cast<size_t>((me - i + n) % n)];
      b_.send(to, chunk.of(place(b_.input(), to)));
      b_.recv(from, chunk.of(place(b_.output(), from)));
    }
  }

  /// Three exchanges; in each, all sends are posted before the first receive, and no pair has more
  /// than one message, so that a full window cannot lock anyone out.
  void write_round(const Routes& leaving, const Routes& arriving, const Chunk& chunk) {
    Room& arrived = arrived_[turn_ % 2];
    Room& packed = packed_[turn_ % 2];
    turn_++;
    handed_.clear();
    arrived.clear();
    packed.clear();
    std::map<std::pair<int, int>, plan::Slice> held;  // (source, target): where the block lies
    const auto send = [&](int to, const std::vector<plan::Slice>& pieces) {
      send_bundle(b_, to, pieces, packed.take(total_count(pieces)));
    };

    hand_over(leaving, chunk, send, held);
    // Across.
    for (const auto& [in, routes] : by(leaving, &Route::out, &Route::in)) {
      std::vector<plan::Slice> pieces;
      for (const Route& route : routes) pieces.push_back(held.at({route.source, route.target}));
      send(in, pieces);
    }
    for (const auto& [out, routes] : by(arriving, &Route::in, &Route::out)) {
      const bool all_mine = std::all_of(routes.begin(), routes.end(),
                                        [&](const Route& r) { return r.target == rank_; });
      if (all_mine) {
        recv_mine(out, routes, chunk);
        continue;
      }
      const plan::Region message = arrived.take(routes.size() * chunk.count());
      b_.recv(out, message.slice());
      for (size_t i = 0; i < routes.size(); i++) {
        const plan::Slice block = message.part(i * chunk.count(), chunk.count()).slice();
        held[{routes[i].source, routes[i].target}] = block;
        if (routes[i].target == rank_) {
          b_.copy(block, chunk.of(place(b_.output(), routes[i].source)));
        }
      }
    }
    // Out to the host.
    for (const auto& [target, routes] : by(arriving, &Route::in, &Route::target)) {
      if (target == rank_) continue;
      std::vector<plan::Slice> pieces;
      for (const Route& route : routes) pieces.push_back(held.at({route.source, route.target}));
      send(target, pieces);
    }
    for (const auto& [in, routes] : by(arriving, &Route::target, &Route::in)) {
      if (in != rank_) recv_mine(in, routes, chunk);
    }
  }

  /// Bundles of ranks whose rail does not reach the other host go to the local rank whose does.
  template <typename Send>
  void hand_over(const Routes& leaving, const Chunk& chunk, const Send& send,
                 std::map<std::pair<int, int>, plan::Slice>& held) {
    for (const auto& [out, routes] : by(leaving, &Route::source, &Route::out)) {
      std::vector<plan::Slice> pieces;
      for (const Route& route : routes) {
        const plan::Slice block = chunk.of(place(b_.input(), route.target));
        pieces.push_back(block);
        if (out == rank_) held[{route.source, route.target}] = block;
      }
      if (out != rank_) send(out, pieces);
    }
    for (const auto& [source, routes] : by(leaving, &Route::out, &Route::source)) {
      if (source == rank_) continue;
      const plan::Region message = handed_.take(routes.size() * chunk.count());
      b_.recv(source, message.slice());
      for (size_t i = 0; i < routes.size(); i++) {
        held[{routes[i].source, routes[i].target}] =
            message.part(i * chunk.count(), chunk.count()).slice();
      }
    }
  }

  void recv_mine(int from, const Routes& routes, const Chunk& chunk) {
    std::vector<plan::Slice> places;
    for (const Route& route : routes) {
      places.push_back(chunk.of(place(b_.output(), route.source)));
    }
    recv_bundle(b_, from, places, unpacked_.region);
  }

  /// Routes on which this rank has the role `mine`, by who has the role `other`.
  std::map<int, Routes> by(const Routes& routes, int Route::*mine, int Route::*other) const {
    std::map<int, Routes> groups;
    for (const Route& route : routes) {
      if (route.*mine == rank_) groups[route.*other].push_back(route);
    }
    return groups;
  }

  plan::Builder& b_;
  const topology::Topology& topology_;
  int rank_;
  uint64_t lane_, lanes_, count_ = 0;
  Shape shape_;
  int home_ = 0;  // index of this host among the used ones
  Room handed_, arrived_[2], packed_[2], unpacked_;
  size_t turn_ = 0;
};

bool supports(const plan::Request& request, const topology::Topology& topology) {
  return request.collective == Collective::all_to_all && has_rails(topology);
}

plan::Cost cost(const plan::Request& request, const topology::Topology& topology,
                const plan::Tuning& tuning) {
  const double block = static_cast<double>(plan::bytes_of(request));
  const auto hosts = static_cast<double>(topology.used_hosts().size());
  const int most = topology.ranks_per_host_max();
  const auto lanes = static_cast<uint64_t>(tuning.channels);
  const bool bundled =
      (request.count + lanes - 1) / lanes * static_cast<uint64_t>(most) <= tuning.chunk_elements;
  const double steps = (hosts - 1) * (bundled ? 1 : most);
  plan::Cost cost;
  cost.staged = true;
  charge_all_to_all(topology, block, true, cost);
  cost.inner_bytes = block * (most - 1) * hosts;
  cost.cross_bytes = cost.inner_bytes * cross_share(topology);
  cost.inner_rounds = most - 1 + steps;
  cost.outer_rounds = steps;
  cost.local_bytes = bundled ? 2 * block * topology.size() : block;
  return cost;
}

Result<plan::Program> build(const plan::Request& request, const topology::Topology& topology,
                            const plan::Tuning& tuning, int rank) {
  plan::Builder b(request, topology.size(), rank, "rail");
  const auto lanes = static_cast<uint64_t>(tuning.channels);
  for (uint64_t lane = 0; lane < lanes; lane++) {
    b.channel(static_cast<int>(lane));
    Writer(b, topology, rank, lane, lanes, std::max<uint64_t>(1, tuning.chunk_elements)).write();
  }
  return std::move(b).take();
}

}  // namespace

RAILCCL_ALGORITHM(all_to_all_rail){Collective::all_to_all, "rail", supports, cost, build};

}  // namespace railccl::algorithms
