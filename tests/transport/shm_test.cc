// Shared memory between processes: what threads cannot show. Ranks are forked children that
// exchange addresses over pipes; the parent collects exit codes. Shown: streams between processes,
// scratch growth and visibility, peers without use left alone, sleepers that are woken by another
// process, death (kill -9) and goodbye noticed in time, strangers turned away, small limits refused
// politely, no dependence on /dev/shm, nothing left behind.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <csignal>
#include <filesystem>

#include "transport/processes.h"
#include "transport/shm_handshake.h"

namespace railccl::transport {
namespace {

using std::chrono::milliseconds;

TEST(ShmProcesses, StreamsInBothDirections) {
  const auto results = run_processes("shm", 3, {}, [](Transport& transport, int rank, int ranks) {
    Tasks tasks;
    for (int peer = 0; peer < ranks; peer++) {
      if (peer == rank) continue;
      for (int channel = 0; channel < 2; channel++) {
        Result<Link*> link = transport.link(peer, channel);
        if (!link.is_ok()) return 2;
        const auto seed = [&](int from, int to) {
          return static_cast<uint64_t>(from * 100 + to * 10 + channel);
        };
        tasks.push_back(std::make_unique<SendTask>(*link, seed(rank, peer), 3 << 20, 1 << 20));
        tasks.push_back(std::make_unique<ReceiveTask>(*link, seed(peer, rank), 3 << 20, 1 << 20));
      }
    }
    return report(drive(transport, tasks, 30'000));
  });
  for (const int code : results) EXPECT_EQ(code, 0);
}

TEST(ShmProcesses, PingPongAsleepLosesNoWakeUp) {
  const auto results = run_processes("shm", 2, {}, [](Transport& transport, int rank, int) {
    return ping_pong(transport, rank, 20'000);
  });
  for (const int code : results) EXPECT_EQ(code, 0);
}

TEST(ShmProcesses, ScratchGrowsInPlaceAndIsSeen) {
  const auto results = run_processes("shm", 2, {}, [](Transport& transport, int rank, int) {
    std::byte* first = nullptr;
    for (size_t bytes = 1000; bytes < (96u << 20); bytes *= 8) {
      Result<std::byte*> mine = transport.shared_memory(bytes);
      if (!mine.is_ok()) return report(mine.status());
      if (first == nullptr) first = *mine;
      if (*mine != first) return 3;
      (*mine)[bytes - 1] = static_cast<std::byte>(rank + 1);
      std::byte* theirs = nullptr;
      const Deadline deadline = Deadline::after_ms(10'000);
      while (theirs == nullptr) {
        Result<std::byte*> memory = transport.peer_memory(1 - rank, bytes);
        if (!memory.is_ok()) return report(memory.status());
        theirs = *memory;
        if (Status status = transport.progress(); !status.is_ok()) return report(status);
        if (deadline.passed()) return 4;
      }
      const auto* last = reinterpret_cast<volatile unsigned char*>(theirs + bytes - 1);
      while (*last != 2 - rank)
        if (deadline.passed()) return 5;
    }
    return 0;
  });
  for (const int code : results) EXPECT_EQ(code, 0);
}

int open_descriptors() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    count++;
  return count;
}

// Ranks 0 and 1 talk; 2 and 3 are there and looked after, but nobody has use for them.
TEST(ShmProcesses, PeersThatNobodyTalksToAreNotConnected) {
  const auto results = run_processes("shm", 4, {}, [](Transport& transport, int rank, int) {
    const int before = open_descriptors();
    const auto look_around = [&] {
      for (int i = 0; i < 20; i++) {
        transport.wait(5'000);
        if (!transport.progress().is_ok()) return false;
      }
      return true;
    };
    if (!look_around()) return 2;
    // Rank 1 may have heard from rank 0 by now.
    if (rank != 1 && open_descriptors() != before) return 3;
    if (rank >= 2) {
      usleep(300'000);
      return !look_around() ? 2 : open_descriptors() != before ? 4 : 0;
    }
    if (const int code = ping_pong(transport, rank, 100); code != 0) return code;
    // A socket and the two files of the peer's segment.
    return open_descriptors() == before + 3 ? 0 : 5;
  });
  for (const int code : results) EXPECT_EQ(code, 0);
}

// Rank 0 waits for rank 1, which is killed; the Status must name it and come within a second.
TEST(ShmProcesses, KilledPeerIsNoticedWithinASecond) {
  const auto results = run_processes("shm", 2, {}, [](Transport& transport, int rank, int) {
    return outlive_killed_peer(transport, rank, "died");
  });
  EXPECT_EQ(results[0], 0);
  EXPECT_EQ(results[1], 128 + SIGKILL);
}

TEST(ShmProcesses, BytesOfAPeerThatLeftAreStillGood) {
  const auto results = run_processes("shm", 2, {}, [](Transport& transport, int rank, int) {
    return read_after_goodbye(transport, rank, "left");
  });
  for (const int code : results) EXPECT_EQ(code, 0);
}

TEST(Shm, StrangersAreTurnedAwayAndDoNoHarm) {
  Settings settings;
  const Context context = context_of(1, 2, 4711, 1, settings);
  auto made = kind_of("shm").create(context);
  ASSERT_TRUE(made.is_ok()) << made.status().text();
  Transport& transport = **made;
  // Rank 0 is of another process, which never comes; strangers come instead.
  const ShmKey absent{1, 2};
  ASSERT_TRUE(
      transport.set_peers({{encode_shm_address(absent), transport.address()}, {77, 77}, {2, 1}, {}})
          .is_ok());
  const auto key = decode_shm_address(transport.address());
  ASSERT_TRUE(key.has_value());
  auto other = ShmSegment::create({4711, 0, 2});
  ASSERT_TRUE(other.is_ok());
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 100; i++) {
    auto socket = shm_connect(*key);
    ASSERT_TRUE(socket.is_ok());
    const std::string garbage(static_cast<size_t>(i * 100), 'x');
    if (i % 3 == 0) {
      ASSERT_TRUE(shm_send_hello(socket->get(), 666, 0, 1, **other).is_ok());
    }
    if (i % 3 == 1) (void)!::write(socket->get(), garbage.data(), garbage.size());
    sockets.push_back(std::move(*socket));
    usleep(600);
    EXPECT_TRUE(transport.progress().is_ok());
  }
  Result<Link*> link = transport.link(0, 0);
  ASSERT_TRUE(link.is_ok());
  EXPECT_EQ((*link)->peek(1)->size(), 0u);
  std::byte byte{42};
  const iovec range{&byte, 1};
  EXPECT_EQ(*(*link)->send({&range, 1}), 0u) << "a stranger was taken for rank 0";
  // The true rank 0 is still welcome.
  auto socket = shm_connect(*key);
  ASSERT_TRUE(socket.is_ok());
  ASSERT_TRUE(shm_send_hello(socket->get(), 4711, 0, 1, **other).is_ok());
  const Deadline deadline = Deadline::after_ms(5'900);
  size_t sent = 0;
  while (sent == 0 && !deadline.passed()) {
    EXPECT_TRUE(transport.progress().is_ok());
    Result<size_t> accepted = (*link)->send({&range, 1});
    ASSERT_TRUE(accepted.is_ok()) << accepted.status().text();
    sent = *accepted;
    usleep(1000);
  }
  EXPECT_EQ(sent, 1u);
}

TEST(Shm, MalformedAddressNamesTheRank) {
  Settings settings;
  auto made = kind_of("shm").create(context_of(0, 2, 1, 1, settings));
  ASSERT_TRUE(made.is_ok());
  for (const std::string& bad :
       {std::string("x"), std::string(20, '\0'), std::string(1 << 20, 'y')}) {
    const Status status = (*made)->set_peers({{(*made)->address(), bad}, {77, 77}, {1, 2}, {}});
    ASSERT_FALSE(status.is_ok());
    EXPECT_NE(status.text().find("rank 1"), std::string::npos) << status.text();
  }
}

// In a child, because limits and mounts cannot be taken back.
int in_child(const std::function<int()>& body) {
  const pid_t pid = fork();
  if (pid == 0) _exit(body());
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(Shm, SmallLimitsAreRefusedPolitely) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the undefined-behaviour sanitizer's type check needs a descriptor of its own";
#endif
  for (const auto resource : {RLIMIT_NOFILE, RLIMIT_FSIZE}) {
    EXPECT_EQ(in_child([&] {
                const rlimit limit{resource == RLIMIT_NOFILE ? 4u : 1u << 20,
                                   resource == RLIMIT_NOFILE ? 4u : 1u << 20};
                setrlimit(resource, &limit);
                Settings settings;
                const Context context = context_of(0, 2, 1, 1, settings);
                const Status status = kind_of("shm").usable(context);
                if (status.is_ok()) return 1;
                return status.text().find("shm") != std::string::npos ? 0 : 2;
              }),
              0);
  }
}

TEST(Shm, ALimitOnFileSizeLimitsScratchOnly) {
  EXPECT_EQ(in_child([] {
              const rlimit limit{1u << 30, 1u << 30};
              setrlimit(RLIMIT_FSIZE, &limit);
              Settings settings;
              auto made = kind_of("shm").create(context_of(0, 2, 1, 1, settings));
              if (!made.is_ok()) return report(made.status());
              if (!(*made)->shared_memory(1 << 20).is_ok()) return 2;
              return (*made)->shared_memory(size_t{2} << 30).is_ok() ? 3 : 0;
            }),
            0);
}

TEST(Shm, DevShmOf64MegabytesDoesNotMatter) {
  const int code = in_child([] {
    if (unshare(CLONE_NEWNS) != 0) return 77;  // not root
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return 77;
    if (mount("tmpfs", "/dev/shm", "tmpfs", 0, "size=64m") != 0) return 77;
    Settings settings;
    auto made = kind_of("shm").create(context_of(0, 2, 1, 1, settings));
    if (!made.is_ok()) return report(made.status());
    constexpr size_t kBytes = 200 << 20;
    Result<std::byte*> memory = (*made)->shared_memory(kBytes);
    if (!memory.is_ok()) return report(memory.status());
    std::memset(*memory, 1, kBytes);
    return 0;
  });
  if (code == 77) GTEST_SKIP() << "needs root to mount a small /dev/shm";
  EXPECT_EQ(code, 0);
}

}  // namespace
}  // namespace railccl::transport
