// Shows what NCCL_ALGO means, that choices are the same whatever in_place says and within the
// limits given, that prices follow the measured speeds, that the bound grows with the bytes, and
// that headers of messages survive their packing while nonsense is refused.
#include <gtest/gtest.h>

#include "rail_speeds.h"
#include "ranks.h"
#include "runtime/algorithm_filter.h"
#include "runtime/chooser.h"
#include "runtime/cost.h"
#include "runtime/frame.h"
#include "shapes.h"
#include "topology/synthetic.h"

namespace railccl::test {
namespace {

using runtime::AlgorithmFilter;
using runtime::Chooser;
using runtime::Header;

TEST(AlgorithmFilter, ListsIncludeExcludeAndNameCollectives) {
  const auto allows = [](const char* text, Collective collective, const char* name) {
    auto filter = AlgorithmFilter::parse(text);
    EXPECT_TRUE(filter.is_ok()) << text << ": " << filter.status().text();
    return filter.is_ok() && filter->allows(collective, name);
  };
  EXPECT_TRUE(allows("", Collective::all_reduce, "ring"));
  EXPECT_TRUE(allows("Tree,Ring,CollnetDirect", Collective::all_reduce, "ring"));
  EXPECT_FALSE(allows("Tree,CollnetDirect", Collective::all_reduce, "ring"));
  EXPECT_FALSE(allows("^ring", Collective::all_reduce, "ring"));
  EXPECT_TRUE(allows("^ring", Collective::all_reduce, "tree"));
  EXPECT_TRUE(allows("halving-doubling", Collective::all_reduce, "halving_doubling"));
  EXPECT_FALSE(allows("allreduce:tree;broadcast:^tree", Collective::all_reduce, "ring"));
  EXPECT_TRUE(allows("allreduce:tree;broadcast:^tree", Collective::broadcast, "ring"));
  EXPECT_FALSE(allows("allreduce:tree;broadcast:^tree", Collective::broadcast, "tree"));
  EXPECT_TRUE(allows("allreduce:tree", Collective::all_gather, "ring"));
  EXPECT_TRUE(allows("ring;all_reduce:tree", Collective::all_reduce, "tree"));
  EXPECT_FALSE(allows("all_reduce:tree;ring", Collective::all_reduce, "ring"));
}

TEST(AlgorithmFilter, UnknownNamesAreErrorsThatSayWhatIsKnown) {
  for (const char* text : {"rong", "ring,", "allreduce:rong", "allredoce:ring", "^"}) {
    const auto filter = AlgorithmFilter::parse(text);
    ASSERT_FALSE(filter.is_ok()) << text;
    EXPECT_EQ(filter.status().code(), Code::invalid_argument);
    EXPECT_NE(filter.status().text().find(text), std::string::npos) << filter.status().text();
  }
  EXPECT_NE(AlgorithmFilter::parse("rong").status().text().find("ring"), std::string::npos);
}

TEST(Chooser, ServesEverythingEverywhereAndIgnoresInPlace) {
  for (const auto& shape : std::vector<std::vector<int>>{{1}, {2}, {9}, {4, 4}, {3, 1, 2}}) {
    const topology::Topology topology = hosts_with(shape);
    for (const bool load_store : {true, false}) {
      auto chooser = Chooser::make(settings_with(), 0, 0, load_store);
      ASSERT_TRUE(chooser.is_ok());
      for (int c = 0; c < kCollectiveCount; c++)
        for (const uint64_t count : {0, 1, 1000, 1'000'000}) {
          Request request = sum_request(count, static_cast<Collective>(c));
          auto chosen = chooser->choose(request, topology);
          ASSERT_TRUE(chosen.is_ok()) << chosen.status().text();
          EXPECT_GE(chosen->tuning.channels, 1);
          EXPECT_LE(chosen->tuning.channels, 8);
          if (!load_store) {
            auto uses =
                runtime::uses_peer_memory(*chosen->algorithm, request, topology, chosen->tuning);
            ASSERT_TRUE(uses.is_ok());
            EXPECT_FALSE(*uses) << chosen->algorithm->name;
          }
          if (request.collective == Collective::all_to_all) continue;
          request.in_place = true;
          auto again = chooser->choose(request, topology);
          ASSERT_TRUE(again.is_ok());
          EXPECT_EQ(again->algorithm, chosen->algorithm);
          EXPECT_EQ(again->tuning, chosen->tuning);
        }
    }
  }
}

TEST(Chooser, KeepsLimitsAndForcedAlgorithms) {
  const topology::Topology topology = hosts_with({4});
  auto forced = Chooser::make(settings_with({"NCCL_ALGO=allreduce:tree", "RAILCCL_CHUNK_SIZE=8K",
                                             "NCCL_MIN_NCHANNELS=3", "NCCL_MAX_NCHANNELS=3"}),
                              0, 0, true);
  ASSERT_TRUE(forced.is_ok());
  auto chosen = forced->choose(sum_request(100000), topology);
  ASSERT_TRUE(chosen.is_ok());
  EXPECT_STREQ(chosen->algorithm->name, "tree");
  EXPECT_EQ(chosen->tuning.channels, 3);
  EXPECT_EQ(chosen->tuning.chunk_elements, 2048u);
  // An algorithm asked for by name that is not there: an error that says so.
  auto foreign = Chooser::make(settings_with({"NCCL_ALGO=allreduce:nvls"}), 0, 0, true);
  ASSERT_TRUE(foreign.is_ok());
  const auto none = foreign->choose(sum_request(10), topology);
  ASSERT_FALSE(none.is_ok());
  EXPECT_NE(none.status().text().find("NCCL_ALGO"), std::string::npos);
  EXPECT_FALSE(
      Chooser::make(settings_with({"NCCL_MIN_NCHANNELS=9", "NCCL_MAX_NCHANNELS=2"}), 0, 0, true)
          .is_ok());
}

TEST(Cost, TheBoundGrowsWithTheBytes) {
  for (const auto& shape : std::vector<std::vector<int>>{{2}, {8}, {4, 4}, {3, 1, 2}}) {
    const topology::Topology topology = hosts_with(shape);
    for (int c = 0; c < kCollectiveCount; c++) {
      double last = 0;
      for (uint64_t count = 1; count < 1 << 24; count *= 16) {
        const Request request = sum_request(count, static_cast<Collective>(c));
        const double bound = runtime::bound_seconds(request, topology);
        EXPECT_GE(bound, last);
        last = bound;
      }
      EXPECT_GT(last, 0);
    }
  }
}

/// One host of `ranks` ranks on `cores` cores that has been measured, ranks dealt evenly to NUMA
/// nodes.
topology::Topology measured_host(int ranks, int cores, const topology::Speeds& speeds,
                                 int numas = 1) {
  topology::Host host;
  host.cores = cores;
  host.cores_per_cache = cores;
  host.last_level_cache_bytes = 32 << 20;
  host.numas.resize(static_cast<size_t>(numas));
  host.set_speeds(speeds);
  std::vector<topology::Rank> places(static_cast<size_t>(ranks));
  for (size_t r = 0; r < places.size(); r++) {
    places[r].process = r + 1;
    places[r].numa = static_cast<int>(r) * numas / ranks;
  }
  return topology::Topology({host}, {}, places);
}

topology::Speeds ordinary_speeds() {
  topology::Speeds speeds;
  speeds.signal_s = 60e-9;
  speeds.yield_s = 1e-6;
  speeds.wake_s = 20e-6;
  speeds.copy_bytes_per_s = 50e9;
  speeds.reduce_bytes_per_s = 35e9;
  speeds.peer_small_bytes_per_s = 20e9;
  speeds.peer_large_bytes_per_s = 15e9;
  speeds.fetch_small_bytes_per_s = speeds.fetch_large_bytes_per_s = 8e9;
  speeds.message_bytes_per_s = 10e9;
  speeds.cross_bytes_per_s = 4e9;
  speeds.core_traffic_bytes_per_s = speeds.core_streaming_bytes_per_s = 20e9;
  speeds.host_traffic_bytes_per_s = speeds.host_streaming_bytes_per_s = 30e9;
  return speeds;
}

TEST(Cost, FollowsWhatWasMeasured) {
  const topology::Topology usual = measured_host(2, 2, ordinary_speeds());
  plan::Cost rounds, messages, loads, fetches, layouts, copies, crossings;
  rounds.inner_rounds = 10;
  messages.inner_bytes = loads.peer_bytes = layouts.shared_bytes = copies.local_bytes = 1e6;
  crossings.cross_bytes = fetches.fetched_bytes = 1e6;
  const auto price = [](const plan::Cost& cost, const topology::Topology& topology,
                        uint64_t count = 1000, int channels = 1) {
    return runtime::seconds_of(cost, sum_request(count), topology, {channels, 1 << 14});
  };
  const auto with = [](double topology::Speeds::*member, double factor) {
    topology::Speeds speeds = ordinary_speeds();
    speeds.*member *= factor;
    return measured_host(2, 2, speeds);
  };
  using topology::Speeds;
  EXPECT_NEAR(price(rounds, with(&Speeds::signal_s, 11)) - price(rounds, usual), 10 * 600e-9, 1e-9);
  // A message is copied out and taken in, a load is only taken in, a copy meets no peer.
  EXPECT_GT(price(messages, usual), price(loads, usual));
  EXPECT_GT(price(loads, usual), price(copies, usual));
  EXPECT_GT(price(layouts, usual), price(copies, usual));
  EXPECT_GT(price(layouts, with(&Speeds::message_bytes_per_s, 0.5)), price(layouts, usual));
  EXPECT_GT(price(messages, with(&Speeds::message_bytes_per_s, 0.5)), price(messages, usual));
  EXPECT_GT(price(loads, with(&Speeds::peer_large_bytes_per_s, 0.5)), price(loads, usual));
  EXPECT_EQ(price(copies, with(&Speeds::peer_large_bytes_per_s, 0.5)), price(copies, usual));
  EXPECT_GT(price(fetches, with(&Speeds::fetch_large_bytes_per_s, 0.5)), price(fetches, usual));
  EXPECT_EQ(price(loads, with(&Speeds::fetch_large_bytes_per_s, 0.5)), price(loads, usual));
  // What crosses domains takes the difference longer, or nothing where it is as fast.
  EXPECT_NEAR(price(crossings, usual), 1e6 * (1 / 4e9 - 1 / 10e9), 1e-9);
  EXPECT_NEAR(price(crossings, with(&Speeds::cross_bytes_per_s, 3)), 0, 1e-9);
  // With two ranks to a core everyone waits for turns.
  const topology::Topology crowded = measured_host(4, 2, ordinary_speeds());
  EXPECT_GT(price(rounds, crowded), price(rounds, usual) + 10 * 1e-6);
  EXPECT_NEAR(price(copies, crowded), 2 * price(copies, usual), 1e-7);
  // Memory comes in when the buffers leave the cache, and only then.
  const double inside = price(copies, usual, 1 << 20);
  EXPECT_EQ(inside, price(copies, usual, 1000));
  EXPECT_GT(price(copies, usual, 64 << 20), inside);
  EXPECT_GT(price(copies, with(&Speeds::host_traffic_bytes_per_s, 0.5), 64 << 20),
            price(copies, usual, 64 << 20));
  // Channels share the way of a flag, not the thread that looks after them.
  EXPECT_GT(price(rounds, usual, 1000, 4), price(rounds, usual, 1000, 1));
}

// A round in which everyone sends to everyone is one round and many messages, each with memory and
// time of its own.
TEST(Chooser, ManyRanksDoNotAllSendToAll) {
  auto chooser = Chooser::make(settings_with(), 0, 0, true);
  ASSERT_TRUE(chooser.is_ok());
  for (const Collective collective : {Collective::all_reduce, Collective::broadcast,
                                      Collective::all_gather, Collective::reduce_scatter}) {
    for (const topology::Topology& topology :
         {measured_host(256, 2, ordinary_speeds()), measured_host(256, 256, ordinary_speeds()),
          hosts_with(std::vector<int>(64, 1)), hosts_with(std::vector<int>(64, 4))}) {
      const auto chosen = chooser->choose(sum_request(2, collective), topology);
      ASSERT_TRUE(chosen.is_ok());
      EXPECT_STRNE(chosen->algorithm->name, "direct") << name_of(collective);
      EXPECT_STRNE(chosen->algorithm->name, "two_shot") << name_of(collective);
    }
    const auto few =
        chooser->choose(sum_request(2, collective), measured_host(4, 4, ordinary_speeds()));
    ASSERT_TRUE(few.is_ok());
    EXPECT_STREQ(few->algorithm->name, "direct") << name_of(collective);
  }
}

TEST(Chooser, TakesDomainsForLargeMessagesOnHostsThatHaveSeveral) {
  const auto chosen = [](const topology::Topology& topology, Collective collective, uint64_t count,
                         bool load_store) {
    auto chooser = Chooser::make(settings_with(), 0, 0, load_store);
    EXPECT_TRUE(chooser.is_ok());
    auto choice = chooser->choose(sum_request(count, collective), topology);
    EXPECT_TRUE(choice.is_ok());
    return std::string(choice->algorithm->name);
  };
  for (const auto& [ranks, numas] : {std::pair{8, 2}, {16, 2}, {16, 4}, {64, 8}, {9, 2}}) {
    const topology::Topology several = measured_host(ranks, ranks, ordinary_speeds(), numas);
    const std::string shape = fmt::format("{} ranks, {} nodes", ranks, numas);
    EXPECT_EQ(chosen(several, Collective::all_reduce, 4 << 20, true), "domains_shared") << shape;
    EXPECT_EQ(chosen(several, Collective::all_reduce, 4 << 20, false), "domains") << shape;
    for (const Collective collective : {Collective::reduce_scatter, Collective::all_gather})
      EXPECT_EQ(chosen(several, collective, 1 << 20, false), "domains")
          << name_of(collective) << " on " << shape;
    // Where nobody has measured, too, but for 5 and 4 ranks, of which some would own two shares.
    const topology::Topology unknown = measured_host(ranks, ranks, {}, numas);
    if (ranks % numas == 0) {
      EXPECT_EQ(chosen(unknown, Collective::all_reduce, 4 << 20, false), "domains") << shape;
    }
    for (int c = 0; c < kCollectiveCount; c++)
      EXPECT_FALSE(chosen(several, static_cast<Collective>(c), 1, true).starts_with("domains"))
          << name_of(static_cast<Collective>(c)) << " on " << shape;
  }
  for (int c = 0; c < kCollectiveCount; c++)
    for (uint64_t count = 1; count <= 1 << 24; count *= 16)
      for (const bool load_store : {true, false})
        EXPECT_FALSE(chosen(measured_host(16, 16, ordinary_speeds()), static_cast<Collective>(c),
                            count, load_store)
                         .starts_with("domains"));
}

TEST(Cost, MoreBytesNeverCostLess) {
  for (const int ranks : {2, 4, 8}) {
    const topology::Topology topology = measured_host(ranks, 2, ordinary_speeds());
    auto chooser = Chooser::make(settings_with(), 0, 0, true);
    ASSERT_TRUE(chooser.is_ok());
    for (int c = 0; c < kCollectiveCount; c++) {
      double last = 0;
      for (uint64_t count = 1; count <= 1 << 24; count *= 8) {
        auto chosen = chooser->choose(sum_request(count, static_cast<Collective>(c)), topology);
        ASSERT_TRUE(chosen.is_ok());
        EXPECT_GE(chosen->predicted_s, last)
            << name_of(static_cast<Collective>(c)) << " of " << count << " on " << ranks;
        last = chosen->predicted_s;
      }
    }
  }
}

// Between hosts tiny messages go by one leader of each, and the more so where hosts share cores,
// which then have all their messages to send; large ones over all rails.
TEST(Cost, TinyMessagesGoByLeaders) {
  auto synthetic = topology::synthetic("hosts=4,ranks=2,nics=2,cores=2,nic=1GB/s");
  ASSERT_TRUE(synthetic.is_ok()) << synthetic.status().text();
  std::vector<topology::Host> hosts = synthetic->hosts();
  for (topology::Host& host : hosts) host.machine = 1;
  const topology::Topology& apart = *synthetic;
  const topology::Topology together(hosts, apart.rails(), apart.ranks());
  auto chooser = Chooser::make(settings_with(), 0, 0, true);
  ASSERT_TRUE(chooser.is_ok());
  const auto choose = [&](uint64_t count, const topology::Topology& topology) {
    const auto chosen = chooser->choose(sum_request(count), topology);
    EXPECT_TRUE(chosen.is_ok());
    return *chosen;
  };
  for (const topology::Topology* topology : {&apart, &together}) {
    EXPECT_STREQ(choose(2, *topology).algorithm->name, "leader");
    EXPECT_STREQ(choose(1 << 20, *topology).algorithm->name, "rail");
  }
  EXPECT_STREQ(choose(256, together).algorithm->name, "leader");
  EXPECT_GT(choose(2, together).predicted_s, choose(2, apart).predicted_s);
}

// Rails at 1, 1, 1 and 1/4 together carry 3.25: shares in proportion take 4/3.25 of the time that
// four equal rails take, equal ones four times as long.
TEST(Cost, UnequalRailsArePricedByEachNicsOwnSpeed) {
  auto synthetic = topology::synthetic("hosts=4,ranks=4,nics=4,nic=25MB/s");
  ASSERT_TRUE(synthetic.is_ok()) << synthetic.status().text();
  const topology::Topology& equal = *synthetic;
  ASSERT_EQ(equal.rails().size(), 4u);
  auto chooser = Chooser::make(settings_with(), 0, 0, true);
  ASSERT_TRUE(chooser.is_ok());
  const Request request = sum_request(16 << 20);
  const auto seconds = [&](const topology::Topology& topology) {
    const auto chosen = chooser->choose(request, topology);
    EXPECT_TRUE(chosen.is_ok());
    EXPECT_STREQ(chosen->algorithm->name, "rail");
    const double bound = runtime::bound_seconds(request, topology);
    EXPECT_GT(chosen->predicted_s, bound);
    EXPECT_LT(chosen->predicted_s, 1.1 * bound);
    return chosen->predicted_s;
  };
  const double usual = seconds(equal);
  EXPECT_NEAR(seconds(with_rail_speeds(equal, {25e6, 25e6, 25e6, 6.25e6})) / usual, 4 / 3.25, 0.02);
  EXPECT_NEAR(seconds(with_rail_speeds(equal, {25e6, 0, 25e6, 25e6})) / usual, 4 / 3.0, 0.02);
  EXPECT_NEAR(seconds(with_rail_speeds(equal, {50e6, 50e6, 50e6, 50e6})) / usual, 0.5, 0.02);
  // An equal cut, priced: a quarter of what an all-reduce between four hosts moves per rail.
  plan::Cost cut;
  cut.outer_bytes = 2 * 3 / 4.0 * static_cast<double>(plan::bytes_of(request)) / 4;
  const double quarter = runtime::seconds_of(cut, request, equal, {});
  EXPECT_NEAR(
      runtime::seconds_of(cut, request, with_rail_speeds(equal, {25e6, 25e6, 25e6, 6.25e6}), {}) /
          quarter,
      4, 0.1);
}

// One NIC of sixteen is lost: the others' rail stays in use where the bound says that it pays, and
// the price follows the bound, as that of three rails does where the rail is lost on all hosts.
TEST(Chooser, AHostThatLostARailBecomesALeaf) {
  const auto synthetic = topology::synthetic("hosts=4,ranks=4,nics=4,nic=25MB/s");
  ASSERT_TRUE(synthetic.is_ok()) << synthetic.status().text();
  auto chooser = Chooser::make(settings_with(), 0, 0, true);
  ASSERT_TRUE(chooser.is_ok());
  std::vector<std::vector<double>> speeds(4, std::vector<double>(4, 25e6));
  const auto expect = [&](const Request& request, const std::string& algorithm, double bound_s) {
    const topology::Topology topology = synthetic->with_nic_speeds(speeds);
    const auto chosen = chooser->choose(request, topology);
    ASSERT_TRUE(chosen.is_ok());
    EXPECT_EQ(chosen->algorithm->name, algorithm);
    EXPECT_NEAR(runtime::bound_seconds(request, topology), bound_s, bound_s * 1e-6);
    EXPECT_GT(chosen->predicted_s, bound_s);
    EXPECT_LT(chosen->predicted_s, 1.1 * bound_s);
  };
  const Request large = sum_request(16 << 20);
  const double n_s = 64 * 1024 * 1024 / 25e6;  // the data through one NIC
  expect(large, "rail", 6 * n_s / 16);
  speeds[2][1] = 0;
  expect(large, "rail_leaf", 6 * n_s / 15);
  speeds[2][1] = 6.25e6;
  expect(large, "rail_leaf", 6 * n_s / 15.25);
  speeds[2][1] = 24e6;
  expect(large, "rail", 6 * n_s / 15.96);
  for (std::vector<double>& host : speeds) host[1] = 0;
  expect(large, "rail", 6 * n_s / 12);
}

TEST(Frame, HeadersComeBackAsTheyWere) {
  Random random(5);
  for (int i = 0; i < 1000; i++) {
    Header header;
    header.kind = static_cast<runtime::MessageKind>(1 + random.below(3));
    header.sequence = static_cast<uint32_t>(random.next());
    header.bytes = random.next() & runtime::kMessageBytesMax;
    header.request =
        random_request(random, static_cast<Collective>(random.below(kCollectiveCount)), 9, 1 << 20);
    header.request.in_place = false;
    Header back;
    ASSERT_TRUE(runtime::decode(runtime::encode(header).data(), &back));
    EXPECT_EQ(header, back);
    EXPECT_EQ(header.request, back.request);
  }
}

TEST(Frame, NonsenseIsRefused) {
  Header header;
  runtime::HeaderBytes bytes = runtime::encode(header);
  for (const size_t at : {0, 1, 2}) {
    runtime::HeaderBytes wrong = bytes;
    wrong[at] = std::byte{0xff};
    Header back;
    EXPECT_FALSE(runtime::decode(wrong.data(), &back)) << at;
  }
}

}  // namespace
}  // namespace railccl::test
