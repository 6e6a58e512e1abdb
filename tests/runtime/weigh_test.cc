// Shows that the ranks agree on what their rails carry: plans change on all ranks alike and stay
// exact, whoever measured it and however the calls are grouped; that a rail that fails and returns
// is taken out and in again; that figures that no NIC can have, and ranks that measured nothing, do
// no harm; and when it is time for a weighing and when not.
#include "runtime/weigh.h"

#include <gmock/gmock.h>

#include <barrier>
#include <filesystem>
#include <limits>
#include <mutex>

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
extern const TransportKind transport_self, transport_shm, transport_tcp;
const std::vector<const TransportKind*>& all() {
  static const std::vector<const TransportKind*> rows = {&transport_self, &transport_shm,
                                                         &transport_tcp, &test::kScales};
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

/// Two hosts of four ranks and rails each, by file.
class WeighedCommunicator : public testing::Test {
 protected:
  void SetUp() override {
    readings.clear();
    auto topology = topology::synthetic("hosts=2,ranks=4,nics=4,nic=25MB/s");
    ASSERT_TRUE(topology.is_ok());
    topology_ = *topology;
    for (int rail = 0; rail < 4; rail++) names_.push_back(topology_.hosts()[0].nics[rail].name);
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
  /// Rank r is on rail r % 4.
  void measure(int rank, double speed) const { readings.set(rank, {{names_[rank % 4], speed}}); }

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

  Topology topology_;
  std::vector<std::string> names_;
  std::string path_;
};

std::vector<double> speeds_of(const Communicator& communicator) {
  std::vector<double> speeds;
  for (int rail = 0; rail < 4; rail++)
    speeds.push_back(communicator.topology()->rail_bytes_per_s(rail));
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
    between([&] { measure(5, 0); });
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
      measure(5, kRate);
      measure(3, kRate);
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
    for (int round = 0; round < 8; round++) {
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
    std::vector<NicSpeed> speeds = {{"no such NIC", 1}, {"", 0}};
    for (const double speed : none) speeds.push_back({names_[rank % 4], speed});
    readings.set(rank, speeds);
  }
  run({}, [&](Communicator& communicator, const Between&) {
    for (int i = 0; i < 4; i++) expect_exact(communicator, sum_request(kLarge));
    EXPECT_EQ(*communicator.topology(), topology_);
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

TEST(Weigh, ComesBeforeTheSecondLargeCallAndThenBeforeEveryThird) {
  Weigh weigh(hosts_with({2, 2}));
  std::string when;
  for (int call = 0; call < 9; call++) {
    when += weigh.due(1e-3, 20e-6) ? "w" : "-";
    EXPECT_FALSE(weigh.due(0.9e-3, 20e-6)) << "too short to be worth it";
  }
  EXPECT_EQ(when, "-w--w--w-");
}

TEST(Weigh, TakesTheLeastPerRail) {
  const Topology topology = hosts_with({2, 2});
  Weigh weigh(topology);
  weigh.put({{"eth1", 5e6}, {"eth1", 4e6}, {"eth1", 6e6}}, topology, 2);
  EXPECT_THAT(std::vector<double>(weigh.input(), weigh.input() + 2),
              ElementsAre(std::numeric_limits<double>::infinity(), 4e6));
  weigh.put({{"eth0", 0}}, topology, 2);
  EXPECT_THAT(std::vector<double>(weigh.input(), weigh.input() + 2),
              ElementsAre(0, std::numeric_limits<double>::infinity()));
}

/// Two hosts and rails that carry `before`, and what the ranks then agree on.
class Scale {
 public:
  explicit Scale(const std::vector<double>& before)
      : topology(hosts_with({2, 2}).with_rail_speeds(before)), weigh_(topology) {}

  /// What is said of it.
  std::vector<std::string> says(const std::vector<double>& agreed) {
    std::copy(agreed.begin(), agreed.end(), weigh_.output());
    weigh_.take();
    const auto changes = weigh_.changes(topology);
    std::vector<std::string> texts;
    for (const Weigh::Change& change : changes)
      texts.push_back(Weigh::text_of(change, topology, 0));
    topology = Weigh::changed(topology, changes);
    EXPECT_THAT(weigh_.changes(topology), testing::IsEmpty()) << "the same again is no news";
    return texts;
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
              ElementsAre("rail 1 (eth1) carries 20 MB/s now, was 25 MB/s"));
  EXPECT_THAT(scale.says({25e6, 12e6}),
              ElementsAre("rail 1 (eth1) carries 12 MB/s now, was 20 MB/s"));
}

TEST(Weigh, PromisesAndMeasurementsDoNotCompare) {
  const double none = std::numeric_limits<double>::infinity();
  Scale scale({1.25e9, 1.25e9});
  EXPECT_THAT(scale.says({25e6, none}), ElementsAre());
  EXPECT_EQ(scale.topology.rail_bytes_per_s(0), 1.25e9);
  EXPECT_THAT(scale.says({none, none}), ElementsAre());
  EXPECT_THAT(scale.says({none, 20e6}),
              ElementsAre("rail 0 (eth0) carries 25 MB/s now, was 1.25 GB/s",
                          "rail 1 (eth1) carries 20 MB/s now, was 1.25 GB/s"));
  // From then on each speaks for itself.
  EXPECT_THAT(scale.says({none, 5e6}),
              ElementsAre("rail 1 (eth1) carries 5 MB/s now, was 20 MB/s"));
}

}  // namespace
}  // namespace test
}  // namespace railccl
