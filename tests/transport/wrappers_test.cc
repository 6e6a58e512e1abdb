// The simulated world and the wrappers do what their headers say beyond the conformance suite: a
// hundred seeds of the simulation end and repeat exactly, links overtake each other, lost links
// fail on both sides; faulty fails where it was told to; traced counts what went through.
#include "transport/faulty.h"
#include "transport/harness.h"
#include "transport/simulated.h"
#include "transport/traced.h"

namespace railccl::transport {
namespace {

using simulated::Options;
using simulated::World;

struct Outcome {
  std::vector<Status> results;
  int64_t end_ns = 0;
  uint64_t received = 0;
};

// All pairs of `ranks` exchange `bytes` on two channels.
Outcome run(uint64_t seed, int ranks, const Options& options, uint64_t bytes) {
  World world(seed, ranks, options);
  std::vector<std::unique_ptr<Transport>> transports;
  for (int r = 0; r < ranks; r++) transports.push_back(world.transport(r));
  std::vector<Tasks> tasks(static_cast<size_t>(ranks));
  std::vector<ReceiveTask*> receivers;
  for (int a = 0; a < ranks; a++) {
    for (int b = 0; b < ranks; b++) {
      for (int c = 0; c < 2 && a != b; c++) {
        Link* const out = *transports[static_cast<size_t>(a)]->link(b, c);
        Link* const in = *transports[static_cast<size_t>(b)]->link(a, c);
        const auto stream = static_cast<uint64_t>(a * 100 + b * 10 + c);
        tasks[static_cast<size_t>(a)].push_back(
            std::make_unique<SendTask>(out, stream, bytes, 5000));
        auto receiver = std::make_unique<ReceiveTask>(in, stream, bytes, 5000);
        receivers.push_back(receiver.get());
        tasks[static_cast<size_t>(b)].push_back(std::move(receiver));
      }
    }
  }
  Outcome out;
  out.results.resize(static_cast<size_t>(ranks));
  bool done = false;
  while (!done) {
    done = true;
    bool progressed = false;
    for (size_t r = 0; r < tasks.size(); r++) {
      for (auto& task : tasks[r]) {
        if (task->done() || !task->failure().is_ok()) continue;
        progressed |= task->step();
        if (!task->failure().is_ok()) {
          if (out.results[r].is_ok()) out.results[r] = task->failure();
          progressed = true;
        }
        done &= task->done();
      }
    }
    if (progressed || done) continue;
    if (!world.advance()) {
      ADD_FAILURE() << "seed " << seed << ": nothing will ever happen";
      break;
    }
    for (int i = 0; i < 15; i++) world.advance();  // looking at every task is what costs time
  }
  out.end_ns = world.now_ns();
  for (const ReceiveTask* receiver : receivers) out.received += receiver->got();
  return out;
}

TEST(Simulated, AHundredSeedsDeliverEverything) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  for (uint64_t seed = 0; seed < 100; seed++) {
    const int ranks = 2 + static_cast<int>(seed % 3);
    const Outcome result = run(seed, ranks, Options::drawn(seed), 3'000);
    for (const Status& status : result.results)
      EXPECT_TRUE(status.is_ok()) << "seed " << seed << ": " << status.text();
    EXPECT_EQ(result.received, static_cast<uint64_t>(ranks * (ranks - 1)) * 2 * 3'000);
  }
}

TEST(Simulated, SameSeedSameRunOtherSeedOtherRun) {
  const Options options;
  const Outcome first = run(7, 3, options, 50'000);
  const Outcome again = run(7, 3, options, 50'000);
  const Outcome other = run(8, 3, options, 50'000);
  EXPECT_EQ(first.end_ns, again.end_ns);
  EXPECT_NE(first.end_ns, other.end_ns);
}

TEST(Simulated, LinksOvertakeEachOther) {
  bool overtook = false;
  for (uint64_t seed = 0; seed < 20 && !overtook; seed++) {
    World world(seed, 2, {});
    auto a = world.transport(0);
    auto b = world.transport(1);
    std::byte byte{1};
    const iovec range{&byte, 1};
    ASSERT_EQ(*(*a->link(1, 0))->send({&range, 1}), 1u);
    ASSERT_EQ(*(*a->link(1, 1))->send({&range, 1}), 1u);
    while (world.advance()) {
      const bool first = !(*b->link(0, 0))->peek(1)->empty();
      const bool second = !(*b->link(0, 1))->peek(1)->empty();
      overtook |= second && !first;
    }
  }
  EXPECT_TRUE(overtook);
}

TEST(Simulated, BandwidthTakesTime) {
  Options options;
  options.delay_ns_min = options.delay_ns_max = 1000;
  options.bytes_per_s = 1e6;
  const Outcome result = run(1, 2, options, 100'000);
  EXPECT_GE(result.end_ns, 100'000'000);  // 0.1 s at 1 MB/s
  EXPECT_LT(result.end_ns, 200'000'000);
}

TEST(Simulated, WhatIsUnderWayWhenALinkIsLostIsLost) {
  World world(1, 2, {});
  auto a = world.transport(0);
  auto b = world.transport(1);
  std::byte byte{1};
  const iovec range{&byte, 1};
  ASSERT_EQ(*(*a->link(1, 0))->send({&range, 1}), 1u);
  world.lose(0, 1);
  while (world.advance()) {
  }
  EXPECT_FALSE((*b->link(0, 0))->peek(1).is_ok());
  EXPECT_FALSE((*b->link(0, 0))->receive(&byte, 1).is_ok());
  EXPECT_FALSE((*a->link(1, 0))->send({&range, 1}).is_ok());
}

TEST(Simulated, ALostLinkFailsOnBothSidesAndOnlyThere) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  for (uint64_t seed = 0; seed < 30; seed++) {
    Options options = Options::drawn(seed);
    options.losses = {{2, 1, static_cast<int64_t>(seed * 2000)}};
    const Outcome result = run(seed, 4, options, 4'000);
    EXPECT_TRUE(result.results[0].is_ok()) << result.results[0].text();
    EXPECT_TRUE(result.results[3].is_ok()) << result.results[3].text();
    for (const int loser : {1, 2}) {
      const Status& status = result.results[static_cast<size_t>(loser)];
      if (status.is_ok()) continue;  // all was done by then
      EXPECT_EQ(status.scope(), Scope::link);
      EXPECT_NE(status.text().find("ranks 1 and 2"), std::string::npos) << status.text();
    }
    EXPECT_EQ(result.results[1].is_ok(), result.results[2].is_ok());
  }
}

TEST(Faulty, FailsAfterSoManyBytesAndStaysSo) {
  FaultOptions options;
  options.fail_after_bytes = 5000;
  options.seed = 3;
  RealWorld world("shm", 2, {}, [&](std::unique_ptr<Transport> inner, int rank) {
    if (rank == 1) return inner;
    return std::unique_ptr<Transport>(std::make_unique<FaultyTransport>(std::move(inner), options));
  });
  SendTask send(*world.at(0).link(1, 0), 1, 100'000, 1000);
  ReceiveTask receive(*world.at(1).link(0, 0), 1, 100'000, 1000);
  while (send.failure().is_ok()) {
    send.step();
    receive.step();
  }
  EXPECT_GE(send.sent(), 5000u);
  EXPECT_LT(send.sent(), 6001u);
  EXPECT_NE(send.failure().text().find("injected"), std::string::npos);
  EXPECT_FALSE((*world.at(0).link(1, 0))->flush().is_ok());
  EXPECT_TRUE((*world.at(0).link(1, 1))->flush().is_ok()) << "other links are not concerned";
  EXPECT_TRUE(receive.failure().is_ok()) << receive.failure().text();
}

// What a medium found out about its paths goes through: communicators weigh and settle as without.
TEST(Wrappers, PassOnWhatIsKnownOfPaths) {
  class Informed final : public TransportWrapper {
   public:
    explicit Informed(std::unique_ptr<Transport> inner) : TransportWrapper(std::move(inner)) {}
    Result<Link*> link(int peer, int channel) override { return inner().link(peer, channel); }
    bool settled() override { return false; }
    std::vector<NicSpeed> speeds() const override {
      NicSpeed speed;
      speed.nic = "eth7";
      speed.bytes_per_s = 3e9;
      if (!looks_anew_) speed.working = {1};
      return {speed};
    }
    void look_anew() override { looks_anew_ = true; }
    PathReport report() const override {
      PathReport report;
      report.events.push_back({1, "eth7 is silent"});
      return report;
    }

   private:
    bool looks_anew_ = false;
  };
  const auto informed = [] {
    World world(1, 2, {});
    return std::make_unique<Informed>(world.transport(0));
  };
  const std::unique_ptr<Transport> wrapped[] = {
      std::make_unique<TracedTransport>(informed()),
      std::make_unique<FaultyTransport>(informed(), FaultOptions())};
  for (const auto& transport : wrapped) {
    EXPECT_FALSE(transport->settled());
    ASSERT_EQ(transport->speeds().size(), 1u);
    EXPECT_EQ(transport->speeds()[0].nic, "eth7");
    EXPECT_EQ(transport->speeds()[0].working.size(), 1u);
    transport->look_anew();
    EXPECT_TRUE(transport->speeds()[0].working.empty());
    ASSERT_EQ(transport->report().events.size(), 1u);
    EXPECT_EQ(transport->report().events[0].text, "eth7 is silent");
  }
}

TEST(Traced, CountsBytesAndCalls) {
  std::vector<TracedTransport*> traced;
  RealWorld world("shm", 2, {}, [&](std::unique_ptr<Transport> inner, int) {
    auto wrapped = std::make_unique<TracedTransport>(std::move(inner));
    traced.push_back(wrapped.get());
    return std::unique_ptr<Transport>(std::move(wrapped));
  });
  std::vector<Tasks> tasks(2);
  tasks[0].push_back(std::make_unique<SendTask>(*world.at(0).link(1, 2), 1, 77'777, 1000));
  tasks[1].push_back(std::make_unique<ReceiveTask>(*world.at(1).link(0, 2), 1, 77'777, 1000));
  const int64_t before = now_ns();
  for (const Status& status : drive_all(world, tasks)) EXPECT_TRUE(status.is_ok());
  const auto sender = traced[0]->traces();
  const auto receiver = traced[1]->traces();
  ASSERT_EQ(sender.size(), 1u);
  ASSERT_EQ(receiver.size(), 1u);
  EXPECT_EQ(sender[0].peer, 1);
  EXPECT_EQ(sender[0].channel, 2);
  EXPECT_EQ(sender[0].sent.bytes, 77'777u);
  EXPECT_EQ(sender[0].received.bytes, 0u);
  EXPECT_EQ(receiver[0].received.bytes, 77'777u);
  EXPECT_GE(sender[0].sent.calls, 78u);
  EXPECT_GE(sender[0].sent.first_ns, before);
  EXPECT_GE(receiver[0].received.last_ns, sender[0].sent.first_ns);
  EXPECT_GE(sender[0].sent.last_ns, sender[0].sent.first_ns);
}

}  // namespace
}  // namespace railccl::transport
