// What every transport must do, over every medium and wrapper: bytes arrive in order, whole,
// exactly once, on many links in both directions at once, whatever the sizes; a slow receiver stops
// its sender at a bounded number of bytes; sleepers miss no event; abort and the loss of a peer end
// all waits within a second; shared memory grows, stays in place and is seen by peers.
#include "transport/harness.h"

namespace railccl::transport {
namespace {

struct Medium {
  std::string name;
  int ranks = 2;
  std::function<std::unique_ptr<TestWorld>(int ranks)> make;
};

std::unique_ptr<TestWorld> real(const std::string& kind, int ranks, const Settings& settings = {},
                                RealWorld::Wrap wrap = nullptr) {
  return std::make_unique<RealWorld>(kind, ranks, settings, std::move(wrap));
}

Settings tcp_settings(const char* family, int sockets) {
  Settings settings;
  settings.socket_ifname = "=lo";
  settings.socket_family = family;
  settings.sockets_per_path = sockets;
  return settings;
}

std::vector<Medium> media() {
  return {
      {"tcp4", 3, [](int ranks) { return real("tcp", ranks, tcp_settings("AF_INET", 1)); }},
      {"tcp6", 2, [](int ranks) { return real("tcp", ranks, tcp_settings("AF_INET6", 1)); }},
      {"tcp_4_sockets", 3, [](int ranks) { return real("tcp", ranks, tcp_settings("", 4)); }},
      {"self", 1, [](int ranks) { return real("self", ranks); }},
      {"shm", 4, [](int ranks) { return real("shm", ranks); }},
  };
}

class Conformance : public testing::TestWithParam<Medium> {
 protected:
  std::unique_ptr<TestWorld> make() { return GetParam().make(GetParam().ranks); }
  static Link* link(TestWorld& world, int from, int to, int channel) {
    Result<Link*> made = world.at(from).link(to, channel);
    EXPECT_TRUE(made.is_ok()) << made.status().text();
    return *made;
  }
  // Streams between all pairs (a lone rank: with itself) on `channels` channels.
  static std::vector<Tasks> streams(TestWorld& world, int channels, uint64_t bytes,
                                    size_t message_max) {
    const int ranks = world.ranks();
    std::vector<Tasks> tasks(static_cast<size_t>(ranks));
    for (int a = 0; a < ranks; a++) {
      for (int b = 0; b < ranks; b++) {
        if (a == b && ranks > 1) continue;
        for (int c = 0; c < channels; c++) {
          const auto seed = static_cast<uint64_t>((a * 64 + b) * 64 + c);
          tasks[static_cast<size_t>(a)].push_back(
              std::make_unique<SendTask>(link(world, a, b, c), seed, bytes, message_max));
          tasks[static_cast<size_t>(b)].push_back(
              std::make_unique<ReceiveTask>(link(world, b, a, c), seed, bytes, message_max));
        }
      }
    }
    return tasks;
  }
  static void expect_ok(const std::vector<Status>& results) {
    for (size_t r = 0; r < results.size(); r++)
      EXPECT_TRUE(results[r].is_ok()) << "rank " << r << ": " << results[r].text();
  }
};

TEST_P(Conformance, SmallMessagesArriveInOrderOnManyChannels) {
  auto world = make();
  auto tasks = streams(*world, 8, 20'000, 200);
  expect_ok(drive_all(*world, tasks));
}

TEST_P(Conformance, LargeMessagesArriveInOrder) {
  auto world = make();
  auto tasks = streams(*world, 2, 6 << 20, 8 << 20);
  expect_ok(drive_all(*world, tasks));
}

TEST_P(Conformance, SizesFromOneByteToMegabytes) {
  auto world = make();
  for (const uint64_t bytes : {1ul, 2ul, 63ul, 64ul, 65ul, 4097ul, 1048577ul}) {
    auto tasks = streams(*world, 1, bytes, bytes);
    expect_ok(drive_all(*world, tasks));
  }
}

INSTANTIATE_TEST_SUITE_P(Media, Conformance, testing::ValuesIn(media()),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace railccl::transport
