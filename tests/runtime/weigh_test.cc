// Shows that the ranks agree on what their NICs carry: plans change on all ranks alike and stay
// exact, whoever measured it and however the calls are grouped; that a rail that fails and returns
// is taken out and in again, on one host or on all; that the host whose link is broken is told from
// those that miss it; that figures that no NIC can have, and ranks that measured nothing, do no
// harm; and when it is time for a weighing and when not.
#include "runtime/weigh.h"

#include <gmock/gmock.h>

#include <barrier>
#include <filesystem>
#include <limits>
#include <mutex>

#include "build_kind.h"
#include "rail_speeds.h"
#include "ranks.h"
#include "shapes.h"
#include "topology/synthetic.h"
#include "topology/text.h"
#include "transport/registry.h"

namespace railccl {

namespace test {
namespace {

using transport::NicSpeed;

/// What the ranks' NICs "were measured" to carry.
class Readings {
 public:
  void set(int rank, std::vector<NicSpeed> speeds) {
    std::lock_guard lock(mutex_);
    of_rank_[rank] = std::move(speeds);
  }
  std::vector<NicSpeed> of(int rank) {
    std::lock_guard lock(mutex_);
    return of_rank_[rank];
  }
  void clear() {
    std::lock_guard lock(mutex_);
    of_rank_.clear();
  }

 private:
  std::mutex mutex_;
  std::map<int, std::vector<NicSpeed>> of_rank_;
};
Readings readings;

/// A medium that reaches nobody and reports the readings.
class Scales final : public transport::Transport {
 public:
  explicit Scales(int rank) : rank_(rank) {}
  const char* name() const override { return "scales"; }
  transport::Capabilities capabilities() const override { return {}; }
  transport::Address address() const override { return {}; }
  Status set_peers(const transport::Peers&) override { return ok(); }
  bool reaches(int) const override { return false; }
  Result<transport::Link*> link(int, int) override { return Status(Code::unsupported, "no links"); }
  Status progress() override { return ok(); }
  void wait(int64_t) override {}
  void wake() override {}
  Result<std::byte*> shared_memory(size_t) override { return nullptr; }
  Result<std::byte*> peer_memory(int, size_t) override { return nullptr; }
  std::vector<NicSpeed> speeds() const override { return readings.of(rank_); }
  void abort(const Status&) override {}

 private:
  int rank_;
};

const transport::TransportKind kScales = {
    "scales", 1, [](const transport::Context&) { return ok(); },
    [](const transport::Context& context) -> Result<std::unique_ptr<transport::Transport>> {
      return std::unique_ptr<transport::Transport>(std::make_unique<Scales>(context.rank));
    }};

}  // namespace
}  // namespace test

// This program's registry: the linker takes it for the generated one.
namespace transport {
extern const TransportKind transport_self, transport_shm, transport_nccl_net, transport_ucx,
    transport_tcp;
const std::vector<const TransportKind*>& all() {
  static const std::vector<const TransportKind*> rows = {&transport_self,     &transport_shm,
                                                         &transport_nccl_net, &transport_tcp,
#ifdef RAILCCL_UCX_HEADERS
                                                         &transport_ucx,
#endif
                                                         &test::kScales};
  return rows;
}
}  // namespace transport

namespace test {
namespace {

using runtime::Weigh;
using testing::ElementsAre;
using topology::Topology;

constexpr double kRate = 25e6;
constexpr int kRanks = 8;
constexpr uint64_t kLarge = 1 << 18;  // floats: a mebibyte, which takes such rails 10 ms

/// Two hosts of four ranks and rails each, or four of two, by file.
class WeighedCommunicator : public testing::Test {
 protected:
  void SetUp() override { set_up(4); }
  void set_up(int local) {
    local_ = local;
    readings.clear();
    auto topology = topology::synthetic(
        fmt::format("hosts={},ranks={},nics={},nic=25MB/s", kRanks / local, local, local));
    ASSERT_TRUE(topology.is_ok());
    topology_ = *topology;
    names_.clear();
    for (int rail = 0; rail < local; rail++)
      names_.push_back(topology_.hosts()[0].nics[static_cast<size_t>(rail)].name);
    path_ = testing::TempDir() + fmt::format("/weigh-{}.topo", getpid());
    ASSERT_TRUE(topology::save_topology(topology_, path_).is_ok());
  }
  void TearDown() override { std::filesystem::remove(path_); }

