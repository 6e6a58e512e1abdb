// What every transport must do, over every medium and wrapper: bytes arrive in order, whole,
// exactly once, on many links in both directions at once, whatever the sizes; a slow receiver stops
// its sender at a bounded number of bytes; sleepers miss no event; abort ends all waits within a
// second; shared memory grows, stays in place and is seen by peers; forks do no harm. What else
// needs processes is in shm_test.cc and tcp_test.cc. Each medium is a row in media(): a new one is
// covered at once.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "base/owners.h"
#include "transport/faulty.h"
#include "transport/harness.h"
#include "transport/simulated.h"
#include "transport/traced.h"

namespace railccl::transport {
namespace {

constexpr int kScale = test::by_build(1, 2, 8);  // ThreadSanitizer sees every byte of the patterns

struct Medium {
  std::string name;
  int ranks = 2;
  std::function<std::unique_ptr<TestWorld>(int ranks, const RealWorld::Wrap& wrap)> make;
  RealWorld::Wrap wrap = nullptr;
};
void PrintTo(const Medium& medium, std::ostream* out) { *out << medium.name; }

class SimulatedWorld final : public TestWorld {
 public:
  SimulatedWorld(uint64_t seed, int ranks, const RealWorld::Wrap& wrap)
      : world_(seed, ranks, options(seed)) {
    for (int r = 0; r < ranks; r++) {
      transports_.push_back(world_.transport(r));
      if (wrap) transports_.back() = wrap(std::move(transports_.back()), r);
    }
  }
  int ranks() const override { return world_.ranks(); }
  Transport& at(int rank) override { return *transports_[static_cast<size_t>(rank)]; }
  bool threaded() const override { return false; }
  // Several events at once: looking at every task after each is what costs time.
  bool idle() override {
    int events = 0;
    while (events < 64 && world_.advance()) events++;
    return events > 0;
  }
  void lose_last() override {
    for (int r = 0; r + 1 < ranks(); r++) world_.lose(r, ranks() - 1);
  }

