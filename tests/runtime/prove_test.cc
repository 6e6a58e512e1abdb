// Shows that plans that are wrong are refused by name, and that the plan chosen for a small
// all-reduce between any number of hosts takes a logarithm of rounds.
#include "runtime/prove.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>

#include "ranks.h"
#include "shapes.h"

namespace railccl::test {
namespace {

using testing::HasSubstr;

runtime::Chosen chosen_for(const Request& request, const topology::Topology& topology) {
  auto chooser = runtime::Chooser::make(settings_with(), 0, 0, true);
  EXPECT_TRUE(chooser.is_ok());
  auto chosen = chooser->choose(request, topology);
  EXPECT_TRUE(chosen.is_ok()) << chosen.status().text();
  return *chosen;
}

TEST(Prove, ASmallAllReduceBetweenHostsTakesTheLogarithmOfRounds) {
  const Request request = sum_request(2);
  for (unsigned hosts = 2; hosts <= 33; hosts++) {
    const topology::Topology topology = hosts_with(std::vector<int>(hosts, 1));
    const auto proof = runtime::prove(chosen_for(request, topology), request, topology);
    ASSERT_TRUE(proof.is_ok()) << proof.status().text();
    // Other numbers than powers of two are folded to one, which can take one round more.
    const int log2 = std::bit_width(hosts - 1), most = std::has_single_bit(hosts) ? log2 : log2 + 1;
    EXPECT_LE(proof->rounds, static_cast<uint64_t>(most))
        << hosts << " hosts, by " << proof->algorithm;
    if (hosts == 16 || hosts == 32) {
      EXPECT_EQ(proof->rounds, static_cast<uint64_t>(log2)) << "by " << proof->algorithm;
    }
  }
}

TEST(Prove, AWrongPlanIsRefusedByName) {
  const topology::Topology topology = hosts_with({2, 1});
  const Request request = sum_request(100);
  runtime::Chosen chosen = chosen_for(request, topology);
  ASSERT_TRUE(runtime::prove(chosen, request, topology).is_ok());
  // It forgets the last element.
  algorithms::Algorithm wrong = *algorithms::find(Collective::all_reduce, "ring");
  wrong.name = "wrong";
  wrong.build = [](const Request& whole, const topology::Topology& on, const plan::Tuning& tuning,
                   int rank) {
    Request less = whole;
    less.count--;
    auto program = algorithms::find(Collective::all_reduce, "ring")->build(less, on, tuning, rank);
    if (program.is_ok()) program->request = whole;
    return program;
  };
  chosen.algorithm = &wrong;
  const auto proof = runtime::prove(chosen, request, topology);
  ASSERT_FALSE(proof.is_ok());
  EXPECT_THAT(proof.status().text(), HasSubstr("algorithm wrong made a wrong plan"));
  EXPECT_THAT(proof.status().text(), HasSubstr("element 99"));
}

}  // namespace
}  // namespace railccl::test
