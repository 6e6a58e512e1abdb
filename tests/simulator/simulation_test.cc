// Shows what the simulator makes of faults, slow ranks, jitter, full windows and wrong plans, with
// times that can be computed by hand, and that it gives the same report every time.
#include "simulator/simulation.h"

#include <gmock/gmock.h>

#include <string>

#include "plan/builder.h"
#include "simulator/worlds.h"

namespace railccl::simulator {
namespace {

using plan::Builder;
using plan::Program;
using testing::HasSubstr;

/// Programs of two ranks on two hosts: rank 0 sends its input to rank 1, `pieces` messages of
/// `count` elements.
Result<Program> one_way(const plan::Request& request, int rank, uint64_t pieces, uint64_t count) {
  Builder b(request, 2, rank, "test");
  b.loop(pieces, [&] {
    if (rank == 0)
      b.send(1, b.input().chunks(count));
    else
      b.recv(0, b.output().chunks(count));
  });
  return std::move(b).take();
}

Result<Report> send_one_way(uint64_t pieces, uint64_t count, const Options& options,
                            const World& world = {.hosts = 2, .ranks = 1}) {
  const plan::Request request = request_of(Collective::broadcast, pieces * count);
  return simulate(
      request, world.topology(), [&](int rank) { return one_way(request, rank, pieces, count); },
      options);
}

constexpr uint64_t kElements = 25'000'000;  // 100 MB: 4 ms over a NIC of 25 GB/s

TEST(Faults, SlowTheRestDown) {
  Options options = free_steps();
  EXPECT_NEAR(seconds_of(send_one_way(1, kElements, options)), 4e-3 + 5e-6, 1e-9);
  // 1 ms at full speed, then 3/4 of the bytes at a quarter of it.
  options.faults = {{1e-3, 1, 0, 0.25}};
  EXPECT_NEAR(seconds_of(send_one_way(1, kElements, options)), 1e-3 + 12e-3 + 5e-6, 1e-9);
  // Healed after 5 ms: 1/4 at once, 4 ms for the second quarter, the rest at full speed.
  options.faults = {{5e-3, 1, 0, 1}, {1e-3, 1, 0, 0.25}};
  EXPECT_NEAR(seconds_of(send_one_way(1, kElements, options)), 5e-3 + 2e-3 + 5e-6, 1e-9);
  // Nothing for 6 ms.
  options.faults = {{1e-3, 0, 0, 0}, {7e-3, 0, 0, 1}};
  EXPECT_NEAR(seconds_of(send_one_way(1, kElements, options)), 7e-3 + 3e-3 + 5e-6, 1e-9);
  // Too late to matter.
  options.faults = {{1, 0, 0, 0}};
  EXPECT_NEAR(seconds_of(send_one_way(1, kElements, options)), 4e-3 + 5e-6, 1e-9);
}

TEST(Faults, ALinkThatStaysDownIsAnError) {
  Options options = free_steps();
  options.faults = {{1e-3, 1, 0, 0}};
  const auto report = send_one_way(1, kElements, options);
  ASSERT_FALSE(report.is_ok());
  EXPECT_THAT(report.status().text(), HasSubstr("h1 nic0 in carries nothing any more"));
}

TEST(Faults, OtherRailsGoOn) {
  const World world{.hosts = 2, .ranks = 2};
  const plan::Request request = request_of(Collective::all_reduce, kElements);
  const double n = static_cast<double>(plan::bytes_of(request));
  Options options = free_steps();
  options.faults = {{0, 0, 1, 0.5}};
  // Halves on both rails, each in two quarters of the vector each way; one rail at half speed.
  const double expected = 2 * (2e-6 + n / 2 / 100e9) + 2 * (5e-6 + n / 4 / 12.5e9);
  EXPECT_NEAR(seconds_of(simulate("rail", request, world.topology(), options)), expected,
              expected * 1e-5);
}

TEST(FailedNics, BytesGoThroughTheHostsOthers) {
  const World world{.hosts = 2, .ranks = 2};
  topology::Topology healthy = world.topology();
  std::vector<topology::Host> hosts = healthy.hosts();
  hosts[0].nics[1].up = false;
  const topology::Topology topology(hosts, healthy.rails(), healthy.ranks(), 5e-6, 1);
  const plan::Request request = request_of(Collective::all_reduce, kElements);
  const double n = static_cast<double>(plan::bytes_of(request));
  // Both phases: two ranks send a quarter to two others each, all through the one NIC left.
  const auto report = simulate("two_shot", request, topology);
  EXPECT_NEAR(seconds_of(report), 2 * (5e-6 + n / 25e9), 1e-8);
  // What 1 would send to 3 on rail 1 takes rail 0; what 0 sends to 3 was never on one.
  EXPECT_EQ(report->bytes_of_rail[1], 0u);
  EXPECT_EQ(report->bytes_of_rail[0], static_cast<uint64_t>(2 * 2 * 3 * n / 4));
  EXPECT_EQ(report->spine_bytes, static_cast<uint64_t>(2 * 2 * n / 4));
}

TEST(FailedNics, RailLeafKeepsTheOthersBusy) {
  const World world{.hosts = 4, .nic_bytes_per_s = 12.5e6, .alpha_s = 60e-6};
  topology::Topology healthy = world.topology();
  std::vector<topology::Host> hosts = healthy.hosts();
  hosts[1].nics[2].up = false;
  const topology::Topology topology(hosts, healthy.rails(), healthy.ranks(), 60e-6, 1);
  const plan::Request request = request_of(Collective::all_reduce, 16 << 20);
  const double n = static_cast<double>(plan::bytes_of(request));
  const double bound = 2 * 3 * n / (15 * 12.5e6);
  for (const uint64_t chunk : {64 << 10, 256 << 10}) {
    const double seconds =
        seconds_of(simulate("rail_leaf", request, topology, Options(), {1, chunk / sizeof(float)}));
    EXPECT_GT(seconds, bound);
    EXPECT_LT(seconds, bound / 0.93) << "chunks of " << chunk;
  }
}

TEST(SlowRanks, TakeLongerForTheirStepsAndMemory) {
  const World world{.hosts = 2, .ranks = 1, .copy_bytes_per_s = 100e9};
  Options options;
  options.step_s = 1e-6;
  // Send step, bytes, latency, receive step.
  EXPECT_NEAR(seconds_of(send_one_way(1, kElements, options, world)), 1e-6 + 4e-3 + 5e-6 + 1e-6,
              1e-9);
  // Memory of 200 GB/s, a tenth of that for the receiver: less than the NIC's 25.
  options.slow = {{1, 10}};
  EXPECT_NEAR(seconds_of(send_one_way(1, kElements, options, world)), 1e-6 + 5e-3 + 5e-6 + 10e-6,
              1e-9);
}

// Eight messages may be under way: each of the tiny ones leaves at once, but the ninth waits until
// the first was taken, one latency later.
TEST(Window, TheNinthMessageWaitsForTheFirst) {
  const Options options = free_steps();
  const double tiny = 4 / 25e9;
  EXPECT_NEAR(seconds_of(send_one_way(8, 1, options)), 5e-6 + 8 * tiny, 1e-11);
  EXPECT_NEAR(seconds_of(send_one_way(9, 1, options)), 2 * 5e-6 + 2 * tiny, 1e-11);
  EXPECT_NEAR(seconds_of(send_one_way(17, 1, options)), 3 * 5e-6 + 3 * tiny, 1e-11);
}

// A receive into what a send still reads waits until that has left: rank 2's word arrives at once,
// but rank 0 can take and answer it only after the 4 ms that its send to 1 takes.
TEST(Hazards, WhatASendReadsIsNotOverwrittenBefore) {
  const World world{.hosts = 3, .ranks = 1};
  const plan::Request request = request_of(Collective::broadcast, kElements);
  const auto seconds = [&](bool overwrites) {
    const auto make = [&](int rank) -> Result<Program> {
      Builder b(request, 3, rank, "test");
      const plan::Region sent = b.output(), other = b.scratch(kElements);
      if (rank == 0) {
        b.send(1, sent.slice());
        b.recv(2, (overwrites ? sent : other).part(9, 1).slice());
        b.signal(2);
        b.recv(2, other.slice());
      } else if (rank == 1) {
        b.recv(0, sent.slice());
      } else {
        b.send(0, sent.part(0, 1).slice());
        b.wait(0);
        b.send(0, sent.slice());
      }
      return std::move(b).take();
    };
    return seconds_of(simulate(request, world.topology(), make, free_steps()));
  };
  const double tiny = 4 / 25e9;
  EXPECT_NEAR(seconds(false), (tiny + 5e-6) + 5e-6 + (4e-3 + 5e-6), 1e-9);
  EXPECT_NEAR(seconds(true), 4e-3 + 5e-6 + (4e-3 + 5e-6), 1e-9);
}

TEST(InPlace, WhatIsThereAlreadyIsNotCopied) {
  const World world{.hosts = 1, .ranks = 1, .copy_bytes_per_s = 10e9};
  plan::Request request = request_of(Collective::all_reduce, kElements);
  EXPECT_NEAR(seconds_of(simulate("ring", request, world.topology())), 10e-3, 1e-9);
  request.in_place = true;
  EXPECT_EQ(seconds_of(simulate("ring", request, world.topology())), 0);
}

TEST(PeerMemory, LoadsGoThroughBothPorts) {
  const World world{.ranks = 2};
  plan::Request request = request_of(Collective::all_gather, kElements);
  const auto make = [&](int rank) -> Result<Program> {
    Builder b(request, 2, rank, "test");
    b.copy({plan::Buffer::input, 1 - rank, 0, kElements}, b.output().part(0, kElements).slice());
    return std::move(b).take();
  };
  // 100 MB at 100 GB/s, both ways at once.
  EXPECT_NEAR(seconds_of(simulate(request, world.topology(), make, free_steps())), 1e-3, 1e-9);
}

TEST(Jitter, SlowsDownAndFollowsTheSeed) {
  const World world{.hosts = 2, .ranks = 4};
  const plan::Request request = request_of(Collective::all_reduce, 1 << 12);
  Options options;
  const double quiet = seconds_of(simulate("ring", request, world.topology(), options));
  options.jitter = 0.3;
  const double one = seconds_of(simulate("ring", request, world.topology(), options));
  EXPECT_GT(one, quiet);
  EXPECT_EQ(seconds_of(simulate("ring", request, world.topology(), options)), one);
  options.seed = 2;
  EXPECT_NE(seconds_of(simulate("ring", request, world.topology(), options)), one);
}

TEST(Deterministic, ToTheBit) {
  const World world{.hosts = 3, .ranks = 3, .copy_bytes_per_s = 200e9, .oversubscription = 2};
  const plan::Request request = request_of(Collective::all_reduce, 100'003);
  for (const char* name : {"ring", "tree", "rail", "halving_doubling", "two_shot"}) {
    const auto once = simulate(name, request, world.topology(), {}, {2, 1000});
    const auto again = simulate(name, request, world.topology(), {}, {2, 1000});
    ASSERT_TRUE(once.is_ok() && again.is_ok()) << name;
    EXPECT_EQ(once->seconds, again->seconds) << name;
    EXPECT_EQ(once->events, again->events) << name;
    EXPECT_EQ(once->bytes, again->bytes) << name;
  }
}

TEST(Links, CarryWhatMessagesPutOnThem) {
  const auto report = send_one_way(1, kElements, free_steps());
  ASSERT_TRUE(report.is_ok());
  ASSERT_NE(report->most_loaded(), nullptr);
  EXPECT_EQ(report->most_loaded()->link.name, "h0 nic0 out");
  EXPECT_EQ(report->most_loaded()->bytes, 1e8);
  EXPECT_NEAR(report->most_loaded()->used, 4e-3 / (4e-3 + 5e-6), 1e-9);
}

TEST(WrongPlans, SayWhoWaitsForWhat) {
  const World world{.hosts = 2, .ranks = 1};
  const plan::Request request = request_of(Collective::broadcast, 10);
  const auto failure = [&](const auto& write) {
    const auto report = simulate(
        request, world.topology(),
        [&](int rank) -> Result<Program> {
          Builder b(request, 2, rank, "test");
          b.channel(0);
          write(b, rank);
          return std::move(b).take();
        },
        free_steps());
    return report.is_ok() ? std::string("ok") : report.status().text();
  };
  EXPECT_THAT(failure([](Builder& b, int rank) {
                if (rank == 1) b.recv(0, b.output().slice());
              }),
              HasSubstr("cannot finish: rank 1 channel 0 waits in recv from rank 0"));
  EXPECT_THAT(failure([](Builder& b, int rank) {
                if (rank == 0) b.send(1, b.input().slice());
              }),
              HasSubstr("leaves messages from rank 0 untaken"));
  EXPECT_THAT(failure([](Builder& b, int rank) {
                if (rank == 0) b.channel(1).send(1, b.input().slice());
              }),
              HasSubstr("leaves messages from rank 0 untaken"));
  EXPECT_THAT(failure([](Builder& b, int rank) {
                if (rank == 0) b.send(1, b.input().part(0, 4).slice());
                if (rank == 1) b.recv(0, b.output().part(0, 5).slice());
              }),
              HasSubstr("sends 4 elements where 5 elements are expected"));
  EXPECT_THAT(failure([](Builder& b, int rank) {
                if (rank == 0) b.send(1, b.input().part(0, 4).slice());
                if (rank == 1) b.wait(0);
              }),
              HasSubstr("where a signal is expected"));
  EXPECT_THAT(failure([](Builder& b, int rank) {
                if (rank == 0) b.signal(1);
                if (rank == 1) b.recv(0, b.output().part(0, 4).slice());
              }),
              HasSubstr("sends a signal where 4 elements"));
  EXPECT_THAT(failure([](Builder& b, int rank) {
                b.send(1 - rank, {plan::Buffer::input, 9, 0, 1});
              }),
              HasSubstr("there is no rank 9"));
}

TEST(BadOptions, AreRefusedByName) {
  const auto failure = [](const Options& options) {
    const auto report = send_one_way(1, 10, options);
    return report.is_ok() ? std::string("ok") : report.status().text();
  };
  Options options;
  options.slow = {{2, 2}};
  EXPECT_THAT(failure(options), HasSubstr("no rank 2"));
  options.slow = {{1, 0.5}};
  EXPECT_THAT(failure(options), HasSubstr("factor of a slow rank is 0.5"));
  options.slow.clear();
  options.faults = {{0, 2, 0, 1}};
  EXPECT_THAT(failure(options), HasSubstr("NIC 0 of host 2"));
  options.faults = {{0, 1, 0, 1.5}};
  EXPECT_THAT(failure(options), HasSubstr("factor of a fault is 1.5"));
  options.faults = {{-1, 1, 0, 0.5}};
  EXPECT_THAT(failure(options), HasSubstr("time of a fault is -1"));
  options.faults.clear();
  options.jitter = -1;
  EXPECT_THAT(failure(options), HasSubstr("jitter is -1"));
  options.jitter = 0;
  options.step_s = 2;
  EXPECT_THAT(failure(options), HasSubstr("time of a step is 2"));
  options.step_s = 0;
  options.steps_max = 1;
  EXPECT_THAT(failure(options), HasSubstr("gave up after 1 steps"));
}

}  // namespace
}  // namespace railccl::simulator
