// Shows that the compositions over domains inside a host are right for any number of ranks in any
// number of domains, equal or not, that they move no byte across domains that needs not cross, and
// that their prices say so: every plan is proven by the checker, its bytes are counted.
#include "algorithms/domains.h"

#include "base/random.h"
#include "harness.h"
#include "topology/synthetic.h"

namespace railccl::algorithms {
namespace {

using topology::Topology;

std::vector<const Algorithm*> domain_algorithms() {
  std::vector<const Algorithm*> rows;
  for (const Algorithm* algorithm : all())
    if (std::string_view(algorithm->name).starts_with("domains")) rows.push_back(algorithm);
  return rows;
}

/// One host, `domain[r]` is the NUMA node of rank r.
Topology host_of(const std::vector<int>& domains) {
  topology::Host host;
  std::vector<topology::Rank> ranks(domains.size());
  for (size_t r = 0; r < ranks.size(); r++) {
    host.numas.resize(std::max(host.numas.size(), static_cast<size_t>(domains[r]) + 1));
    ranks[r].numa = domains[r];
    ranks[r].process = r + 1;
  }
  return Topology({host}, {}, ranks);
}

/// `sizes[d]` ranks in domain d, one after the other.
Topology blocks_of(const std::vector<int>& sizes) {
  std::vector<int> domains;
  for (size_t d = 0; d < sizes.size(); d++)
    domains.insert(domains.end(), static_cast<size_t>(sizes[d]), static_cast<int>(d));
  return host_of(domains);
}

Topology made(const std::string& description) {
  auto topology = topology::synthetic(description);
  EXPECT_TRUE(topology.is_ok()) << topology.status().text();
  return std::move(topology).value();
}

/// Bytes of messages and peer loads that cross domains: at the busiest rank, either way, and in
/// all.
struct Crossed {
  uint64_t busiest = 0, all = 0;
};
Crossed crossed(const plan::CheckReport& report, const Topology& topology) {
  std::vector<uint64_t> out(static_cast<size_t>(topology.size())), in(out.size());
  Crossed crossed;
  for (const auto& [edge, bytes] : report.bytes) {
    if (topology.same_domain(edge.first, edge.second)) continue;
    crossed.all += bytes;
    crossed.busiest = std::max(crossed.busiest, out[static_cast<size_t>(edge.first)] += bytes);
    crossed.busiest = std::max(crossed.busiest, in[static_cast<size_t>(edge.second)] += bytes);
  }
  return crossed;
}

plan::CheckReport prove(const Algorithm& algorithm, const std::string& name,
                        const Topology& topology, const plan::Request& request,
                        const plan::Tuning& tuning) {
  return proven(algorithm, {name, {}, {}}, topology, request, tuning);
}

TEST(Domains, AreRightForAnyNumberOfRanks) {
  for (const int domains : {2, 4, 8}) {
    for (int p = domains + 1; p <= 64; p += test::by_build(1, 7, 7)) {
      const std::string name = fmt::format("ranks={},numas={},nics=3", p, domains);
      const Topology topology = made(name);
      ASSERT_TRUE(has_domains(topology)) << name;
      const auto n = static_cast<uint64_t>(p);
      std::vector<uint64_t> counts = {0, 1, n - 1, 2 * n + 3};
      std::vector<plan::Tuning> tunings = {{1, 1 << 16}, {1, 3}, {6, 2}};
      // Many chunks of many ranks are slow to prove.
      if (p > 12) counts = {p % 2 == 0 ? n - 1 : 2 * n + 5};
      if (p > 12) tunings = {p % 2 == 0 || p > 33 ? plan::Tuning{1, 1 << 16} : plan::Tuning{2, 5}};
      for (const Algorithm* algorithm : domain_algorithms()) {
        for (const uint64_t count : counts) {
          for (const plan::Tuning& tuning : tunings) {
            const plan::Request request = request_of(algorithm->collective, count, count % 2 == 1,
                                                     static_cast<int>(count) % p);
            prove(*algorithm, name, topology, request, tuning);
            ASSERT_FALSE(HasFailure());
          }
        }
      }
    }
  }
}

TEST(Domains, AreRightWhereDomainsAreUnequal) {
  const std::vector<std::vector<int>> shapes = {{1, 2},    {1, 6},    {5, 3},          {1, 1, 2},
                                                {3, 1, 4}, {2, 0, 7}, {1, 2, 3, 4, 5}, {9, 8, 1}};
  for (const std::vector<int>& sizes : shapes) {
    const Topology topology = blocks_of(sizes);
    for (const Algorithm* algorithm : domain_algorithms()) {
      for (int root = 0; root < (rooted(algorithm->collective) ? topology.size() : 1); root++) {
        for (const uint64_t count : {1, 41, 200}) {
          const plan::Request request = request_of(
              algorithm->collective, count, (count + static_cast<uint64_t>(root)) % 2 == 1, root);
          prove(*algorithm, "unequal", topology, request, {count == 200 ? 4 : 1, 7});
          ASSERT_FALSE(HasFailure());
        }
      }
    }
  }
}

// Ranks dealt out anyhow, any counts and tunings.
TEST(Domains, AreRightOnRandomHosts) {
  Random random(20251125);
  for (int round = 0; round < 120; round++) {
    std::vector<int> domains(3 + random.below(12));
    for (int& domain : domains) domain = static_cast<int>(random.below(4));
    const Topology topology = host_of(domains);
    if (!has_domains(topology)) continue;
    const plan::Tuning tuning{1 + static_cast<int>(random.below(6)), 1 + random.below(60)};
    for (const Algorithm* algorithm : domain_algorithms()) {
      const plan::Request request =
          request_of(algorithm->collective, random.below(200), random.chance(0.5),
                     static_cast<int>(random.below(domains.size())));
      prove(*algorithm, fmt::format("random {}", round), topology, request, tuning);
      ASSERT_FALSE(HasFailure());
    }
  }
}

TEST(Domains, CachesInsideANodeServeToo) {
  const Topology topology = made("ranks=16,numas=2,caches=2,cores=64");
  EXPECT_EQ(topology.domains_of_host(0), 4);
  for (const Algorithm* algorithm : domain_algorithms())
    prove(*algorithm, "caches", topology, request_of(algorithm->collective, 100), {1, 8});
}

TEST(Domains, SupportNeedsSeveralDomainsAndSeveralRanksInOne) {
  EXPECT_EQ(domain_algorithms().size(), 6u);
  for (const Algorithm* algorithm : domain_algorithms()) {
    const plan::Request request = request_of(algorithm->collective, 8);
    EXPECT_TRUE(algorithm->supports(request, blocks_of({2, 1})));
    EXPECT_FALSE(algorithm->supports(request, blocks_of({4})));
    EXPECT_FALSE(algorithm->supports(request, blocks_of({1, 1, 1})));
    EXPECT_FALSE(algorithm->supports(request, made("gpus=8,numas=2")));
    EXPECT_FALSE(algorithm->supports(request, made("hosts=2,ranks=8,numas=2")));
    EXPECT_FALSE(algorithm->supports(request_of(Collective::gather, 8), blocks_of({2, 2})));
  }
}

// The bounds of the files, to the byte, for sizes that divide evenly, and that prices name them.
TEST(Domains, BytesAcrossMeetTheBoundsOnEqualDomains) {
  for (const auto& shape : {std::pair<uint64_t, uint64_t>{2, 4}, {2, 1}, {4, 4}, {3, 2}, {8, 2}}) {
    const uint64_t D = shape.first, G = shape.second;
    std::vector<int> sizes(D, static_cast<int>(G));
    if (G == 1) sizes[0] = 2;  // all in one domain but one rank
    const Topology topology = blocks_of(sizes);
    const auto p = static_cast<uint64_t>(topology.size());
    const uint64_t n = D * D * G * G * p * 1200, bytes = n * 4;  // float elements
    const auto count = [&](Collective collective, const char* name, uint64_t elements) {
      const Algorithm* algorithm = find(collective, name);
      const plan::Request request = request_of(collective, elements);
      const auto report = prove(*algorithm, "equal", topology, request, {1, n});
      const Crossed counted = crossed(report, topology);
      const plan::Cost cost = algorithm->cost(request, topology, {1, n});
      EXPECT_NEAR(cost.cross_bytes, static_cast<double>(counted.busiest), 1.0)
          << name_of(collective) << " " << name << " " << D << "x" << G;
      EXPECT_GE(cost.inner_bytes + cost.peer_bytes + 1,
                static_cast<double>(port_bytes(report, topology)))
          << name_of(collective) << " " << name << " " << D << "x" << G;
      return counted;
    };
    for (const char* name : {"domains", "domains_shared"}) {
      const Crossed all_reduce = count(Collective::all_reduce, name, n);
      EXPECT_EQ(all_reduce.all, 2 * (D - 1) * bytes) << name << " " << D << "x" << G;
      if (G > 1) {
        EXPECT_EQ(all_reduce.busiest, 2 * (D - 1) * bytes / D / G);
      }
    }
    if (G == 1) continue;
    const uint64_t block = bytes / p;
    for (const Collective collective : {Collective::reduce_scatter, Collective::all_gather}) {
      const Crossed columns = count(collective, "domains", n / p);
      EXPECT_EQ(columns.all, p * (D - 1) * block);
      EXPECT_EQ(columns.busiest, (D - 1) * block);
    }
    for (const Collective collective : {Collective::broadcast, Collective::reduce}) {
      const Crossed rooted = count(collective, "domains", n);
      EXPECT_EQ(rooted.all, (D - 1) * bytes);
    }
  }
}

TEST(Domains, PricesNameTheBytesOfUnequalDomainsToo) {
  for (const std::vector<int>& sizes : {std::vector<int>{3, 2}, {3, 5}, {1, 4}, {2, 3, 4}}) {
    const Topology topology = blocks_of(sizes);
    const plan::Request request = request_of(Collective::all_reduce, 7200);
    const Algorithm* algorithm = find(Collective::all_reduce, "domains");
    const auto report = prove(*algorithm, "unequal", topology, request, {1, 7200});
    const plan::Cost cost = algorithm->cost(request, topology, {1, 7200});
    EXPECT_NEAR(cost.inner_bytes, static_cast<double>(port_bytes(report, topology)), 1) << sizes[0];
    EXPECT_NEAR(cost.cross_bytes, static_cast<double>(crossed(report, topology).busiest), 1);
  }
}

// A part of a cluster on one host keeps its rails, of which two domains may have one in common.
TEST(Domains, RailsMeanNothingInsideAHost) {
  const Topology cluster = made("hosts=2,ranks=8,numas=2,nics=3,rails=3");
  const Topology topology = cluster.subset({0, 1, 2, 3, 4, 5, 6, 7});
  const auto report = prove(*find(Collective::all_reduce, "domains"), "rails", topology,
                            request_of(Collective::all_reduce, 6400), {1, 6400});
  EXPECT_EQ(crossed(report, topology).busiest, 2 * 6400 * 4 / 2 / 4u);
}

// What the flat algorithms move across domains is what their prices say.
TEST(Domains, FlatPricesNameTheBytesThatCross) {
  const Topology topology = blocks_of({3, 3});
  for (const auto& [collective, name] : {std::pair{Collective::all_reduce, "ring"},
                                         {Collective::all_reduce, "two_shot"},
                                         {Collective::all_reduce, "direct"},
                                         {Collective::all_reduce, "halving_doubling"},
                                         {Collective::reduce_scatter, "ring"},
                                         {Collective::reduce_scatter, "direct"},
                                         {Collective::all_gather, "bruck"},
                                         {Collective::all_gather, "direct"},
                                         {Collective::broadcast, "direct"},
                                         {Collective::gather, "direct"},
                                         {Collective::all_to_all, "pairwise"},
                                         {Collective::all_to_all, "bruck"}}) {
    const Algorithm* algorithm = find(collective, name);
    const plan::Request request = request_of(collective, 720);
    const auto report = prove(*algorithm, "flat", topology, request, {});
    EXPECT_DOUBLE_EQ(algorithm->cost(request, topology, {}).cross_bytes,
                     static_cast<double>(crossed(report, topology).busiest))
        << name_of(collective) << " " << name;
  }
}

TEST(Domains, ProgramLengthDoesNotGrowWithTheData) {
  const Topology topology = blocks_of({4, 3, 4});
  for (const Algorithm* algorithm : domain_algorithms()) {
    EXPECT_EQ(program_length(*algorithm, topology, 40'001, {2, 1000}),
              program_length(*algorithm, topology, 400'000'001, {2, 1000}))
        << name_of(algorithm->collective);
  }
}

}  // namespace
}  // namespace railccl::algorithms
