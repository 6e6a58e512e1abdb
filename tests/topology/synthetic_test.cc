// Shows that synthetic descriptions mean what their table says: sizes, speeds, unequal hosts, each
// named machine with every rank on the rail of its number, and errors that name the bad key.
#include "topology/synthetic.h"

#include <gtest/gtest.h>

#include <map>

#include "topology/merge.h"

namespace railccl::topology {
namespace {

Topology make(std::string_view description) {
  Result<Topology> made = synthetic(description);
  EXPECT_TRUE(made.is_ok()) << made.status().text();
  return made.is_ok() ? std::move(made).value() : Topology();
}

TEST(Synthetic, TheDescriptionOfTheDesign) {
  const Topology t = make("hosts=4,gpus=8,rails=8,nic=50GB/s,nvlink=370GB/s,spine=1:4");
  EXPECT_EQ(t.size(), 32);
  EXPECT_EQ(t.hosts().size(), 4u);
  EXPECT_EQ(t.rails().size(), 8u);
  EXPECT_EQ(t.oversubscription(), 4);
  for (int r = 0; r < t.size(); r++) {
    EXPECT_EQ(t.rank(r).host, r / 8);
    EXPECT_EQ(t.rank(r).gpu, r % 8);
    EXPECT_EQ(t.rank(r).rail, r % 8);
  }
  EXPECT_EQ(t.path(0, 1).bytes_per_s, 370e9);
  EXPECT_EQ(t.path(0, 8).bytes_per_s, 50e9);
  EXPECT_FALSE(t.path(0, 8).crosses_spine);
  EXPECT_EQ(t.path(0, 9).bytes_per_s, 12.5e9);
  EXPECT_TRUE(t.path(0, 9).crosses_spine);
  EXPECT_EQ(t.rails()[3].reason, "leaf 3 joins nic3 of 4 hosts");
}

struct Named {
  const char* description;
  int ranks, hosts, rails;
  double inner, nic;
};
class SyntheticNamed : public testing::TestWithParam<Named> {};

TEST_P(SyntheticNamed, HasItsShape) {
  const Named& named = GetParam();
  const Topology t = make(named.description);
  EXPECT_EQ(t.size(), named.ranks);
  EXPECT_EQ(static_cast<int>(t.hosts().size()), named.hosts);
  ASSERT_EQ(static_cast<int>(t.rails().size()), named.rails);
  EXPECT_EQ(t.path(0, 1).bytes_per_s, named.inner);
  const int per_host = named.ranks / named.hosts;
  for (int r = 0; r < t.size(); r++) {
    ASSERT_EQ(t.rank(r).rail, t.rank(r).local % named.rails) << r;
    // Same-numbered ranks of all hosts meet on one rail.
    const int peer = (r + per_host) % t.size();
    ASSERT_FALSE(t.path(r, peer).crosses_spine) << r;
    ASSERT_EQ(t.path(r, peer).bytes_per_s, named.nic) << r;
  }
  EXPECT_EQ(make(named.description), t);  // the same each time
}

INSTANTIATE_TEST_SUITE_P(All, SyntheticNamed,
                         testing::Values(Named{"dgx-a100:16", 128, 16, 8, 235e9, 25e9},
                                         Named{"dgx-h100:16", 128, 16, 8, 370e9, 50e9},
                                         Named{"hgx-h200:128", 1024, 128, 8, 370e9, 50e9},
                                         Named{"nvl72:8", 576, 8, 4, 800e9, 50e9},
                                         Named{"cpu:4x8", 32, 4, 1, 10e9, 12.5e9}));

TEST(Synthetic, EveryMachineOfTheTableIsTested) {
  // A new machine needs a row above.
  EXPECT_EQ(synthetic_machines().size(), 5u);
}

TEST(Synthetic, NamedMachinesMayBeChanged) {
  const Topology t = make("dgx-h100:2,spine=1:2,nic=400Gb/s,alpha=3us");
  EXPECT_EQ(t.oversubscription(), 2);
  EXPECT_EQ(t.hosts()[0].nics[0].bytes_per_s, 50e9);
  EXPECT_EQ(t.network_alpha_s(), 3e-6);
}

TEST(Synthetic, UnequalHosts) {
  const Topology t = make("hosts=4,gpus=8:8:4:8,nics=4:4:3:4,numas=1:2:2:4");
  EXPECT_EQ(t.size(), 28);
  EXPECT_EQ(t.ranks_per_host_max(), 8);
  EXPECT_EQ(t.ranks_per_host_min(), 4);
  EXPECT_EQ(t.rails().size(), 4u);
  EXPECT_EQ(t.hosts()[2].nics.size(), 3u);
  EXPECT_EQ(t.hosts()[3].numas.size(), 4u);
  EXPECT_EQ(t.rails()[3].reason, "leaf 3 joins nic3 of 3 hosts");
}

TEST(Synthetic, NodesAndCachesOfRanksOnHostMemory) {
  const auto shape = [](const Topology& t) {
    std::map<int, int> ranks;
    for (const Rank& rank : t.ranks()) ranks[rank.domain]++;
    std::vector<int> of_domain;
    for (const auto& [domain, count] : ranks) of_domain.push_back(count);
    return of_domain;
  };
  using Ranks = std::vector<int>;
  EXPECT_EQ(shape(make("ranks=16,numas=1")), (Ranks{16}));
  EXPECT_EQ(shape(make("ranks=16,numas=2")), (Ranks{8, 8}));
  EXPECT_EQ(shape(make("ranks=7,numas=2")), (Ranks{4, 3}));
  EXPECT_EQ(shape(make("ranks=16,numas=2,caches=4")), (Ranks{2, 2, 2, 2, 2, 2, 2, 2}));
  EXPECT_EQ(shape(make("ranks=10,numas=1,caches=4,cores=16")), (Ranks{3, 2, 3, 2}));
  EXPECT_EQ(shape(make("gpus=8")), (Ranks{8}));
  const Topology t = make("hosts=2,ranks=4:2,numas=1:2,caches=2:1,cores=16");
  EXPECT_EQ(t.rank(3).cache, 8);
  EXPECT_EQ(t.rank(4).cache, -1);
  EXPECT_EQ(t.hosts()[0].cores_per_cache, 8);
  EXPECT_EQ(t.domains_of_host(0), 2);
}

TEST(Synthetic, OneHostHasNoRails) { EXPECT_TRUE(make("dgx-h100:1").rails().empty()); }

TEST(Synthetic, TenThousandHosts) {
  const Topology t = make("hosts=10000,gpus=8,rails=8");
  EXPECT_EQ(t.size(), 80000);
  EXPECT_EQ(t.rank(79999).rail, 7);
}

struct Bad {
  const char* description;
  const char* names;  // what the error must say
};
TEST(Synthetic, ErrorsNameTheKey) {
  const Bad bad[] = {
      {"", "no machine \"\""},
      {"hosts", "no machine \"hosts\""},
      {"hosts=0", "hosts: expected an integer from 1"},
      {"hosts=-3", "hosts: expected"},
      {"hosts=4x", "hosts: expected"},
      {"hosts=99999999999999999999", "hosts: expected"},
      {"hosts=4,gpu=8", "no key \"gpu\""},
      {"hosts=4,gpus=8:8", "gpus: has 2 values for 4 hosts"},
      {"hosts=4,caches=2:2", "caches: has 2 values for 4 hosts"},
      {"ranks=4,caches=0", "caches: expected an integer from 1"},
      {"hosts=4,gpus=8:x:8:8", "gpus: expected an integer"},
      {"hosts=4,gpus=", "gpus: expected an integer"},
      {"hosts=2,gpus=0", "no rank at all"},
      {"hosts=4,nic=50", "nic: expected a quantity such as 50GB/s"},
      {"hosts=4,nic=-5GB/s", "nic: expected"},
      {"hosts=4,nic=nanGB/s", "nic: expected"},
      {"hosts=4,nic=infGB/s", "nic: expected"},
      {"hosts=4,nic=1e400GB/s", "nic: expected"},
      {"hosts=4,nic=0.001B/s", "nic: \"0.001B/s\" is less than one byte"},
      {"hosts=4,alpha=15", "alpha: expected a quantity such as 15us"},
      {"hosts=4,spine=4:1", "spine: expected uplinks:downlinks"},
      {"hosts=4,spine=1:0", "spine: expected an integer"},
      {"hosts=4,,gpus=8", "expected key=value"},
      {"hosts=65536,gpus=1024", "ranks are more than"},
      {"hosts=65536,ranks=1,nics=1024", "too many"},
      {"dgx-h100", "dgx-h100: write dgx-h100:HOSTS"},
      {"dgx-h100:0", "dgx-h100: write dgx-h100:HOSTS"},
      {"dgx-z:4", "no machine \"dgx-z\""},
      {"cpu:4", "cpu: write cpu:HOSTSxRANKS"},
      {"cpu:4x", "cpu: write cpu:HOSTSxRANKS"},
      {"hosts=2,dgx-h100:4", "expected key=value"},
  };
  for (const Bad& row : bad) {
    const Result<Topology> made = synthetic(row.description);
    ASSERT_FALSE(made.is_ok()) << row.description;
    EXPECT_EQ(made.status().code(), Code::invalid_argument);
    EXPECT_NE(made.status().text().find(row.names), std::string::npos)
        << row.description << " -> " << made.status().text();
  }
}

TEST(Synthetic, Units) {
  const std::map<std::string, double> speeds = {
      {"50GB/s", 50e9},    {"400Gb/s", 50e9}, {"1TB/s", 1e12},   {"12.5MB/s", 12.5e6},
      {"100Mb/s", 12.5e6}, {"7B/s", 7},       {"1.6Tb/s", 200e9}};
  for (const auto& [text, value] : speeds) EXPECT_DOUBLE_EQ(*parse_speed(text), value) << text;
  EXPECT_DOUBLE_EQ(*parse_duration("500ns"), 500e-9);
  EXPECT_DOUBLE_EQ(*parse_duration("1.5ms"), 1.5e-3);
  EXPECT_DOUBLE_EQ(*parse_duration("2s"), 2);
  EXPECT_FALSE(parse_speed("50 GB/s").is_ok());
  EXPECT_FALSE(parse_duration("us").is_ok());
}

}  // namespace
}  // namespace railccl::topology
