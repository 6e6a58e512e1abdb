// Shows that the flat algorithms move no more than the bounds stated in their files: for counts
// that divide evenly, the bytes that the checker counts at the busiest rank, each way, and the
// longest chain of messages, equal the closed forms; and that cost() names the same bytes.
#include <bit>
#include <functional>

#include "harness.h"

namespace railccl::algorithms {
namespace {

struct Bound {
  Collective collective;
  const char* name;
  // For p >= 2 ranks and a request of n bytes (per block, where the collective has blocks).
  std::function<double(int p, double n)> sent;
  std::function<double(int p, double n)> received;
  std::function<int(int p)> rounds;  // with everything in one chunk
};

int log_ceil(int p) { return std::bit_width(static_cast<unsigned>(p - 1)); }
int log_floor(int p) { return std::bit_width(static_cast<unsigned>(p)) - 1; }
int ring_rounds(int p) { return p - 1; }
double folded(int p) {
  return log_floor(p) + (std::has_single_bit(static_cast<unsigned>(p)) ? 0 : 1);
}

double optimal_all_reduce(int p, double n) { return 2 * n * (p - 1) / p; }
double others(int p, double n) { return n * (p - 1); }
double once(int, double n) { return n; }

std::vector<Bound> bounds() {
  using enum Collective;
  const auto doubling = [](int p, double n) { return n * folded(p); };
  return {
      {all_reduce, "ring", optimal_all_reduce, optimal_all_reduce,
       [](int p) { return 2 * (p - 1); }},
      {all_reduce, "halving_doubling", optimal_all_reduce, optimal_all_reduce,
       [](int p) { return 2 * log_ceil(p); }},
      {all_reduce, "two_shot", optimal_all_reduce, optimal_all_reduce, [](int) { return 2; }},
      {all_reduce, "direct", others, others, [](int) { return 1; }},
      {all_reduce, "bruck", others, others, log_ceil},
      {all_reduce, "doubling", doubling, doubling,
       [](int p) { return log_floor(p) + (p == 1 << log_floor(p) ? 0 : 2); }},
      {reduce_scatter, "ring", others, others, ring_rounds},
      {reduce_scatter, "halving", others, others, log_ceil},
      {reduce_scatter, "direct", others, others, [](int) { return 1; }},
      {all_gather, "ring", others, others, ring_rounds},
      {all_gather, "bruck", others, others, log_ceil},
      {all_gather, "direct", others, others, [](int) { return 1; }},
      {broadcast, "ring", once, once, ring_rounds},
      {broadcast, "scatter_gather", optimal_all_reduce, once, nullptr},
      {reduce, "ring", once, once, ring_rounds},
      {reduce, "scatter_gather", once, optimal_all_reduce, [](int p) { return log_ceil(p) + 1; }},
  };
}

double busiest(const plan::CheckReport& report, int p,
               uint64_t (plan::CheckReport::*bytes)(int) const) {
  uint64_t most = 0;
  for (int rank = 0; rank < p; rank++) most = std::max(most, (report.*bytes)(rank));
  return static_cast<double>(most);
}

TEST(Bounds, FlatAlgorithmsMeetTheirClosedForms) {
  for (const Bound& bound : bounds()) {
    const Algorithm* algorithm = find(bound.collective, bound.name);
    ASSERT_NE(algorithm, nullptr) << bound.name;
    for (const int p : {2, 3, 4, 5, 7, 8, 12, 16, 33}) {
      const Shape shape = regular(1, p, 1);
      const topology::Topology topology = topology_of(shape);
      const plan::Request request =
          request_of(bound.collective, static_cast<uint64_t>(p) * 12, false, p / 2);
      const double n = static_cast<double>(plan::bytes_of(request));
      const plan::Tuning tuning;
      const auto report = proven(*algorithm, shape, topology, request, tuning);
      const std::string text = text_of(*algorithm, shape, request, tuning);
      const double sent = busiest(report, p, &plan::CheckReport::sent_by);
      const double received = busiest(report, p, &plan::CheckReport::received_by);
      EXPECT_DOUBLE_EQ(sent, bound.sent(p, n)) << text;
      EXPECT_DOUBLE_EQ(received, bound.received(p, n)) << text;
      if (bound.rounds) {
        // Folding runs beside the first exchanges of those who are not folded.
        const bool may_be_fewer = std::string_view(bound.name) == "doubling";
        const auto rounds = static_cast<uint64_t>(bound.rounds(p));
        EXPECT_LE(report.rounds, rounds) << text;
        EXPECT_GE(report.rounds, rounds - may_be_fewer) << text;
      }
    }
  }
}

// Pieces that do not divide evenly are longer by less than one element per block.
TEST(Bounds, UnevenBlocksCostOneElementEach) {
  for (const Bound& bound : bounds()) {
    const Algorithm* algorithm = find(bound.collective, bound.name);
    for (const int p : {3, 7, 8}) {
      const Shape shape = regular(1, p, 1);
      const plan::Request request = request_of(bound.collective, 101);
      const double n = static_cast<double>(plan::bytes_of(request)), rounding = 2.0 * p * 4;
      const auto report = proven(*algorithm, shape, topology_of(shape), request, {2, 5});
      EXPECT_LE(busiest(report, p, &plan::CheckReport::sent_by), bound.sent(p, n) + 2 * rounding)
          << bound.name;
      EXPECT_LE(busiest(report, p, &plan::CheckReport::received_by),
                bound.received(p, n) + 2 * rounding)
          << bound.name;
    }
  }
}

TEST(Bounds, NobodyMovesMoreThanOneVectorPerPhaseOfTheTwoTrees) {
  for (const auto& [collective, phases] : {std::pair{Collective::all_reduce, 2},
                                           {Collective::broadcast, 1},
                                           {Collective::reduce, 1}}) {
    const Algorithm* algorithm = find(collective, "tree");
    ASSERT_NE(algorithm, nullptr);
    for (int p = 2; p <= 40; p++) {
      const Shape shape = regular(1, p, 1);
      const plan::Request request = request_of(collective, 24, false, p - 1);
      const double n = static_cast<double>(plan::bytes_of(request));
      const auto report = proven(*algorithm, shape, topology_of(shape), request, {});
      EXPECT_LE(busiest(report, p, &plan::CheckReport::sent_by), phases * n) << p;
      EXPECT_LE(busiest(report, p, &plan::CheckReport::received_by), phases * n) << p;
      // The way to the bottom of both trees, and back for all-reduce.
      EXPECT_LE(report.rounds, static_cast<uint64_t>(phases * (log_ceil(p) + 1))) << p;
    }
  }
}

// Pipelines are left out: their cost contains the bytes of filling.
TEST(Bounds, CostNamesTheBytesThatAreCounted) {
  for (const Bound& bound : bounds()) {
    const std::string name = bound.name;
    if ((bound.collective == Collective::broadcast || bound.collective == Collective::reduce))
      continue;
    const Algorithm* algorithm = find(bound.collective, name);
    for (const Shape& shape :
         {regular(1, 6, 1), regular(3, 2, 2), regular(4, 2, 1), regular(2, 1, 1)}) {
      const topology::Topology topology = topology_of(shape);
      const int p = topology.size();
      // Doubling's pairs are not the circle that its price assumes.
      if (name == "doubling") continue;
      const plan::Request request = request_of(bound.collective, static_cast<uint64_t>(p) * 12);
      const auto report = proven(*algorithm, shape, topology, request, {});
      const plan::Cost cost = algorithm->cost(request, topology, {});
      EXPECT_DOUBLE_EQ(cost.inner_bytes, static_cast<double>(port_bytes(report, topology)))
          << name << " on " << shape.name;
      EXPECT_DOUBLE_EQ(cost.outer_bytes, static_cast<double>(nic_bytes(report, topology)))
          << name << " on " << shape.name;
    }
  }
}

}  // namespace
}  // namespace railccl::algorithms
