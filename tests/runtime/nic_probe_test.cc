// Shows that a host's end of the probe measures what answers, ends in time when nothing does, and
// takes nothing from strangers or for another round. Two or three probes on loopback addresses, as
// threads.
#include "runtime/nic_probe.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <thread>

#include "base/clock.h"
#include "runtime/pack.h"

namespace railccl::test {
namespace {

using runtime::NicProbe;
using transport::TcpEndpoint;

constexpr uint64_t kJob = 4711;

TcpEndpoint endpoint(const std::string& address) {
  return {std::move(parse_address(address)).value(), "lo"};
}

std::unique_ptr<NicProbe> probe_at(const std::string& address) {
  auto probe = NicProbe::open(kJob, {endpoint(address)});
  EXPECT_TRUE(probe.is_ok()) << probe.status().text();
  return std::move(probe).value();
}

int64_t elapsed_ms(int64_t since_ns) { return (now_ns() - since_ns) / 1'000'000; }

TEST(NicProbe, MeasuresRoundTripsAndWhatArrives) {
  const auto a = probe_at("127.0.0.2/8"), b = probe_at("127.0.0.3/8");
  const NicProbe::Target there = {7, endpoint("127.0.0.2/8"), endpoint("127.0.0.3/8"), b->port()};
  const NicProbe::Target back = {9, endpoint("127.0.0.3/8"), endpoint("127.0.0.2/8"), a->port()};
  NicProbe::Values trips_a, trips_b;
  std::thread other([&] { trips_b = b->round_trips({back}, 100); });
  trips_a = a->round_trips({there}, 100);
  other.join();
  ASSERT_EQ(trips_a.size(), 1u);
  EXPECT_GT(trips_a.at(7), 1e-7);
  EXPECT_LT(trips_a.at(7), 0.1);
  ASSERT_EQ(trips_b.size(), 1u);
  EXPECT_EQ(trips_b.count(9), 1u);

  // Two rounds, so that leftovers of one would show in the next; the second is bounded in bytes.
  for (uint64_t round = 1; round <= 2; round++) {
    const uint64_t bytes_max = round == 1 ? uint64_t{1} << 40 : 0;
    const uint64_t sent_before = a->bytes_sent();
    a->connect(round, {there}, 1000);
    b->connect(round, {}, 0);
    NicProbe::Values arrived;
    std::thread sender([&] { EXPECT_TRUE(a->send_and_count(60, bytes_max).empty()); });
    arrived = b->send_and_count(60, bytes_max);
    sender.join();
    ASSERT_EQ(arrived.size(), 1u) << round;
    if (round == 1) {
      EXPECT_GT(arrived.at(7), 1e5);
      EXPECT_GT(a->bytes_sent(), sent_before);
    } else {
      EXPECT_EQ(arrived.at(7), 0);
      EXPECT_EQ(a->bytes_sent(), sent_before);
    }
  }
}

TEST(NicProbe, EndsInTimeWhereNobodyAnswers) {
  const auto probe = probe_at("127.0.0.2/8");
  std::vector<NicProbe::Target> dead;
  {
    const auto gone = probe_at("127.0.0.3/8");
    dead.push_back({1, endpoint("127.0.0.2/8"), endpoint("127.0.0.3/8"), gone->port()});
  }
  dead.push_back({2, endpoint("192.0.2.1/24"), endpoint("127.0.0.3/8"), 1});  // not ours
  // Listens, but never accepts nor answers.
  auto deaf = transport::tcp_listen({endpoint("127.0.0.4/8")});
  ASSERT_TRUE(deaf.is_ok());
  dead.push_back({3, endpoint("127.0.0.2/8"), endpoint("127.0.0.4/8"), deaf->port});
  const int64_t start_ns = now_ns();
  EXPECT_TRUE(probe->round_trips(dead, 50).empty());
  probe->connect(1, dead, 50);
  EXPECT_TRUE(probe->send_and_count(50, 1 << 20).empty());
  EXPECT_LT(elapsed_ms(start_ns), 2000);
}

TEST(NicProbe, StrangersAndOtherRoundsDoNotCount) {
  const auto probe = probe_at("127.0.0.2/8");
  const auto call = [&](uint64_t magic, uint64_t job, uint64_t round) {
    auto socket = transport::tcp_connect({endpoint("127.0.0.3/8"), endpoint("127.0.0.2/8"), false},
                                         probe->port(), 1000);
    EXPECT_TRUE(socket.is_ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    const std::string text =
        std::move(runtime::Packer().add(magic).add(job).add(round).add(uint64_t{5})).take();
    EXPECT_EQ(send(socket->get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
    return std::move(socket).value();
  };
  constexpr uint64_t kMagic = 0x65626f7270636372;
  std::vector<UniqueFd> callers;
  callers.push_back(call(kMagic + 1, kJob, 2));
  callers.push_back(call(kMagic, kJob + 1, 2));
  callers.push_back(call(kMagic, kJob, 1));  // late
  callers.push_back(call(kMagic, kJob, 3));  // early: kept for its own round
  probe->connect(2, {}, 20);
  EXPECT_TRUE(probe->send_and_count(60, 0).empty());
  probe->connect(3, {}, 20);
  const NicProbe::Values early = probe->send_and_count(60, 0);
  ASSERT_EQ(early.size(), 1u);
  EXPECT_EQ(early.begin()->first, 5u);
}

}  // namespace
}  // namespace railccl::test