  Settings settings(std::vector<std::string> overrides = {}) const {
    overrides.push_back("RAILCCL_TOPO_FILE=" + path_);
    return settings_with(overrides);
  }
  /// Host 0's ranks measure what their rails are said to carry.
  void measure_all() const {
    for (int rank = 0; rank < 4; rank++) measure(rank, kRate);
  }
  /// Rank r's NIC, that of rail r % local_, reaches the next host with that speed; 0: not at all.
  void measure(int rank, double speed) const {
    const std::vector<int> next = {(rank + local_) % kRanks};
    NicSpeed found{.nic = names_[static_cast<size_t>(rank % local_)], .working = {}, .missing = {}};
    found.bytes_per_s = speed > 0 ? speed : kRate;  // what it once carried
    (speed > 0 ? found.working : found.missing) = next;
    readings.set(rank, {found});
  }

  /// Runs `body` on all ranks; what it calls in between waits until all have come so far, lets one
  /// of them do something and goes on.
  using Between = std::function<void(const std::function<void()>&)>;
  void run(const std::vector<std::string>& overrides,
           const std::function<void(Communicator&, const Between&)>& body) const {
    std::barrier barrier(kRanks);
    with_communicator(kRanks, settings(overrides), [&](const CommunicatorPtr& communicator) {
      body(*communicator, [&](const std::function<void()>& act) {
        barrier.arrive_and_wait();
        if (communicator->rank() == 0) act();
        barrier.arrive_and_wait();
      });
    });
  }

