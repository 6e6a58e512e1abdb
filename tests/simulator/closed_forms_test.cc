// Shows that on uniform networks simulated times are what the alpha-beta model gives on paper, for
// algorithms whose times are known: to 0.001%, which is what copies at a finite rate leave.
#include <cmath>
#include <utility>

#include "plan/builder.h"
#include "simulator/worlds.h"

namespace railccl::simulator {
namespace {

constexpr double kNear = 1e-5;
constexpr uint64_t kCount = 12 * 1024 * 1024;  // divides by all sizes below

double near(double seconds) { return seconds * kNear; }

TEST(ClosedForms, Ring) {
  for (const int p : {2, 3, 4, 8, 16}) {
    const World world{.ranks = p};
    const plan::Request request = request_of(Collective::all_reduce, kCount);
    const double n = static_cast<double>(plan::bytes_of(request));
    const double expected = 2 * (p - 1) * (2e-6 + n / p / 100e9);
    EXPECT_NEAR(seconds_of(simulate("ring", request, world.topology())), expected, near(expected))
        << p;
  }
}

// Ranks 0 and p-1 of a host send round the ring: of every p/hosts steps' messages one goes out by
// a NIC, all at once, and is the slowest; each step waits for it.
TEST(ClosedForms, RingOverHostsGoesAtThePaceOfOneNic) {
  const World world{.hosts = 4, .ranks = 4};
  const plan::Request request = request_of(Collective::all_reduce, kCount);
  const double n = static_cast<double>(plan::bytes_of(request));
  // In the end the last message can be one inside a host, so the latencies differ a little.
  const double bytes = 2 * 15 * n / 16 / 25e9;
  const double seconds = seconds_of(simulate("ring", request, world.topology()));
  EXPECT_GT(seconds, bytes);
  EXPECT_LT(seconds, bytes + 30 * 5e-6);
}

TEST(ClosedForms, HalvingDoubling) {
  for (const int p : {2, 4, 8, 16}) {
    const World world{.ranks = p};
    const plan::Request request = request_of(Collective::all_reduce, kCount);
    const double n = static_cast<double>(plan::bytes_of(request));
    const double rounds = 2 * std::log2(p);
    const double expected = rounds * 2e-6 + 2 * (p - 1) * n / p / 100e9;
    EXPECT_NEAR(seconds_of(simulate("halving_doubling", request, world.topology())), expected,
                near(expected))
        << p;
  }
}

TEST(ClosedForms, Doubling) {
  for (const int p : {2, 4, 8, 16}) {
    const World world{.ranks = p};
    const plan::Request request = request_of(Collective::all_reduce, kCount);
    const double n = static_cast<double>(plan::bytes_of(request));
    const double expected = std::log2(p) * (2e-6 + n / 100e9);
    EXPECT_NEAR(seconds_of(simulate("doubling", request, world.topology())), expected,
                near(expected))
        << p;
  }
}

// Everyone sends to everyone at once; each port carries p-1 messages.
TEST(ClosedForms, DirectAndTwoShot) {
  for (const int p : {2, 3, 5, 8}) {
    const World world{.ranks = p};
    const plan::Request request = request_of(Collective::all_reduce, 1680 * 1024);
    const double n = static_cast<double>(plan::bytes_of(request));
    const double direct = 2e-6 + (p - 1) * n / 100e9;
    EXPECT_NEAR(seconds_of(simulate("direct", request, world.topology())), direct, near(direct))
        << p;
    const double two_shot = 2 * (2e-6 + (p - 1) * n / p / 100e9);
    EXPECT_NEAR(seconds_of(simulate("two_shot", request, world.topology())), two_shot,
                near(two_shot))
        << p;
  }
}

// Three ranks, two trees with half of the data each, both of them chains: 1 - 2 - 0 with 0 at the
// top, and 2 - 0 - 1. No two messages of a step meet in a port, up or down.
TEST(ClosedForms, TreeOfThree) {
  const World world{.ranks = 3};
  const plan::Request request = request_of(Collective::all_reduce, kCount);
  const double n = static_cast<double>(plan::bytes_of(request));
  const double expected = 4 * (2e-6 + n / 2 / 100e9);
  EXPECT_NEAR(seconds_of(simulate("tree", request, world.topology())), expected, near(expected));
}

// Two ranks: each is the root of one half, and each half goes up and comes back.
TEST(ClosedForms, TreeOfTwo) {
  const World world{.ranks = 2};
  const plan::Request request = request_of(Collective::all_reduce, kCount);
  const double n = static_cast<double>(plan::bytes_of(request));
  const double expected = 2 * (2e-6 + n / 2 / 100e9);
  EXPECT_NEAR(seconds_of(simulate("tree", request, world.topology())), expected, near(expected));
}

// One chunk: exchange inside the host, a ring of four hosts (large shares) on every rail at once,
// exchange inside the host.
TEST(ClosedForms, RailOfOneChunk) {
  const World world{.hosts = 4, .ranks = 4};
  const plan::Request request = request_of(Collective::all_reduce, kCount);
  const double n = static_cast<double>(plan::bytes_of(request));
  const double inner = 2e-6 + 3 * n / 4 / 100e9;
  const double outer = 2 * 3 * (5e-6 + n / 16 / 25e9);
  const auto report = simulate("rail", request, world.topology());
  EXPECT_NEAR(seconds_of(report), 2 * inner + outer, near(2 * inner + outer));
  EXPECT_EQ(report->spine_bytes, 0u);
  for (const uint64_t bytes : report->bytes_of_rail)
    EXPECT_EQ(bytes, static_cast<uint64_t>(4 * 2 * 3 * n / 16));
}

// Two hosts of two ranks, everyone sends a block to both ranks of the other host: 0 -> 2 and 1 -> 3
// on their rails (and back), 0 -> 3 and 1 -> 2 across. Each leaf's uplinks carry two blocks across,
// and at 4:1 that is a quarter of two NICs, 12.5 GB/s: 6.25 for each. The blocks on the rails get
// what is left of their NICs, 18.75.
TEST(ClosedForms, TheSpineIsSharedOut) {
  const World world{.hosts = 2, .ranks = 2, .oversubscription = 4};
  const plan::Request request = request_of(Collective::all_to_all, 1 << 20);
  const double block = static_cast<double>(plan::bytes_of(request));
  const auto simulated = [&](bool across) {
    return simulate(
        request, world.topology(),
        [&](int rank) -> Result<plan::Program> {
          plan::Builder b(request, 4, rank, "test");
          for (const int peer : {0, 1, 2, 3}) {
            if (peer / 2 == rank / 2 || (peer % 2 != rank % 2 && !across)) continue;
            b.send(peer, b.input().block(static_cast<uint64_t>(peer), 4).slice());
          }
          for (const int peer : {0, 1, 2, 3}) {
            if (peer / 2 == rank / 2 || (peer % 2 != rank % 2 && !across)) continue;
            b.recv(peer, b.output().block(static_cast<uint64_t>(peer), 4).slice());
          }
          return std::move(b).take();
        },
        free_steps());
  };
  EXPECT_NEAR(seconds_of(simulated(false)), 5e-6 + block / 25e9, 1e-10);
  const auto report = simulated(true);
  EXPECT_NEAR(seconds_of(report), 5e-6 + block / 6.25e9, 1e-10);
  EXPECT_EQ(report->spine_bytes, static_cast<uint64_t>(4 * block));
  EXPECT_EQ(report->most_loaded()->link.kind, LinkKind::spine);
}

// A step of local work reads and writes in the rank's memory, at twice the rate of its copies.
TEST(ClosedForms, ReductionsReadTwoAndWriteOne) {
  for (const int p : {2, 4, 8}) {
    const World world{.ranks = p, .copy_bytes_per_s = 400e9};
    const plan::Request request = request_of(Collective::all_reduce, kCount);
    const double block = static_cast<double>(plan::bytes_of(request)) / p;
    const double message = 2e-6 + block / 100e9, sum = 3 * block / 800e9;
    const double expected = (p - 1) * (2 * message + sum);
    EXPECT_NEAR(seconds_of(simulate("ring", request, world.topology())), expected, near(expected))
        << p;
  }
}

// Of each round: one step to send, one to receive.
TEST(ClosedForms, StepsCostTheirOverhead) {
  const World world{.ranks = 8};
  const plan::Request request = request_of(Collective::all_reduce, 8);
  Options options;
  options.step_s = 1e-6;
  const double n = static_cast<double>(plan::bytes_of(request));
  const double expected = 14 * (2e-6 + 2e-6 + n / 8 / 100e9);
  EXPECT_NEAR(seconds_of(simulate("ring", request, world.topology(), options)), expected,
              near(expected));
}

// A chain over p ranks in k chunks: the last chunk has to wait for k-1 and then goes p-1 ways. The
// chunks are large enough that eight of them outlast a latency, so the window never fills.
TEST(ClosedForms, PipelinedBroadcast) {
  const World world{.ranks = 5};
  const plan::Request request = request_of(Collective::broadcast, 64 * 65536);
  const double chunk = 65536 * 4;
  const double expected = 4 * 2e-6 + (63 + 4) * chunk / 100e9;
  EXPECT_NEAR(seconds_of(simulate("ring", request, world.topology(), free_steps(), {1, 65536})),
              expected, near(expected));
}

}  // namespace
}  // namespace railccl::simulator
