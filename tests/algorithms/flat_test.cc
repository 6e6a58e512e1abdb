// Shows that the flat patterns compose as flat.h promises: an all-reduce made of any reduce-scatter
// and any all-gather, over blocks of unequal sizes (empty ones too), in a group whose order is not
// that of the ranks, with sums kept in scratch or in the output, is proven by the checker.
#include "algorithms/flat.h"

#include <bit>

#include "algorithms/tree.h"
#include "harness.h"

namespace railccl::algorithms {
namespace {

using plan::Program;
using plan::Request;

/// Blocks of sizes 0, 1, 4, 2, 2, 4, 1 and so on; they adjoin, and the last takes what is left.
Blocks uneven(const Region& whole, int p) {
  Blocks blocks;
  uint64_t at = 0;
  for (int i = 0; i < p; i++) {
    const uint64_t wanted = static_cast<uint64_t>(i * i % 7);
    const uint64_t n = i == p - 1 ? whole.count - at : std::min(wanted, whole.count - at);
    blocks.push_back(whole.part(at, n));
    at += n;
  }
  return blocks;
}

Group odd_first(int p, int rank) {
  Group group;
  for (int start : {1, 0}) {
    for (int r = start; r < p; r += 2) {
      if (r == rank) group.me = group.size();
      group.members.push_back(r);
    }
  }
  return group;
}

enum class Sums { in_scratch, in_output };
using Scatter = void (*)(const Stage&, const Blocks&, const Region&, const Blocks&);
using Gather = void (*)(const Stage&, const Region&, const Blocks&);

void without_work(const Stage& stage, const Blocks& input, const Region& output, const Blocks&) {
  direct_reduce_scatter(stage, input, output);
}
void through_peers(const Stage& stage, const Blocks& input, const Region& output, const Blocks&) {
  shared_reduce_scatter(stage, input, output);
}

TEST(Flat, AnyReduceScatterGoesWithAnyAllGather) {
  const Scatter scatters[] = {ring_reduce_scatter, halving_reduce_scatter, without_work,
                              through_peers};
  const Gather gathers[] = {ring_all_gather, bruck_all_gather, direct_all_gather,
                            shared_all_gather};
  for (int p = 1; p <= 11; p++) {
    const topology::Topology topology = topology_of(regular(1, p, 1));
    for (size_t s = 0; s < std::size(scatters); s++) {
      for (size_t g = 0; g < std::size(gathers); g++) {
        for (const Sums sums : {Sums::in_scratch, Sums::in_output}) {
          for (const bool in_place : {false, true}) {
            for (const uint64_t chunk : {uint64_t{2}, uint64_t{100}}) {
              const Request request = request_of(Collective::all_reduce, 29, in_place);
              const auto make = [&](int rank) -> Result<Program> {
                Builder b(request, p, rank, "composed");
                Scratch scratch(b.scratch(12 * 29));
                const Stage stage{b, odd_first(p, rank), 0, chunk, Pre::yes, Post::yes, &scratch};
                const Blocks target = uneven(b.output(), p);
                const Region& mine = target[static_cast<size_t>(stage.group.me)];
                scatters[s](stage, uneven(b.input(), p), mine,
                            sums == Sums::in_output ? target : Blocks{});
                gathers[g](stage, mine, target);
                return std::move(b).take();
              };
              const auto report =
                  plan::check(request, p, make, options_with_memory(topology, false));
              ASSERT_TRUE(report.is_ok())
                  << "p " << p << " scatter " << s << " gather " << g << " sums in "
                  << (sums == Sums::in_output ? "output" : "scratch") << " in place " << in_place
                  << " chunk " << chunk << ": " << report.status().text();
            }
          }
        }
      }
    }
  }
}

// A first stage inside pairs, a second one across them: pre and post once, sums in one scratch
// region.
TEST(Flat, AllReducesServeAsUpperLevel) {
  using AllReduce = void (*)(const Stage&, const Region&, const Region&);
  const AllReduce patterns[] = {
      ring_all_reduce,  tree_all_reduce,     doubling_all_reduce,        direct_all_reduce,
      bruck_all_reduce, two_shot_all_reduce, halving_doubling_all_reduce};
  for (size_t a = 0; a < std::size(patterns); a++) {
    for (const int pairs : {1, 2, 3, 4, 5, 7}) {
      for (const bool in_place : {false, true}) {
        const int p = 2 * pairs;
        const Request request = request_of(Collective::all_reduce, 31, in_place);
        const auto make = [&](int rank) -> Result<Program> {
          Builder b(request, p, rank, "pairs");
          const int here = rank / 2, local = rank % 2;
          Group pair{{2 * here, 2 * here + 1}, local}, across;
          for (int i = 0; i < pairs; i++) across.members.push_back(2 * i + local);
          across.me = here;
          Scratch scratch;
          const Stage first{b, pair, 0, 4, Pre::yes, Post::no, &scratch};
          const Stage second{b, across, 0, 4, Pre::no, Post::yes, nullptr};
          const Region shard = b.scratch(16).part(0, local == 0 ? 16 : 15);
          ring_reduce_scatter(first, split(b.input(), 2), shard);
          patterns[a](second, shard, shard);
          ring_all_gather(first, shard, split(b.output(), 2));
          return std::move(b).take();
        };
        const auto report = plan::check(request, p, make);
        ASSERT_TRUE(report.is_ok()) << "pattern " << a << " pairs " << pairs << " in place "
                                    << in_place << ": " << report.status().text();
      }
    }
  }
}

TEST(Tree, LinksAgreeAndReachEveryone) {
  for (int p = 1; p <= 70; p++) {
    for (int tree = 0; tree < 2; tree++) {
      int roots = 0;
      size_t links_down = 0;
      for (int me = 0; me < p; me++) {
        const Links mine = tree_links(Group::everyone(p, me), tree);
        roots += mine.parent < 0;
        links_down += mine.children.size();
        EXPECT_LE(mine.children.size(), 2u);
        for (const int child : mine.children)
          EXPECT_EQ(tree_links(Group::everyone(p, child), tree).parent, me);
        int at = me, hops = 0;
        while (at >= 0 && hops <= p) {
          at = tree_links(Group::everyone(p, at), tree).parent;
          hops++;
        }
        EXPECT_LE(hops, std::bit_width(static_cast<unsigned>(p - 1)) + 1) << p << " from " << me;
      }
      EXPECT_EQ(roots, 1);
      EXPECT_EQ(links_down, static_cast<size_t>(p - 1));
    }
  }
}

TEST(Tree, InnerNodesOfOneAreLeavesOfTheOther) {
  for (int p = 2; p <= 70; p++) {
    int inner_in_both = 0;
    for (int me = 0; me < p; me++) {
      const bool first = !tree_links(Group::everyone(p, me), 0).children.empty();
      const bool second = !tree_links(Group::everyone(p, me), 1).children.empty();
      inner_in_both += first && second;
    }
    EXPECT_LE(inner_in_both, p % 2) << p;
  }
}

}  // namespace
}  // namespace railccl::algorithms