  int local_ = 4;
  Topology topology_;
  std::vector<std::string> names_;
  std::string path_;
};

std::vector<double> speeds_of(const Communicator& communicator) {
  std::vector<double> speeds;
  for (int rail = 0; rail < 4; rail++) speeds.push_back(rail_speed(*communicator.topology(), rail));
  return speeds;
}

TEST_F(WeighedCommunicator, PlansFollowWhatOneRankMeasured) {
  measure_all();
  measure(3, kRate / 4);
  std::vector<std::string> seen(kRanks);
  run({"RAILCCL_CHECK_PLANS=1"}, [&](Communicator& communicator, const Between& between) {
    expect_exact(communicator, sum_request(kLarge));
    EXPECT_EQ(communicator.last_choice().algorithm, "rail");
    const double before_s = communicator.last_choice().predicted_s;
    EXPECT_EQ(*communicator.topology(), topology_) << "nothing can have been measured before";
    expect_exact(communicator, sum_request(kLarge));
    EXPECT_THAT(speeds_of(communicator), ElementsAre(kRate, kRate, kRate, kRate / 4));
    EXPECT_NEAR(communicator.last_choice().predicted_s / before_s, 4 / 3.25, 0.1);
    for (int c = 0; c < kCollectiveCount; c++)
      expect_exact(communicator, sum_request(1003, static_cast<Collective>(c)));
    // A rail that fails is noticed when three large calls have passed, small ones not counted.
    between([&] {
      measure(1, 0);
      measure(5, 0);
    });
    for (int i = 0; i < 2; i++) {
      expect_exact(communicator, sum_request(kLarge));
      EXPECT_EQ(speeds_of(communicator)[1], kRate);
      for (int small = 0; small < 10; small++) expect_exact(communicator, sum_request(100));
    }
    expect_exact(communicator, sum_request(kLarge));
    EXPECT_THAT(speeds_of(communicator), ElementsAre(kRate, 0, kRate, kRate / 4));
    EXPECT_NEAR(communicator.last_choice().predicted_s / before_s, 4 / 2.25, 0.1);
    for (int c = 0; c < kCollectiveCount; c++)
      expect_exact(communicator, sum_request(1003, static_cast<Collective>(c)));
    // And is back as soon as its rank says so.
    between([&] {
      for (const int rank : {1, 3, 5}) measure(rank, kRate);
    });
    for (int i = 0; i < 3; i++) expect_exact(communicator, sum_request(kLarge));
    EXPECT_THAT(speeds_of(communicator), ElementsAre(kRate, kRate, kRate, kRate));
    EXPECT_NEAR(communicator.last_choice().predicted_s, before_s, before_s / 1000);
    seen[static_cast<size_t>(communicator.rank())] =
        topology::to_text(*communicator.topology()) + communicator.last_choice().algorithm;
  });
  for (const std::string& text : seen) EXPECT_EQ(text, seen[0]);
}

TEST_F(WeighedCommunicator, StaysInStepHoweverCallsAreMade) {
  measure_all();
  measure(0, kRate / 2);
  run({}, [&](Communicator& communicator, const Between&) {
    const int me = communicator.rank();
    const Request request = sum_request(kLarge);
    runtime::Stream stream;
    for (int round = 0; round < by_build(8, 8, 4); round++) {
      Buffers first(request, kRanks, me), second(request, kRanks, me);
      const int32_t out = me;
      int32_t in = -1;
      const int how = (me + round) % 4;
      if (how == 0) {
        runtime::group_start();
        EXPECT_TRUE(communicator.start(call_of(request, first), nullptr).is_ok());
        EXPECT_TRUE(communicator.start(call_of(request, second), nullptr).is_ok());
        EXPECT_TRUE(communicator.start(send_of(me, &out, 1), nullptr).is_ok());
        EXPECT_TRUE(communicator.start(recv_of(me, &in, 1), nullptr).is_ok());
        EXPECT_TRUE(runtime::group_end().is_ok());
        EXPECT_EQ(in, me);
      } else if (how == 1) {
        EXPECT_TRUE(communicator.prepare(call_of(request, first)).is_ok());
        EXPECT_TRUE(communicator.start_prepared(call_of(request, first), nullptr).is_ok());
        EXPECT_TRUE(communicator.start_prepared(call_of(request, second), nullptr).is_ok());
      } else {
        runtime::Stream* where = how == 2 ? &stream : nullptr;
        EXPECT_TRUE(communicator.start(call_of(request, first), where).is_ok());
        EXPECT_TRUE(communicator.start(call_of(request, second), where).is_ok());
        EXPECT_TRUE(stream.synchronize().is_ok());
      }
      EXPECT_EQ(first.first_wrong(), -1);
      EXPECT_EQ(second.first_wrong(), -1);
    }
    EXPECT_EQ(speeds_of(communicator)[0], kRate / 2);
  });
}

TEST_F(WeighedCommunicator, NonsenseAndSilenceChangeNothing) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double none[] = {
      std::numeric_limits<double>::quiet_NaN(), kInfinity, -kInfinity, -1, 1e300, 1e-300};
  for (int rank = 0; rank < kRanks - 1; rank++) {
    std::vector<NicSpeed> speeds = {{"no such NIC", 1, {5}, {4}}, {"", 0, {}, {}}};
    const std::string& nic = names_[static_cast<size_t>(rank % 4)];
    for (const double speed : none) speeds.push_back({nic, speed, {(rank + 4) % 8}, {}});
    speeds.push_back({nic, kRate / 4, {}, {}});  // it reached nobody lately
    speeds.push_back({nic, 0, {}, {-1, kRanks, 1 << 30, rank}});
    readings.set(rank, speeds);
  }
  run({}, [&](Communicator& communicator, const Between&) {
    for (int i = 0; i < 4; i++) expect_exact(communicator, sum_request(kLarge));
    EXPECT_EQ(*communicator.topology(), topology_);
  });
}

// Rank 5's NIC is that of host 2 on rail 1; round the ring 1, 3, 5, 7 each sends to the next.
TEST_F(WeighedCommunicator, AHostThatLosesARailBecomesALeafUntilItIsBack) {
  set_up(2);
  for (int rank = 0; rank < kRanks; rank++) measure(rank, kRate);
  run({"RAILCCL_CHECK_PLANS=1"}, [&](Communicator& communicator, const Between& between) {
    const auto speeds_on_rail_1 = [&] {
      std::vector<double> speeds;
      for (int host = 0; host < 4; host++)
        speeds.push_back(communicator.topology()->rail_bytes_per_s(1, host));
      return speeds;
    };
    for (int i = 0; i < 2; i++) expect_exact(communicator, sum_request(kLarge));
    EXPECT_EQ(communicator.last_choice().algorithm, "rail");
    const double before_s = communicator.last_choice().predicted_s;
    EXPECT_THAT(speeds_on_rail_1(), ElementsAre(kRate, kRate, kRate, kRate));
    between([&] {
      measure(3, 0);
      measure(5, 0);
    });
    for (int i = 0; i < 3; i++) expect_exact(communicator, sum_request(kLarge));
    EXPECT_THAT(speeds_on_rail_1(), ElementsAre(kRate, kRate, 0, kRate));
    EXPECT_EQ(communicator.last_choice().algorithm, "rail_leaf");
    // The NIC that is left takes n, where all NICs together took 3/4 n.
    EXPECT_NEAR(communicator.last_choice().predicted_s / before_s, 4 / 3.0, 0.15);
    for (int c = 0; c < kCollectiveCount; c++)
      expect_exact(communicator, sum_request(1003, static_cast<Collective>(c)));
    between([&] {
      measure(3, kRate);
      measure(5, kRate);
    });
    for (int i = 0; i < 3; i++) expect_exact(communicator, sum_request(kLarge));
    EXPECT_THAT(speeds_on_rail_1(), ElementsAre(kRate, kRate, kRate, kRate));
    EXPECT_EQ(communicator.last_choice().algorithm, "rail");
  });
}

TEST_F(WeighedCommunicator, WhereNoAlgorithmMayWeighNobodyDoes) {
  measure_all();
  measure(0, kRate / 2);
  run({"NCCL_ALGO=allreduce:domains"}, [&](Communicator& communicator, const Between&) {
    Buffers buffers(sum_request(8), kRanks, communicator.rank());
    ASSERT_FALSE(communicator.start(call_of(sum_request(8), buffers), nullptr).is_ok());
    for (int i = 0; i < 4; i++)
      expect_exact(communicator, sum_request(kLarge, Collective::broadcast));
    EXPECT_EQ(*communicator.topology(), topology_);
  });
}

TEST_F(WeighedCommunicator, ChildrenInheritWhatWasAgreed) {
  measure_all();
  measure(2, kRate / 2);
  run({}, [&](Communicator& communicator, const Between&) {
    for (int i = 0; i < 2; i++) expect_exact(communicator, sum_request(kLarge));
    auto child = communicator.split(0, -communicator.rank(), {});
    ASSERT_TRUE(child.is_ok());
    EXPECT_EQ(speeds_of(**child)[2], kRate / 2);
    expect_exact(**child, sum_request(1000));
  });
}

TEST(Weigh, MattersForLargeCallsOverSeveralRailsOnly) {
  const auto matters = [](const Topology& topology, uint64_t count, Collective collective) {
    return Weigh(topology).may_matter(sum_request(count, collective));
  };
  const Topology two_hosts = hosts_with({4, 4});
  EXPECT_TRUE(matters(two_hosts, kLarge, Collective::all_reduce));
  EXPECT_FALSE(matters(two_hosts, kLarge - 1, Collective::all_reduce));
  EXPECT_TRUE(matters(two_hosts, kLarge / 8, Collective::all_gather));
  EXPECT_FALSE(matters(two_hosts, kLarge / 8, Collective::scatter));
  EXPECT_FALSE(matters(hosts_with({8}), kLarge, Collective::all_reduce));
  auto one_rail = topology::synthetic("hosts=2,ranks=4,nics=1");
  ASSERT_TRUE(one_rail.is_ok());
  EXPECT_FALSE(matters(*one_rail, kLarge, Collective::all_reduce));
}

/// What comes out: host 0's and then host 1's two rails.
void take(Weigh& weigh, const std::vector<float>& agreed) {
  std::copy(agreed.begin(), agreed.end(), weigh.output());
  weigh.take();
}

TEST(Weigh, ComesBeforeTheSecondLargeCallAndThenBeforeEveryThird) {
  Weigh weigh(hosts_with({2, 2}));
  take(weigh, {5e6F, 5e6F, 5e6F, 5e6F});
  std::string when;
  for (int call = 0; call < 9; call++) {
    when += weigh.due(1e-3, 20e-6) ? "w" : "-";
    EXPECT_FALSE(weigh.due(0.9e-3, 20e-6)) << "too short to be worth it";
  }
  EXPECT_EQ(when, "-w--w--w-");
}

TEST(Weigh, APromisedPriceCountsOnceRailsAreMeasuredOrOftenLookedAt) {
  constexpr float kNothing = std::numeric_limits<float>::infinity();
  const auto weighings_of = [](const std::vector<std::vector<float>>& answers) {
    Weigh weigh(hosts_with({2, 2}));
    size_t weighings = 0;
    for (int call = 0; call < 300; call++) {
      if (!weigh.due(1e-6, 20e-6)) continue;
      take(weigh, answers[std::min(weighings, answers.size() - 1)]);
      weighings++;
    }
    EXPECT_FALSE(weigh.due(1e-6, 20e-6));
    return weighings;
  };
  const std::vector<float> silence(4, kNothing);
  EXPECT_EQ(weighings_of({silence}), 16u);
  // One host's word is enough; that of one rail is not, nor that one host has lost it.
  const std::vector<float> first = {5e6F, kNothing, kNothing, kNothing};
  EXPECT_EQ(weighings_of({silence, first, {kNothing, kNothing, kNothing, 6e6F}}), 3u);
  EXPECT_EQ(weighings_of({first, {kNothing, 1e17F, kNothing, kNothing}}), 16u);
  EXPECT_EQ(weighings_of({first, {kNothing, 1e17F, kNothing, 1e17F}}), 2u);
}

constexpr float kInfinite = std::numeric_limits<float>::infinity();

/// What rank 2, the first of host 1 of two hosts, puts in: eth0 and eth1 of host 0, then of host 1.
std::vector<float> put(const std::vector<NicSpeed>& found) {
  const Topology topology = hosts_with({2, 2});
  Weigh weigh(topology);
  weigh.put({{"eth0", 1e6, {0}, {1}}}, topology, 2);  // once; it must leave no trace
  weigh.put(found, topology, 2);
  return {weigh.input(), weigh.input() + 4};
}

TEST(Weigh, PutsInTheLeastOfWhatIsKnownOfBothEnds) {
  EXPECT_THAT(put({}), ElementsAre(kInfinite, kInfinite, kInfinite, kInfinite));
  EXPECT_THAT(put({{"eth1", 5e6, {0}, {}}, {"eth1", 4e6, {1}, {}}, {"eth1", 6e6, {0}, {}}}),
              ElementsAre(kInfinite, 1e16F, kInfinite, 4e6F));
  EXPECT_THAT(put({{"eth0", 0, {1}, {}}}), ElementsAre(1e16F, kInfinite, 1e16F, kInfinite));
  // What it carried before it failed does not clear it.
  EXPECT_THAT(put({{"eth0", 5e6, {}, {0, 1}}}), ElementsAre(1e17F, kInfinite, 1e17F, kInfinite));
  EXPECT_THAT(put({{"eth0", 5e6, {1}, {0}}}), ElementsAre(1e16F, kInfinite, 5e6F, kInfinite));
  EXPECT_THAT(put({{"eth0", 5e6, {}, {}}, {"eth2", 5e6, {0}, {1}}, {"eth1", 5e6, {3}, {-1, 4}}}),
              ElementsAre(kInfinite, kInfinite, kInfinite, 5e6F));
}

/// Hosts with two rails that carry `before`, and what the ranks then agree on.
class Scale {
 public:
  explicit Scale(const std::vector<double>& before, int hosts = 2)
      : topology(
            with_rail_speeds(hosts_with(std::vector<int>(static_cast<size_t>(hosts), 2)), before)),
        weigh_(topology) {}

