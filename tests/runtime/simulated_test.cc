// Shows that executions neither hang nor give wrong results whatever the network's timing: 1,000
// seeded worlds (fewer under sanitizers) in one thread and virtual time, with random shapes,
// algorithms, requests, credits and delays, a third of them losing links. Every rank must end with
// the exact result, or, in worlds with losses, somewhere with an error that names the link; when no
// event is left and ranks still wait although nobody failed, that is a hang. A failure prints its
// seed.
#include "transport/simulated.h"

#include <gtest/gtest.h>

#include "algorithms/algorithm.h"
#include "runtime/chooser.h"
#include "runtime/execute.h"
#include "shapes.h"
#include "transport/registry.h"
#include "values.h"

namespace railccl::test {
namespace {

using algorithms::Algorithm;
using runtime::Execution;
using runtime::Outcome;
using runtime::Wires;
using transport::simulated::Options;
using transport::simulated::World;

struct Rank {
  std::unique_ptr<Wires> wires;
  std::unique_ptr<Execution> execution;
  std::unique_ptr<Buffers> buffers;
  bool done = false;
  Status status;
};

std::vector<int> random_shape(Random& random) {
  static const std::vector<std::vector<int>> shapes = {
      {2}, {3}, {4}, {5}, {7}, {8}, {9}, {2, 2}, {1, 2}, {3, 1, 2}, {2, 2, 2}, {4, 4}, {1, 1, 1}};
  return shapes[random.below(shapes.size())];
}

std::unique_ptr<transport::Transport> self_transport(int rank, int ranks) {
  transport::Context context;
  context.rank = rank;
  context.ranks = ranks;
  for (const transport::TransportKind* kind : transport::all())
    if (std::string_view(kind->name) == "self") return kind->create(context).value();
  return nullptr;
}

struct Tally {
  int exact = 0;   // worlds in which every rank got its result
  int failed = 0;  // worlds in which links were lost in time to matter
};

void live_through(uint64_t seed, Tally* tally) {
  Random random(seed);
  const topology::Topology topology = hosts_with(random_shape(random));
  const int ranks = topology.size();
  Options options = Options::drawn(seed);
  options.shared_memory = random.chance(0.5);
  if (random.chance(0.33))
    for (uint64_t i = 0; i <= random.below(2); i++) {
      const int a = static_cast<int>(random.below(static_cast<uint64_t>(ranks)));
      const int b =
          (a + 1 + static_cast<int>(random.below(static_cast<uint64_t>(ranks - 1)))) % ranks;
      options.losses.push_back({a, b, static_cast<int64_t>(random.below(400'000))});
    }
  World world(seed, ranks, options);
  std::vector<Rank> all(static_cast<size_t>(ranks));
  const std::vector<std::vector<transport::Address>> addresses(
      2, std::vector<transport::Address>(static_cast<size_t>(ranks)));
  const std::vector<uint64_t> same(static_cast<size_t>(ranks), 1);
  for (int r = 0; r < ranks; r++) {
    std::vector<std::unique_ptr<transport::Transport>> media;
    media.push_back(self_transport(r, ranks));
    media.push_back(world.transport(r));
    all[static_cast<size_t>(r)].wires = std::make_unique<Wires>(r, ranks, std::move(media));
    const Status status = all[static_cast<size_t>(r)].wires->set_peers(addresses, same, same);
    ASSERT_TRUE(status.is_ok()) << status.text();
  }
  // A few operations one after the other, each rank going on as soon as it is done.
  struct Operation {
    const Algorithm* algorithm;
    Request request;
    plan::Tuning tuning;
  };
  std::vector<Operation> operations;
  // Every arrival lets all ranks step: many elements in crumbs would show no more, for minutes.
  const uint64_t count_max =
      std::min<uint64_t>(4000, 16 * std::min(options.segment_bytes_max, options.credit_bytes));
  while (operations.size() < 2) {
    const auto& rows = algorithms::all();
    const Algorithm* algorithm = rows[random.below(rows.size())];
    const Request request = random_request(random, algorithm->collective, ranks, count_max);
    // Nothing here exchanges where buffers are.
    if (algorithm->reach != algorithms::Reach::none || !algorithm->supports(request, topology))
      continue;
    const plan::Tuning tuning = {1 + static_cast<int>(random.below(2)),
                                 request.count / 20 + 1 + random.below(500)};
    if (!options.shared_memory) {
      auto uses = runtime::uses_peer_memory(*algorithm, request, topology, tuning);
      if (!uses.is_ok() || *uses) continue;
    }
    operations.push_back({algorithm, request, tuning});
  }
  std::string story = fmt::format("seed {} on {} ranks", seed, ranks);
  for (const Operation& operation : operations)
    story += fmt::format(", {} by {}", plan::text_of(operation.request), operation.algorithm->name);
  std::vector<size_t> at(static_cast<size_t>(ranks), 0);
  const auto begin = [&](int r) {
    Rank& rank = all[static_cast<size_t>(r)];
    const Operation& operation = operations[at[static_cast<size_t>(r)]];
    auto program = operation.algorithm->build(operation.request, topology, operation.tuning, r);
    ASSERT_TRUE(program.is_ok()) << story << ": " << program.status().text();
    auto made = Execution::make(std::move(program).value(), *rank.wires);
    if (!made.is_ok()) {  // a link that is lost already
      rank.status = made.status();
      return;
    }
    rank.execution = std::move(made).value();
    rank.buffers = std::make_unique<Buffers>(operation.request, ranks, r);
    Execution::Operation run;
    run.sequence = at[static_cast<size_t>(r)];
    run.input = rank.buffers->input;
    run.output = rank.buffers->output;
    run.scaling = kernels::scaling_of(operation.request.op, operation.request.datatype, ranks,
                                      factor_of(operation.request));
    ASSERT_TRUE(rank.execution->begin(run).is_ok());
  };
  for (int r = 0; r < ranks; r++) begin(r);
  int failures = 0;
  while (true) {
    bool moved = false, open = false;
    for (int r = 0; r < ranks; r++) {
      Rank& rank = all[static_cast<size_t>(r)];
      if (rank.done || !rank.status.is_ok()) continue;
      const Outcome outcome = rank.execution->step();
      moved |= outcome.progressed || outcome.done;
      if (!outcome.status.is_ok()) {
        rank.status = outcome.status;
        ASSERT_FALSE(options.losses.empty()) << story << ": " << rank.status.text();
        ASSERT_NE(rank.status.code(), Code::mismatch) << story << ": " << rank.status.text();
        ASSERT_NE(rank.status.code(), Code::internal) << story << ": " << rank.status.text();
        moved = true;
        continue;
      }
      if (outcome.done) {
        ASSERT_EQ(rank.buffers->first_wrong(), -1) << story << ": rank " << r;
        if (++at[static_cast<size_t>(r)] == operations.size()) {
          rank.done = true;
        } else {
          begin(r);
        }
      }
      open |= !rank.done;
    }
    if (!open) break;
    if (moved || world.advance()) continue;
    for (const Rank& rank : all) failures += rank.status.is_ok() ? 0 : 1;
    // With a failure somewhere the control plane would tell the others; without one it is a hang.
    if (failures > 0) break;
    for (int r = 0; r < ranks; r++) {
      ASSERT_TRUE(all[static_cast<size_t>(r)].done)
          << story << ": hang; rank " << r
          << " waits: " << all[static_cast<size_t>(r)].execution->waiting_for();
    }
    break;
  }
  failures = 0;
  for (const Rank& rank : all) failures += rank.status.is_ok() ? 0 : 1;
  (failures == 0 ? tally->exact : tally->failed)++;
}

// The sanitizers get other worlds than the release build.
constexpr uint64_t kFirstSeed = by_build(1, 1001, 0);
constexpr uint64_t kWorlds = by_build(1000, 150, 0);

TEST(Simulated, WorldsEndExactlyOrWithACleanError) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  Tally tally;
  for (uint64_t seed = kFirstSeed; seed < kFirstSeed + kWorlds; seed++) {
    live_through(seed, &tally);
    if (HasFatalFailure()) return;
  }
  // Both kinds must really have happened, or the test shows nothing.
  EXPECT_GT(tally.exact, static_cast<int>(kWorlds * 6 / 10));
  EXPECT_GT(tally.failed, static_cast<int>(kWorlds / 20));
}

}  // namespace
}  // namespace railccl::test
