// Shows that folding changes nothing but the work: for every algorithm on even clusters and some
// uneven ones, folded and unfolded simulations take the same time and move the same bytes, and
// where plans are symmetric ranks really are folded.
#include "simulator/folding.h"

#include <string>
#include <vector>

#include "algorithms/harness.h"
#include "base/random.h"
#include "simulator/worlds.h"

namespace railccl::simulator {
namespace {

using algorithms::Algorithm;

constexpr double kSame = 1e-9;

void expect_same(const Report& all, const Report& folded, const std::string& text) {
  ASSERT_EQ(all.folds, 1);
  ASSERT_NEAR(folded.seconds, all.seconds, kSame * all.seconds) << text;
  ASSERT_EQ(folded.steps, all.steps) << text;
  ASSERT_EQ(folded.inter_host_bytes, all.inter_host_bytes) << text;
  ASSERT_EQ(folded.spine_bytes, all.spine_bytes) << text;
  ASSERT_EQ(folded.bytes_of_rail, all.bytes_of_rail) << text;
  for (const auto& [pair, bytes] : folded.bytes) ASSERT_EQ(bytes, all.bytes.at(pair)) << text;
  for (const auto& [pair, count] : folded.messages) ASSERT_EQ(count, all.messages.at(pair)) << text;
  ASSERT_EQ(folded.messages.size() * static_cast<size_t>(folded.folds), all.messages.size())
      << text;
  for (const LinkLoad& load : folded.links) {
    const auto same = std::find_if(all.links.begin(), all.links.end(), [&](const LinkLoad& other) {
      return other.link.name == load.link.name;
    });
    ASSERT_NE(same, all.links.end()) << text << ": " << load.link.name;
    ASSERT_NEAR(load.bytes, same->bytes, kSame * same->bytes) << text << ": " << load.link.name;
  }
}

struct Pair {
  Report all, folded;
};

void simulate_both(const Algorithm& algorithm, const plan::Request& request,
                   const topology::Topology& topology, const plan::Tuning& tuning,
                   const std::string& text, Pair* pair) {
  const auto make = [&](int rank) { return algorithm.build(request, topology, tuning, rank); };
  Options options;
  const auto all = simulate(request, topology, make, options);
  ASSERT_TRUE(all.is_ok()) << text << ": " << all.status().text();
  options.fold = true;
  const auto folded = simulate(request, topology, make, options);
  ASSERT_TRUE(folded.is_ok()) << text << ": " << folded.status().text();
  *pair = {*all, *folded};
  expect_same(*all, *folded, text);
}

TEST(Folding, EveryAlgorithmTakesTheSameTime) {
  std::vector<World> worlds;
  for (const auto& [hosts, ranks] : std::vector<std::pair<int, int>>{
           {1, 4}, {1, 3}, {4, 1}, {2, 2}, {4, 4}, {3, 2}, {2, 3}, {8, 2}}) {
    World world;
    world.hosts = hosts;
    world.ranks = ranks;
    world.copy_bytes_per_s = 50e9;
    worlds.push_back(world);
  }
  worlds[4].oversubscription = 4;
  worlds[7].oversubscription = 2;
  worlds[6].rails = 1;  // everyone on one leaf
  int plans = 0, folded = 0;
  Random random(7);
  for (const World& world : worlds) {
    const topology::Topology topology = world.topology();
    for (const Algorithm* algorithm : algorithms::all()) {
      if (algorithm->reach != algorithms::Reach::none) continue;
      // Shares of all ranks are alike, or not.
      for (const uint64_t count : {uint64_t{9216}, 1 + random.below(9000)}) {
        plan::Request request = request_of(algorithm->collective, count);
        if (rooted(algorithm->collective))
          request.root = static_cast<int>(random.below(static_cast<uint64_t>(topology.size())));
        if (!algorithm->supports(request, topology)) continue;
        const plan::Tuning tuning{1 + static_cast<int>(random.below(3)),
                                  count == 9216 ? 512 : 1 + random.below(4000)};
        const std::string text = std::to_string(world.hosts) + " x " + std::to_string(world.ranks) +
                                 ", " + plan::text_of(request) + " by " + algorithm->name;
        Pair pair;
        simulate_both(*algorithm, request, topology, tuning, text, &pair);
        if (HasFatalFailure()) return;
        plans++;
        folded += pair.folded.folds > 1 ? 1 : 0;
      }
    }
  }
  EXPECT_GT(plans, 300);
  EXPECT_GT(folded, plans / 4);
}

TEST(Folding, FoldsWhatIsSymmetric) {
  World world;
  world.hosts = world.ranks = 4;
  const topology::Topology topology = world.topology();
  const auto folds = [&](const char* name, Collective collective, int root = 0) {
    plan::Request request = request_of(collective, 1 << 14);
    request.root = root;
    Options options;
    options.fold = true;
    const auto report = simulate(name, request, topology, options, {1, 1 << 12});
    EXPECT_TRUE(report.is_ok()) << report.status().text();
    return report.is_ok() ? report->folds : 0;
  };
  EXPECT_EQ(folds("halving_doubling", Collective::all_reduce), 16);
  EXPECT_EQ(folds("rail", Collective::all_reduce), 16);
  // Neighbours in the order of ranks are on other hosts for some.
  EXPECT_EQ(folds("ring", Collective::all_reduce), 4);
  EXPECT_EQ(folds("direct", Collective::all_gather), 4);
  EXPECT_EQ(folds("direct", Collective::broadcast), 1);
  EXPECT_EQ(folds("direct", Collective::broadcast, 9), 1);
}

TEST(Folding, WhatIsSetApartIsNotFolded) {
  World world;
  world.hosts = world.ranks = 2;
  const plan::Request request = request_of(Collective::all_reduce, 1 << 14);
  const auto folds = [&](const topology::Topology& topology, const Options& options) {
    const auto report = simulate("halving_doubling", request, topology, options);
    EXPECT_TRUE(report.is_ok()) << report.status().text();
    return report.is_ok() ? report->folds : 0;
  };
  Options fold = free_steps();
  fold.fold = true;
  EXPECT_EQ(folds(world.topology(), fold), 4);
  Options slow = fold, fault = fold, jitter = fold;
  slow.slow = {{1, 2.0}};
  fault.faults = {{1e-6, 0, 0, 0.5}};
  jitter.jitter = 0.1;
  for (const Options& options : {slow, fault, jitter})
    EXPECT_EQ(folds(world.topology(), options), 1);
  // A slower NIC on one host, or on one rail.
  const topology::Topology even = world.topology();
  std::vector<topology::Host> hosts = even.hosts();
  hosts[1].nics[0].bytes_per_s /= 2;
  const auto changed = [&] {
    return topology::Topology(hosts, even.rails(), even.ranks(), even.network_alpha_s());
  };
  EXPECT_EQ(folds(changed(), fold), 1);
  hosts[0].nics[0].bytes_per_s /= 2;
  EXPECT_EQ(folds(changed(), fold), 2);
}

}  // namespace
}  // namespace railccl::simulator