  /// What is said of it, the same for all hosts; 0: the rail reaches nobody.
  std::vector<std::string> says(const std::vector<double>& agreed) {
    std::vector<double> of_all;
    for (size_t h = 0; h < topology.hosts().size(); h++)
      of_all.insert(of_all.end(), agreed.begin(), agreed.end());
    return says_of_each(of_all);
  }
  /// Host by host.
  std::vector<std::string> says_of_each(const std::vector<double>& agreed) {
    std::transform(agreed.begin(), agreed.end(), weigh_.output(),
                   [](double speed) { return static_cast<float>(speed == 0 ? 1e17 : speed); });
    weigh_.take();
    const Weigh::News news = weigh_.news(topology);
    std::vector<std::string> texts;
    for (const Weigh::Change& change : news.changes)
      texts.push_back(Weigh::text_of(change, topology));
    if (!texts.empty()) topology = topology.with_nic_speeds(news.speeds);
    EXPECT_THAT(weigh_.news(topology).changes, testing::IsEmpty()) << "the same again is no news";
    return texts;
  }
  std::vector<double> speeds(int rail) const {
    std::vector<double> speeds;
    for (const int host : topology.used_hosts())
      speeds.push_back(topology.rail_bytes_per_s(rail, host));
    return speeds;
  }

