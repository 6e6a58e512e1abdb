// Shows that the executor performs every algorithm's programs exactly, on a real medium: one thread
// drives all ranks over shared memory or sockets in a random order of steps, and every rank's
// output must equal the model bit by bit, with nothing written behind it.
#include "runtime/execute.h"

#include <gtest/gtest.h>

#include "algorithms/algorithm.h"
#include "base/clock.h"
#include "local_wires.h"
#include "shapes.h"
#include "values.h"

namespace railccl::test {
namespace {

using algorithms::Algorithm;
using runtime::Execution;
using runtime::Outcome;
using runtime::Wires;
using topology::Topology;

/// Runs one request on all ranks by `algorithm`, stepping them in random order.
void run_everywhere(const Algorithm& algorithm, const Request& request, const Topology& topology,
                    const plan::Tuning& tuning, std::vector<std::unique_ptr<Wires>>& wires,
                    uint64_t sequence, Random& random) {
  const int ranks = topology.size();
  std::vector<std::unique_ptr<Execution>> executions;
  std::vector<std::unique_ptr<Buffers>> buffers;
  std::vector<Execution::PeerBuffers> peers(static_cast<size_t>(ranks));
  const std::string what =
      fmt::format("{} by {} on {} ranks, {} channels, chunks of {}", plan::text_of(request),
                  algorithm.name, ranks, tuning.channels, tuning.chunk_elements);
  for (int r = 0; r < ranks; r++) {
    auto program = algorithm.build(request, topology, tuning, r);
    ASSERT_TRUE(program.is_ok()) << what << ": " << program.status().text();
    auto execution = Execution::make(std::move(program).value(), *wires[static_cast<size_t>(r)]);
    ASSERT_TRUE(execution.is_ok()) << what << ": " << execution.status().text();
    executions.push_back(std::move(execution).value());
    buffers.push_back(std::make_unique<Buffers>(request, ranks, r));
    Execution::Operation operation;
    operation.sequence = sequence;
    operation.input = buffers.back()->input;
    operation.output = buffers.back()->output;
    operation.scaling =
        kernels::scaling_of(request.op, request.datatype, ranks, factor_of(request));
    peers[static_cast<size_t>(r)] = {buffers.back()->input, buffers.back()->output,
                                     operation.scaling.pre};
    operation.peers = peers.data();
    ASSERT_TRUE(executions.back()->begin(operation).is_ok());
  }
  std::vector<bool> done(static_cast<size_t>(ranks), false);
  int left = ranks, idle = 0;
  while (left > 0) {
    const size_t r = random.below(static_cast<uint64_t>(ranks));
    if (done[r]) continue;
    const Outcome outcome = executions[r]->step();
    ASSERT_TRUE(outcome.status.is_ok()) << what << ": " << outcome.status.text();
    if (outcome.done) {
      done[r] = true;
      left--;
    }
    idle = outcome.progressed || outcome.done ? 0 : idle + 1;
    if (idle % 64 == 63) {
      for (auto& each : wires) {
        ASSERT_TRUE(each->progress(true).is_ok());
      }
    }
    if (idle > 2000) usleep(50);
    ASSERT_LT(idle, 100000) << what << ": rank " << r << " waits: " << executions[r]->waiting_for();
  }
  for (int r = 0; r < ranks; r++) {
    const int64_t wrong = buffers[static_cast<size_t>(r)]->first_wrong();
    ASSERT_EQ(wrong, -1) << what << ": rank " << r;
    auto unread = wires[static_cast<size_t>(r)]->unread();
    ASSERT_TRUE(unread.is_ok() && *unread == nullptr) << what << ": leftovers at rank " << r;
  }
}

class ExecuteOver : public ::testing::TestWithParam<const char*> {};

TEST_P(ExecuteOver, EveryAlgorithmGivesExactResults) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  const std::string medium = GetParam();
  const bool shm = medium == "shm";
  const int rounds = shm ? by_build(12, 4, 0) : by_build(6, 3, 0);
  Random random(20240501);
  const std::vector<std::vector<int>> shapes =
      shm ? std::vector<std::vector<int>>{{1}, {2}, {3}, {5}, {8}, {9}, {2, 2}, {3, 1, 2}}
          : std::vector<std::vector<int>>{{2}, {4}, {3, 1, 2}};
  for (const std::vector<int>& shape : shapes) {
    const Topology topology = hosts_with(shape);
    auto wires = local_wires(topology.size(), medium);
    uint64_t sequence = 0;
    for (const Algorithm* algorithm : algorithms::all()) {
      // On sockets no memory is shared: what needs it is for shm alone.
      if (!shm && std::string(algorithm->name).find("shared") != std::string::npos) continue;
      for (int round = 0; round < rounds; round++) {
        const Request request =
            random_request(random, algorithm->collective, topology.size(), 20000);
        if (!algorithm->supports(request, topology)) continue;
        const plan::Tuning tuning = {1 + static_cast<int>(random.below(3)),
                                     1 + random.below(2) * 500 + random.below(3000)};
        // Chunks of a few elements would take thousands of iterations: not for large counts.
        run_everywhere(*algorithm, request, topology,
                       {tuning.channels, std::max(tuning.chunk_elements, request.count / 200 + 1)},
                       wires, sequence++, random);
        if (HasFatalFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Media, ExecuteOver, ::testing::Values("shm", "tcp"),
                         [](const auto& row) { return std::string(row.param); });

const Algorithm* find(Collective collective, std::string_view name) {
  for (const Algorithm* row : algorithms::all())
    if (row->collective == collective && row->name == name) return row;
  return nullptr;
}

TEST(Execute, AnotherCallOfThePeerIsNamedBeforeAnyByteIsCombined) {
  const Topology topology = hosts_with({2});
  auto wires = local_wires(2, "shm");
  const Algorithm* ring = find(Collective::all_reduce, "ring");
  ASSERT_NE(ring, nullptr);
  Request mine;
  mine.op = Reduction::sum;
  mine.count = 100;
  Request theirs = mine;
  theirs.datatype = Datatype::int32;
  Buffers my_buffers(mine, 2, 0), their_buffers(theirs, 2, 1);
  auto one = Execution::make(ring->build(mine, topology, {1, 64}, 0).value(), *wires[0]);
  auto two = Execution::make(ring->build(theirs, topology, {1, 64}, 1).value(), *wires[1]);
  ASSERT_TRUE(one.is_ok() && two.is_ok());
  ASSERT_TRUE((*one)
                  ->begin({.sequence = 4,
                           .input = my_buffers.input,
                           .output = my_buffers.output,
                           .scaling = {}})
                  .is_ok());
  ASSERT_TRUE((*two)
                  ->begin({.sequence = 4,
                           .input = their_buffers.input,
                           .output = their_buffers.output,
                           .scaling = {}})
                  .is_ok());
  Outcome outcome;
  for (int i = 0; i < 1000 && outcome.status.is_ok(); i++) {
    (void)(*two)->step();
    outcome = (*one)->step();
  }
  ASSERT_EQ(outcome.status.code(), Code::mismatch) << outcome.status.text();
  ASSERT_TRUE((*one)->mismatch().has_value());
  EXPECT_EQ((*one)->mismatch()->peer, 1);
  EXPECT_EQ((*one)->mismatch()->mine, "all_reduce(count=100, float, sum) as operation 4");
  EXPECT_EQ((*one)->mismatch()->theirs, "all_reduce(count=100, int32, sum) as operation 4");
}

// Between a fruitless step and the look for other messages the peer may do its part and leave.
TEST(Execute, WhatAPeerWroteBeforeItLeftIsFound) {
  const Topology topology = hosts_with({2});
  auto wires = local_wires(2, "shm");
  const Algorithm* tree = find(Collective::broadcast, "tree");
  ASSERT_NE(tree, nullptr);
  Request request;
  request.collective = Collective::broadcast;
  request.root = 1;
  request.count = 8;
  std::vector<std::unique_ptr<Buffers>> buffers;
  std::vector<std::unique_ptr<Execution>> executions;
  for (int r = 0; r < 2; r++) {
    buffers.push_back(std::make_unique<Buffers>(request, 2, r));
    // On two channels, since strips look for themselves.
    auto execution = Execution::make(tree->build(request, topology, {2, 4}, r).value(),
                                     *wires[static_cast<size_t>(r)]);
    ASSERT_TRUE(execution.is_ok()) << execution.status().text();
    executions.push_back(std::move(execution).value());
    ASSERT_TRUE(executions.back()
                    ->begin({.sequence = 1,
                             .input = buffers.back()->input,
                             .output = buffers.back()->output,
                             .scaling = {}})
                    .is_ok());
  }
  ASSERT_FALSE(executions[0]->is_strip());
  ASSERT_FALSE(executions[0]->step().done);
  while (!executions[1]->step().done) {
  }
  executions.pop_back();
  wires.pop_back();
  const Deadline noticed = Deadline::after_ms(200);
  while (!noticed.passed()) ASSERT_TRUE(wires[0]->progress(true).is_ok());
  const Status aside = executions[0]->look_aside();
  EXPECT_TRUE(aside.is_ok()) << aside.text();
  Outcome outcome;
  for (int i = 0; i < 100 && outcome.status.is_ok() && !outcome.done; i++)
    outcome = executions[0]->step();
  EXPECT_TRUE(outcome.done) << outcome.status.text();
  EXPECT_EQ(buffers[0]->first_wrong(), -1);
}

}  // namespace
}  // namespace railccl::test