 private:
  static simulated::Options options(uint64_t seed) {
    simulated::Options drawn = simulated::Options::drawn(seed);
    drawn.shared_memory = true;
    // Links of a few bytes are for the seeds sweep; megabytes want some room.
    drawn.credit_bytes = std::max<size_t>(drawn.credit_bytes, 4096);
    drawn.segment_bytes_max = std::max<size_t>(drawn.segment_bytes_max, 1024);
    return drawn;
  }
  simulated::World world_;
  std::vector<std::unique_ptr<Transport>> transports_;
};

Settings tcp_settings(const char* family, int sockets) {
  Settings settings;
  settings.socket_ifname = "=lo";
  settings.socket_family = family;
  settings.sockets_per_path = sockets;
  return settings;
}

Settings plugin_settings(int version) {
  Settings settings;
  settings.net_plugin = fmt::format("{}/libnccl-net-example{}.so", RAILCCL_PLUGINS, version);
  return settings;
}

#ifdef RAILCCL_UCX_HEADERS
/// A world over UCX that has these transports of its own.
std::unique_ptr<TestWorld> make_ucx_world(const char* transports, Settings settings, int ranks,
                                          const RealWorld::Wrap& wrap,
                                          const RealWorld::Adapt& adapt) {
  settings.net = "UCX";
  setenv("UCX_TLS", transports, 1);
  auto world = std::make_unique<RealWorld>("ucx", ranks, settings, wrap, adapt);
  unsetenv("UCX_TLS");
  return world;
}
#endif

std::unique_ptr<Transport> make_faulty(std::unique_ptr<Transport> inner, int rank) {
  FaultOptions options;
  options.seed = static_cast<uint64_t>(rank) + 1;
  return std::make_unique<FaultyTransport>(std::move(inner), options);
}

std::unique_ptr<Transport> make_traced(std::unique_ptr<Transport> inner, int) {
  return std::make_unique<TracedTransport>(std::move(inner));
}

/// Numbers of rails to test RDMA with: none unless in the guest of tests/rdma/guest.py.
std::vector<int> rdma_rails() {
  const char* const rails = std::getenv("GUEST_RAILS");
  if (rails == nullptr || std::string(rails) == "1") return {};
  return {1, 2};
}

/// An emulated guest takes milliseconds to wake a thread, and starves beside other work.
bool emulated() {
  const char* const value = std::getenv("GUEST_EMULATED");
  return value != nullptr && std::string(value) == "1";
}

/// Ranks are on hosts of their own there, with NICs on so many rails.
void on_rdma_host(Context* context, int rails) {
  context->host_id = static_cast<uint64_t>(context->rank) + 1;
  std::string nics;
  for (int rail = 0; rail < rails; rail++)
    nics += fmt::format("{}h{}r{}", rail == 0 ? "=" : ",", context->rank, rail);
  context->settings.socket_ifname = nics;
  context->settings.ib_hca = nics;
}

std::vector<Medium> media() {
  const auto real = [](const char* kind, const Settings& settings) {
    return [=](int ranks, const RealWorld::Wrap& wrap) -> std::unique_ptr<TestWorld> {
      return std::make_unique<RealWorld>(kind, ranks, settings, wrap);
    };
  };
  const auto simulated = [](uint64_t seed) {
    return [=](int ranks, const RealWorld::Wrap& wrap) -> std::unique_ptr<TestWorld> {
      return std::make_unique<SimulatedWorld>(seed, ranks, wrap);
    };
  };
  std::vector<Medium> rows = {
      {"self", 1, real("self", {})},
      {"shm", 4, real("shm", {})},
      {"tcp4", 3, real("tcp", tcp_settings("AF_INET", 1))},
      {"tcp6", 2, real("tcp", tcp_settings("AF_INET6", 1))},
      {"tcp_4_sockets", 3, real("tcp", tcp_settings("", 4))},
      {"nccl_net_6", 3, real("nccl_net", plugin_settings(6))},
      {"simulated_1", 3, simulated(1)},
      {"simulated_2", 3, simulated(2)},
      {"simulated_3", 4, simulated(3)},
  };
  // Two devices between ranks that are on hosts of their own, which do not meet on loopback.
  if (!on_loopback_only()) {
    rows.push_back({"nccl_net_11_striped", 2, [](int ranks, const RealWorld::Wrap& wrap) {
                      return std::make_unique<RealWorld>(
                          "nccl_net", ranks, plugin_settings(11), wrap, [](Context* context) {
                            context->host_id = static_cast<uint64_t>(context->rank) + 1;
                          });
                    }});
  }
#ifdef RAILCCL_UCX_HEADERS
  rows.push_back({"ucx", 3, [](int ranks, const RealWorld::Wrap& wrap) {
                    return make_ucx_world("tcp", tcp_settings("", 1), ranks, wrap, nullptr);
                  }});
  if (!on_loopback_only()) {
    rows.push_back({"ucx_striped", 2, [](int ranks, const RealWorld::Wrap& wrap) {
                      Settings settings;
                      settings.socket_ifname = "=lo," + usable_interfaces(settings)->front().name;
                      return make_ucx_world("tcp", settings, ranks, wrap, [](Context* context) {
                        context->host_id = static_cast<uint64_t>(context->rank) + 1;
                      });
                    }});
  }
#endif
  for (const int rails : rdma_rails()) {
    rows.push_back({fmt::format("verbs_{}_rails", rails), 2,
                    [=](int ranks, const RealWorld::Wrap& wrap) -> std::unique_ptr<TestWorld> {
                      return std::make_unique<RealWorld>(
                          "verbs", ranks, Settings(), wrap,
                          [=](Context* context) { on_rdma_host(context, rails); });
                    }});
#ifdef RAILCCL_UCX_HEADERS
    rows.push_back(
        {fmt::format("ucx_rc_{}_rails", rails), 2, [=](int ranks, const RealWorld::Wrap& wrap) {
           return make_ucx_world("rc_verbs,tcp", Settings(), ranks, wrap,
                                 [=](Context* context) { on_rdma_host(context, rails); });
         }});
#endif
  }
  const std::vector<Medium> plain = rows;
  for (const Medium& row : plain) {
    rows.push_back({"faulty_" + row.name, std::min(row.ranks, 2), row.make, make_faulty});
  }
  rows.push_back({"traced_shm", 2, real("shm", {}), make_traced});
  rows.push_back({"traced_tcp", 2, real("tcp", tcp_settings("", 1)), make_traced});
  return rows;
}

class Conformance : public testing::TestWithParam<Medium> {
 protected:
  std::unique_ptr<TestWorld> make(int ranks = 0) {
    const Medium& medium = GetParam();
    return medium.make(ranks == 0 || medium.ranks == 1 ? medium.ranks : ranks, medium.wrap);
  }
  static Link* link(TestWorld& world, int from, int to, int channel) {
    Result<Link*> made = world.at(from).link(to, channel);
    EXPECT_TRUE(made.is_ok()) << made.status().text();
    return *made;
  }
  static void expect_ok(const std::vector<Status>& results) {
    for (size_t r = 0; r < results.size(); r++)
      EXPECT_TRUE(results[r].is_ok()) << "rank " << r << ": " << results[r].text();
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
  // Steps everything in this thread until nothing has moved for a while.
  static void settle(TestWorld& world, const std::vector<Task*>& tasks) {
    const int64_t quiet_ms = emulated() ? 1000 : 50;
    Deadline quiet = Deadline::after_ms(quiet_ms);
    int quiet_looks = 0;
    while (!quiet.passed()) {
      bool progressed = false;
      for (int r = 0; r < world.ranks(); r++) ASSERT_TRUE(world.at(r).progress().is_ok());
      for (Task* task : tasks) progressed |= !task->done() && task->step();
      for (Task* task : tasks) ASSERT_TRUE(task->failure().is_ok()) << task->failure().text();
      progressed |= world.idle();
      if (progressed) quiet = Deadline::after_ms(quiet_ms);
      // Virtual time has come to its end (a faulty transport may idle for a few looks before).
      quiet_looks = progressed ? 0 : quiet_looks + 1;
      if (!world.threaded() && quiet_looks > 100) return;
    }
  }
};

TEST_P(Conformance, SmallMessagesArriveInOrderOnManyChannels) {
  auto world = make();
  auto tasks = streams(*world, 8, (world->threaded() ? 20'000 : 3'000) / kScale, 200);
  expect_ok(drive_all(*world, tasks));
}

TEST_P(Conformance, LargeMessagesArriveInOrder) {
  auto world = make();
  auto tasks = streams(*world, 2, (world->threaded() ? 4 << 20 : 256 << 10) / kScale, 2 << 20);
  expect_ok(drive_all(*world, tasks));
}

TEST_P(Conformance, EightMegabytesInOneMessage) {
  auto world = make(2);
  auto tasks = streams(*world, 1, (world->threaded() ? 8 << 20 : 1 << 20) / kScale, 64 << 20);
  expect_ok(drive_all(*world, tasks));
}

TEST_P(Conformance, SizesFromOneByteUp) {
  auto world = make();
  for (const uint64_t bytes : {1ul, 2ul, 63ul, 64ul, 65ul, 4097ul, 131073ul}) {
    if (bytes > 10'000 && !world->threaded()) break;
    auto tasks = streams(*world, 1, bytes, bytes);
    expect_ok(drive_all(*world, tasks));
  }
}

// What a medium has remembered of registered memory ends with the registration, and nothing is read
// that was released.
TEST_P(Conformance, MemoryThatIsMappedAnewAtTheSameAddressIsReadAnew) {
  auto world = make(2);
  const int to = world->ranks() - 1;
  constexpr size_t kBytes = 512 << 10;
  void* address = nullptr;
  for (uint64_t round = 0; round < 3; round++) {
    Mapping memory(mmap(address, kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | (round > 0 ? MAP_FIXED : 0), -1, 0),
                   kBytes);
    address = memory.get();
    const auto registered = RegisteredMemory::add(address, kBytes);
    fill_pattern(memory.bytes(), round, 0, kBytes);
    std::vector<Tasks> tasks(static_cast<size_t>(world->ranks()));
    tasks[0].push_back(std::make_unique<SendRange>(link(*world, 0, to, 0), memory.bytes(), kBytes));
    tasks[static_cast<size_t>(to)].push_back(
        std::make_unique<ReceiveTask>(link(*world, to, 0, 0), round, kBytes, kBytes));
    expect_ok(drive_all(*world, tasks));
  }
}

// What a forked child does with its copy, which is to let go of it, does not touch the parent's.
TEST_P(Conformance, AForkedChildLetsGoOfItsParentsTransports) {
  auto world = make(2);
  auto before = streams(*world, 1, 100'000, 30'000);
  expect_ok(drive_all(*world, before));
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    world.reset();
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  auto after = streams(*world, 1, 100'000, 30'000);
  expect_ok(drive_all(*world, after));
}

// Both sides of many links ask at the same moment, in threads, over and over.
TEST_P(Conformance, BothSidesConnectAtOnce) {
  for (int round = 0; round < 10; round++) {
    auto world = make();
    const int ranks = world->ranks();
    if (!world->threaded() || ranks == 1) GTEST_SKIP() << "one thread cannot race";
    std::vector<Status> results(static_cast<size_t>(ranks));
    std::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int r = 0; r < ranks; r++) {
      threads.emplace_back([&, r] {
        Transport& transport = world->at(r);
        ready++;
        while (ready < ranks) std::this_thread::yield();
        Tasks tasks;
        for (int p = 0; p < ranks; p++) {
          for (int c = 0; c < 4 && p != r; c++) {
            Result<Link*> link = transport.link(p, (c + round) % 4);
            if (!link.is_ok()) {
              results[static_cast<size_t>(r)] = link.status();
              return;
            }
            tasks.push_back(std::make_unique<SendTask>(*link, 5, 100, 100));
            tasks.push_back(std::make_unique<ReceiveTask>(*link, 5, 100, 100));
          }
        }
        results[static_cast<size_t>(r)] = drive(transport, tasks, 20'000);
        // Nobody leaves while others still shake hands.
        ready++;
        while (ready < 2 * ranks) {
          (void)transport.progress().is_ok();
          std::this_thread::yield();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    expect_ok(results);
  }
}

TEST_P(Conformance, AnIdleReceiverStopsTheSender) {
  auto world = make(2);
  const int last = world->ranks() - 1;
  constexpr uint64_t kBytes = 256 << 20;
  SendTask send(link(*world, 0, last, 0), 3, kBytes, 1 << 20);
  link(*world, last, 0, 0);
  settle(*world, {&send});
  const uint64_t stopped_at = send.sent();
  EXPECT_GT(stopped_at, 0u);
  EXPECT_LT(stopped_at, 64u << 20) << "the sender was not stopped";
  // The receiver wakes up and gets everything that was accepted.
  ReceiveTask receive(link(*world, last, 0, 0), 3, stopped_at, 1 << 20);
  settle(*world, {&receive});
  EXPECT_TRUE(receive.done()) << receive.got() << " of " << stopped_at;
  // And the sender goes on.
  settle(*world, {&send});
  EXPECT_GT(send.sent(), stopped_at);
}

TEST_P(Conformance, PingPongAsleepLosesNoWakeUp) {
  auto world = make(2);
  if (!world->threaded() || world->ranks() == 1) GTEST_SKIP() << "nobody else to wake";
  const int rounds = 20'000 / kScale / (emulated() ? 40 : 1);
  std::vector<Status> results(2);
  std::vector<int64_t> longest(2);
  std::vector<std::thread> threads;
  for (int r = 0; r < 2; r++) {
    threads.emplace_back([&, r] {
      Transport& transport = world->at(r);
      Link* const to = link(*world, r, 1 - r, 0);
      std::byte byte{0};
      const iovec range{&byte, 1};
      for (int i = 0; i < 2 * rounds; i++) {
        while (true) {
          Result<size_t> moved = i % 2 == r ? to->send({&range, 1}) : to->receive(&byte, 1);
          Status status = moved.is_ok() ? transport.progress() : moved.status();
          if (status.is_ok()) status = to->flush().status();
          if (!status.is_ok()) {
            results[static_cast<size_t>(r)] = status;
            return;
          }
          if (*moved == 1) break;
          const int64_t before = now_ns();
          transport.wait(3'000'000);
          longest[static_cast<size_t>(r)] =
              std::max(longest[static_cast<size_t>(r)], now_ns() - before);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect_ok(results);
  for (const int64_t ns : longest) EXPECT_LT(ns, 2'900'000'000) << "a wait ran its full time";
}

// Credit is an event, too: a sender that sleeps because its peer has not read must wake when it
// does, and not only when its wait is over.
TEST_P(Conformance, ASenderAsleepWakesWhenThereIsRoom) {
  auto world = make(2);
  if (!world->threaded() || world->ranks() == 1) GTEST_SKIP() << "nobody else to wake";
  constexpr size_t kBytes = (128 << 20) / kScale;
  constexpr size_t kPiece = 1 << 20;
  const int64_t start = now_ns();
  const auto transfer = [&](int rank) -> Status {
    RAILCCL_TRY(Link* const to, world->at(rank).link(1 - rank, 0));
    std::vector<std::byte> piece(kPiece);
    int idle = 0;
    for (size_t moved = 0, rested = 0; moved < kBytes || to->released() < moved * (1 - rank);) {
      const size_t left = std::min(kBytes - moved, kPiece - moved % kPiece);
      const iovec range{piece.data(), left};
      Result<size_t> now =
          rank == 0 ? to->send({&range, left > 0 ? 1u : 0u}) : to->receive(piece.data(), left);
      if (!now.is_ok()) return now.status();
      moved += *now;
      RAILCCL_CHECK(world->at(rank).progress());
      if (rank == 0) RAILCCL_CHECK(to->flush().status());
      idle = *now == 0 ? idle + 1 : 0;
      if (idle > 1) world->at(rank).wait(10'000'000);
      if (rank == 1 && moved >= rested + kPiece) {  // by now the sender is asleep
        rested = moved;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
    return ok();
  };
  Status sent;
  std::thread sender([&] { sent = transfer(0); });
  const Status received = transfer(1);
  sender.join();
  EXPECT_TRUE(sent.is_ok()) << sent.text();
  EXPECT_TRUE(received.is_ok()) << received.text();
  EXPECT_LT(now_ns() - start, 4'000'000'000) << "the sender overslept";
}

// The peer wrote half a message and went: a caller that looks for the whole must not look for ever.
TEST_P(Conformance, HalfAMessageOfALostPeerEndsInFailure) {
  auto world = make(2);
  if (world->ranks() == 1) GTEST_SKIP() << "oneself is not lost";
  SendTask half(link(*world, 1, 0, 0), 4, 5, 5);
  Link* const from = link(*world, 0, 1, 0);
  settle(*world, {&half});
  ASSERT_TRUE(half.done());
  world->lose_last();
  const Deadline end = Deadline::after_ms(1000);
  size_t shown = 0;
  while (!end.passed()) {
    ASSERT_TRUE(world->at(0).progress().is_ok());
    Result<std::span<const std::byte>> view = from->peek(10);
    if (!view.is_ok()) {
      EXPECT_EQ(shown, 5u) << "what had arrived was not shown";
      EXPECT_EQ(view.status().scope(), Scope::link) << view.status().text();
      return;
    }
    shown = std::max(shown, view->size());
    if (view->empty()) world->at(0).wait(1000);
  }
  FAIL() << "still waiting for the other half";
}

TEST_P(Conformance, WakeEndsAWait) {
  auto world = make();
  if (!world->threaded()) GTEST_SKIP() << "virtual time does not wait";
  std::atomic<bool> stop{false};
  std::atomic<int> waits{0};
  std::thread sleeper([&] {
    while (!stop) {
      (void)world->at(0).progress().is_ok();
      if (!stop) world->at(0).wait(30'000'000);
      waits++;
    }
  });
  for (int i = 0; i < 20; i++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 3));
    world->at(0).wake();
  }
  const int64_t start = now_ns();
  stop = true;
  world->at(0).wake();
  sleeper.join();
  EXPECT_LT(now_ns() - start, 1'000'000'000);
}

TEST_P(Conformance, AbortFromAnotherThreadEndsAWaitWithinASecond) {
  auto world = make();
  if (!world->threaded()) GTEST_SKIP() << "one thread";
  Transport& transport = world->at(0);
  Link* const never = link(*world, 0, world->ranks() - 1, 0);
  Status seen;
  std::atomic<int64_t> ended_ns{0};
  std::thread waiter([&] {
    std::byte byte;
    while (true) {
      Result<size_t> got = never->receive(&byte, 1);
      if (!got.is_ok()) {
        seen = got.status();
        break;
      }
      if (seen = transport.progress(); !seen.is_ok()) break;
      transport.wait(30'000'000);
    }
    ended_ns = now_ns();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const int64_t start = now_ns();
  transport.abort(Status(Code::aborted, Scope::communicator, "the user had enough"));
  waiter.join();
  EXPECT_LT(ended_ns - start, 1'000'000'000);
  EXPECT_EQ(seen.code(), Code::aborted);
  EXPECT_NE(seen.text().find("the user had enough"), std::string::npos) << seen.text();
  // Everything fails from now on.
  EXPECT_FALSE(never->peek(1).is_ok());
  EXPECT_FALSE(never->flush().is_ok());
  std::byte byte{1};
  const iovec range{&byte, 1};
  EXPECT_FALSE(never->send({&range, 1}).is_ok());
  EXPECT_FALSE(transport.progress().is_ok());
}

TEST_P(Conformance, SharedMemoryGrowsInPlaceAndPeersSeeIt) {
  auto world = make();
  const int ranks = world->ranks();
  if (!world->at(0).capabilities().load_store) {
    EXPECT_EQ(world->at(0).shared_memory(10).status().code(), Code::unsupported);
    EXPECT_EQ(world->at(0).peer_memory(0, 10).status().code(), Code::unsupported);
    return;
  }
  std::byte* first = nullptr;
  for (size_t bytes = 100; bytes < 100'000'000; bytes *= 10) {
    for (int p = 0; p < ranks; p++) {
      Result<std::byte*> early = world->at(p).peer_memory(0, bytes);
      ASSERT_TRUE(early.is_ok()) << early.status().text();
      if (bytes > 1'000'000) {
        EXPECT_EQ(*early, nullptr) << "seen before it was there";
      }
    }
    Result<std::byte*> mine = world->at(0).shared_memory(bytes);
    ASSERT_TRUE(mine.is_ok()) << mine.status().text();
    if (first == nullptr) first = *mine;
    EXPECT_EQ(*mine, first);
    (*mine)[bytes - 1] = std::byte{42};
    (*mine)[0] = std::byte{17};
    for (int p = 0; p < ranks; p++) {
      Result<std::byte*> theirs = world->at(p).peer_memory(0, bytes);
      ASSERT_TRUE(theirs.is_ok()) << theirs.status().text();
      ASSERT_NE(*theirs, nullptr);
      EXPECT_EQ((*theirs)[bytes - 1], std::byte{42});
      EXPECT_EQ((*theirs)[0], std::byte{17});
    }
  }
  // A smaller wish changes nothing; an absurd one is refused.
  EXPECT_EQ(*world->at(0).shared_memory(1), first);
  EXPECT_FALSE(world->at(0).shared_memory(size_t{1} << 46).is_ok());
}

TEST_P(Conformance, LinksThatCannotBeAreRefused) {
  auto world = make();
  Transport& transport = world->at(0);
  EXPECT_FALSE(transport.link(-1, 0).is_ok());
  EXPECT_FALSE(transport.link(world->ranks(), 0).is_ok());
  EXPECT_FALSE(transport.link(world->ranks() - 1, -1).is_ok());
  EXPECT_FALSE(transport.reaches(-1));
  EXPECT_FALSE(transport.reaches(world->ranks()));
  EXPECT_TRUE(transport.reaches(world->ranks() - 1));
  EXPECT_EQ(transport.reaches(0), world->ranks() == 1);
  // The same link again is the same object, and says who it leads to.
  Link* const made = link(*world, 0, world->ranks() - 1, 3);
  EXPECT_EQ(made, link(*world, 0, world->ranks() - 1, 3));
  EXPECT_NE(made->name().find(fmt::format("to rank {}", world->ranks() - 1)), std::string::npos);
  EXPECT_NE(made->name().find("channel 3"), std::string::npos) << made->name();
}

INSTANTIATE_TEST_SUITE_P(Media, Conformance, testing::ValuesIn(media()),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace railccl::transport