  Topology topology;

 private:
  Weigh weigh_;
};

std::vector<std::string> said(const std::vector<double>& before, const std::vector<double>& now) {
  return Scale(before).says(now);
}

TEST(Weigh, SaysWhatChangedInWordsAndOnlyThat) {
  EXPECT_THAT(said({25e6, 25e6}, {23e6, 27e6}), ElementsAre());
  EXPECT_THAT(said({25e6, 25e6}, {25e6, 6.25e6}),
              ElementsAre("rail 1 (eth1) carries 6.25 MB/s now, was 25 MB/s"));
  EXPECT_THAT(said({1.25e9, 1.25e9}, {25e6, 24e6}),
              ElementsAre("rail 0 (eth0) carries 25 MB/s now, was 1.25 GB/s",
                          "rail 1 (eth1) carries 25 MB/s now, was 1.25 GB/s"));
  EXPECT_THAT(said({25e6, 25e6}, {0, 25e6}),
              ElementsAre("rail 0 (eth0) carries nothing: its share goes over the other rails"));
  EXPECT_THAT(said({25e6, 25e6}, {25e6, 300e3}),
              ElementsAre("rail 1 (eth1) carries 300 kB/s: its share goes over the other rails"));
  EXPECT_THAT(said({0, 25e6}, {24e6, 25e6}), ElementsAre("rail 0 (eth0) carries 25 MB/s again"));
  EXPECT_THAT(said({0, 25e6}, {0, 25e6}), ElementsAre());
  EXPECT_THAT(said({0, 25e6}, {100e3, 25e6}), ElementsAre());
  // Something has carried this answer.
  EXPECT_THAT(said({25e6, 25e6}, {0, 0}), ElementsAre());
  const double none = std::numeric_limits<double>::infinity();
  EXPECT_THAT(said({25e6, 25e6}, {none, -5}), ElementsAre());
  EXPECT_THAT(said({25e6, 25e6}, {0, none}),
              ElementsAre("rail 0 (eth0) carries nothing: its share goes over the other rails"));
}

TEST(Weigh, OneMeasurementThatStraysChangesNothing) {
  Scale scale({1.25e9, 1.25e9});
  EXPECT_EQ(scale.says({19e6, 25e6}).size(), 2u);
  EXPECT_THAT(scale.says({26e6, 25e6}),
              ElementsAre("rail 0 (eth0) carries 26 MB/s now, was 19 MB/s"));
  for (const auto& [first, second] : {std::pair{24e6, 29e6},
                                      {28e6, 22e6},
                                      {25e6, 26e6},
                                      {20e6, 25e6},
                                      {25e6, 19e6},
                                      {25e6, 25e6},
                                      {27e6, 24e6}})
    EXPECT_THAT(scale.says({first, second}), ElementsAre()) << first << " " << second;
  // What lasts counts the second time, what is another speed altogether at once.
  EXPECT_THAT(scale.says({25e6, 20e6}), ElementsAre());
  EXPECT_THAT(scale.says({25e6, 20e6}),
              ElementsAre("rail 1 (eth1) carries 20 MB/s now, was 26 MB/s"));
  EXPECT_THAT(scale.says({25e6, 12e6}),
              ElementsAre("rail 1 (eth1) carries 12 MB/s now, was 20 MB/s"));
}

TEST(Weigh, PromisesAndMeasurementsDoNotCompare) {
  const double none = std::numeric_limits<double>::infinity();
  Scale scale({1.25e9, 1.25e9});
  EXPECT_THAT(scale.says({25e6, none}), ElementsAre());
  EXPECT_EQ(rail_speed(scale.topology, 0), 1.25e9);
  EXPECT_THAT(scale.says({none, none}), ElementsAre());
  EXPECT_THAT(scale.says({none, 20e6}),
              ElementsAre("rail 0 (eth0) carries 25 MB/s now, was 1.25 GB/s",
                          "rail 1 (eth1) carries 20 MB/s now, was 1.25 GB/s"));
  // From then on each speaks for itself.
  EXPECT_THAT(scale.says({none, 5e6}),
              ElementsAre("rail 1 (eth1) carries 5 MB/s now, was 20 MB/s"));
}

constexpr double kReached = 1e16;

TEST(Weigh, TellsTheHostsApart) {
  const double none = std::numeric_limits<double>::infinity();
  Scale scale({25e6, 25e6}, 4);
  // Hosts 0 and 2 have missed host 1, and reached others.
  EXPECT_THAT(scale.says_of_each({25e6, kReached, 25e6, 0, 25e6, kReached, 25e6, 25e6}),
              ElementsAre("rail 1 (eth1) of host host1 carries nothing: its share goes over the "
                          "other rails"));
  EXPECT_THAT(scale.speeds(1), ElementsAre(25e6, 0, 25e6, 25e6));
  EXPECT_THAT(scale.says_of_each({none, none, none, none, none, none, none, none}), ElementsAre());
  // Back it is said to be as fast as the others.
  EXPECT_THAT(scale.says_of_each({25e6, 25e6, 25e6, kReached, 25e6, 24e6, 25e6, 25e6}),
              ElementsAre("rail 1 (eth1) of host host1 carries 25 MB/s again"));
  EXPECT_THAT(scale.speeds(1), ElementsAre(25e6, 25e6, 25e6, 25e6));
  // A slow one among others, and the one that sent to it, are believed the third time.
  const std::vector<double> two_slow = {25e6, 25e6, 25e6, 6.25e6, 25e6, 25e6, 25e6, 6.25e6};
  for (int i = 0; i < 2; i++) EXPECT_THAT(scale.says_of_each(two_slow), ElementsAre());
  EXPECT_THAT(
      scale.says_of_each(two_slow),
      ElementsAre("rail 1 (eth1) of hosts host1, host3 carries 6.25 MB/s now, was 25 MB/s"));
  EXPECT_THAT(scale.speeds(1), ElementsAre(25e6, 6.25e6, 25e6, 6.25e6));
  // Hosts that are about alike on a rail carry what the slowest does; who strays upwards, too.
  EXPECT_THAT(
      scale.says_of_each({25e6, 20e6, 25e6, 18e6, 25e6, 90e6, 25e6, 19e6}),
      ElementsAre("rail 1 (eth1) of hosts host0, host2 carries 18 MB/s now, was 25 MB/s",
                  "rail 1 (eth1) of hosts host1, host3 carries 18 MB/s now, was 6.25 MB/s"));
  Scale many({25e6, 25e6}, 6);
  std::vector<double> all_but_one(12, 25e6);
  for (size_t host = 1; host < 6; host++) all_but_one[2 * host] = 0;
  EXPECT_THAT(many.says_of_each(all_but_one),
              ElementsAre("rail 0 (eth0) of hosts host1, host2, host3 and 2 more carries nothing: "
                          "its share goes over the other rails"));
}

TEST(Weigh, WhoMeasuresNothingCarriesWhatOthersDo) {
  const double none = std::numeric_limits<double>::infinity();
  Scale scale({1.25e9, 1.25e9}, 3);
  EXPECT_EQ(scale.says_of_each({25e6, none, none, kReached, none, 20e6}).size(), 2u);
  EXPECT_THAT(scale.speeds(0), ElementsAre(25e6, 25e6, 25e6));
  EXPECT_THAT(scale.speeds(1), ElementsAre(20e6, 20e6, 20e6));
}

TEST(Weigh, FailuresAndReturnsCountBeforeAnythingIsMeasured) {
  const double none = std::numeric_limits<double>::infinity();
  Scale scale({1.25e9, 1.25e9}, 3);
  EXPECT_THAT(scale.says_of_each({none, kReached, none, 0, none, kReached}).size(), 1u);
  EXPECT_THAT(scale.speeds(1), ElementsAre(1.25e9, 0, 1.25e9));
  EXPECT_THAT(scale.says_of_each({none, kReached, none, kReached, none, kReached}),
              ElementsAre("rail 1 (eth1) of host host1 works again"));
  EXPECT_THAT(scale.speeds(1), ElementsAre(1.25e9, 1.25e9, 1.25e9));
}

}  // namespace
}  // namespace test
}  // namespace railccl
