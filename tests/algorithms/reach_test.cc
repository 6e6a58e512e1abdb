// What algorithms that fetch do with peers' buffers: copy out of them, and nothing else, which is
// all that the system can do for them.
#include <algorithm>

#include "harness.h"

namespace railccl::algorithms {
namespace {

bool is_peers(const plan::Slice& slice) { return slice.owner != plan::kHere && slice.count > 0; }

int expect_only_fetches(const plan::Program& program) {
  int fetches = 0;
  for (const plan::Channel& channel : program.channels)
    for (const plan::Step& step : channel.steps) {
      EXPECT_FALSE(is_peers(step.dst));
      if (!is_peers(step.src)) continue;
      EXPECT_EQ(step.verb, plan::Verb::copy);
      EXPECT_EQ(step.target_count, 0u);
      EXPECT_FALSE(step.pre || step.post);
      EXPECT_NE(step.src.buffer, plan::Buffer::scratch);
      fetches++;
    }
  EXPECT_TRUE(std::none_of(program.sources.begin(), program.sources.end(), is_peers));
  EXPECT_TRUE(std::none_of(program.targets.begin(), program.targets.end(), is_peers));
  return fetches;
}

TEST(Reach, FetchingPlansOnlyCopyOutOfPeersBuffers) {
  int algorithms = 0;
  for (const Algorithm* algorithm : all()) {
    if (algorithm->reach != Reach::fetched) continue;
    algorithms++;
    for (const int ranks : {2, 3, 8}) {
      const topology::Topology topology = topology_of(regular(1, ranks, 1));
      for (const bool in_place : {false, true}) {
        if (in_place && !in_place_exists(algorithm->collective)) continue;
        const plan::Request request = request_of(algorithm->collective, 100003, in_place, 0);
        for (int rank = 0; rank < ranks; rank++) {
          const auto program = algorithm->build(request, topology, {}, rank);
          ASSERT_TRUE(program.is_ok()) << program.status().text();
          EXPECT_GE(expect_only_fetches(*program), ranks - 1);
          if (HasFailure()) return;
        }
      }
    }
  }
  EXPECT_GE(algorithms, 2);
}

}  // namespace
}  // namespace railccl::algorithms
