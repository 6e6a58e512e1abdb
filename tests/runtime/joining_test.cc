// Shows that many ranks meet at a bounded price: messages for each rank that grow with the
// logarithm of their number, time, and memory for peers that nobody talks to; and that what one
// rank says of a host serves all its ranks.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
#include <malloc.h>
#endif

#include "ranks.h"
#include "runtime/member.h"

namespace railccl::test {
namespace {

/// Communicators of all ranks, which are threads while they join.
std::vector<CommunicatorPtr> join_all(int ranks) {
  const Settings settings = settings_with();
  std::vector<CommunicatorPtr> communicators(static_cast<size_t>(ranks));
  auto id = runtime::make_unique_id(settings);
  EXPECT_TRUE(id.is_ok()) << id.status().text();
  on_threads(ranks, [&](int r) {
    auto joined = Communicator::join(*id, r, ranks, {}, settings);
    ASSERT_TRUE(joined.is_ok()) << joined.status().text();
    communicators[static_cast<size_t>(r)] = std::move(joined).value();
  });
  return communicators;
}

/// Leaving takes all ranks.
void leave(std::vector<CommunicatorPtr>& communicators) {
  on_threads(static_cast<int>(communicators.size()),
             [&](int r) { communicators[static_cast<size_t>(r)].reset(); });
}

TEST(Joining, MessagesPerRankGrowWithTheLogarithm) {
  for (const int ranks : {2, 16, 64}) {
    auto communicators = join_all(ranks);
    uint64_t sent = 0, received = 0, most = 0;
    // The last introductions are still on their way when join() returns.
    const Deadline deadline = Deadline::after_ms(20'000);
    do {
      sent = received = most = 0;
      for (const CommunicatorPtr& communicator : communicators) {
        const auto joining = communicator->joining();
        ASSERT_TRUE(joining.is_ok()) << joining.status().text();
        EXPECT_GT(joining->seconds, 0);
        sent += joining->traffic.sent;
        received += joining->traffic.received;
        most = std::max(most, joining->traffic.sent + joining->traffic.received);
      }
    } while (sent != received && !deadline.passed());
    // Every message has two ends, be it that the root, who answers once for each that it hears, has
    // the other one.
    EXPECT_EQ(sent, received) << ranks << " ranks";
    const auto rounds = static_cast<uint64_t>(std::bit_width(static_cast<unsigned>(ranks - 1)));
    // Both ends count here: a message that is received costs as much.
    EXPECT_LE(most, 10 * rounds) << ranks << " ranks";
    // Each rank needs a hello, a knock, two exchanges and an introduction at the least.
    EXPECT_GE(sent, 5 * static_cast<uint64_t>(ranks) - 4) << ranks << " ranks";
    leave(communicators);
  }
}

TEST(Joining, ManyRanksMeetInTime) {
  const int64_t start = now_ns();
  auto communicators = join_all(64);
  // A tenth of a second on two idle cores. The bound is for sanitizers on crowded machines; it
  // catches what waits, or grows with the square of the ranks and more than microseconds at a time.
  EXPECT_LT(now_ns() - start, 20'000'000'000);
  leave(communicators);
}

TEST(Joining, IdlePeersTakeLittleMemory) {
#if !defined(__GLIBC__) || !__GLIBC_PREREQ(2, 33) || defined(__SANITIZE_ADDRESS__) || \
    defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "needs the figures of glibc's own malloc";
#else
  // Bytes in use for one rank, once `ranks` have joined.
  const auto bytes_per_rank = [](int ranks) {
    const size_t before = mallinfo2().uordblks;
    auto communicators = join_all(ranks);
    const size_t after = mallinfo2().uordblks;
    leave(communicators);
    return (static_cast<double>(after) - static_cast<double>(before)) / ranks;
  };
  (void)bytes_per_rank(4);  // what a process makes once
  const double few = bytes_per_rank(16), many = bytes_per_rank(64);
  EXPECT_GT(many, few);
  EXPECT_LE((many - few) / 48, 4096);
#endif
}

TEST(Joining, OneRankDescribesItsHostForAll) {
  constexpr int kRanks = 6;
  const auto id = runtime::make_unique_id(settings_with());
  ASSERT_TRUE(id.is_ok()) << id.status().text();
  std::vector<runtime::Parts> parts(kRanks);
  on_threads(kRanks, [&](int r) {
    const bool even = r % 2 == 0;
    const Settings settings = settings_with({even ? "NCCL_HOSTID=even" : "NCCL_HOSTID=odd"});
    auto meeting = runtime::Meeting::join(*id, r, kRanks, settings, nullptr);
    ASSERT_TRUE(meeting.is_ok()) << meeting.status().text();
    EXPECT_EQ((*meeting)->first_of_host(), r < 2);
    auto made = runtime::establish(std::move(meeting).value(), {}, settings, nullptr, [] {});
    ASSERT_TRUE(made.is_ok()) << made.status().text();
    parts[static_cast<size_t>(r)] = std::move(made).value();
  });
  for (const runtime::Parts& one : parts) {
    ASSERT_EQ(one.topology.hosts().size(), 2u);
    EXPECT_EQ(one.topology, parts[0].topology);
    for (int r = 0; r < kRanks; r++) {
      EXPECT_EQ(one.topology.rank(r).host, r % 2);
      EXPECT_FALSE(one.topology.host_of(r).name.empty());
      EXPECT_GE(one.topology.host_of(r).numas.size(), 1u);
      // All run where rank 0 runs.
      EXPECT_EQ(one.topology.rank(r).numa, one.topology.rank(0).numa);
      EXPECT_EQ(one.topology.rank(r).cache, one.topology.rank(0).cache);
    }
  }
  for (const runtime::Parts& one : parts)
    if (one.control != nullptr) one.control->leave();
}

}  // namespace
}  // namespace railccl::test
