// Shows that the host id is stable, follows NCCL_HOSTID and tells network namespaces apart, and
// that a forked child is another process on the same host. Forks; namespaces when allowed.
#include "base/host_id.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <set>
#include <thread>

namespace railccl {
namespace {

/// Host id and process id as a forked child sees them, after `prepare`; zeros if that fails.
template <typename Prepare>
std::array<uint64_t, 2> in_child(Prepare prepare) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    std::array<uint64_t, 2> ids = {0, 0};
    if (prepare()) ids = {host_id(Settings()), process_id()};
    _exit(write(ends[1], ids.data(), sizeof ids) == sizeof ids ? 0 : 1);
  }
  close(ends[1]);
  std::array<uint64_t, 2> ids = {0, 0};
  EXPECT_EQ(read(ends[0], ids.data(), sizeof ids), static_cast<ssize_t>(sizeof ids));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return ids;
}

TEST(HostId, IsStable) {
  EXPECT_NE(host_id(Settings()), 0u);
  EXPECT_EQ(host_id(Settings()), host_id(Settings()));
}

TEST(HostId, FollowsTheSetting) {
  Settings a, b;
  a.host_id = "a";
  b.host_id = "b";
  EXPECT_NE(host_id(a), host_id(b));
  EXPECT_NE(host_id(a), host_id(Settings()));
  b.host_id = "a";
  EXPECT_EQ(host_id(a), host_id(b));
}

TEST(HostId, MachinesAreTheSameForTheSameCores) {
  EXPECT_EQ(machine_id("0-3"), machine_id("0-3"));
  EXPECT_NE(machine_id("0-3"), machine_id("4-7"));
  EXPECT_NE(machine_id("0-3"), 0u);
}

TEST(HostId, AForkedChildIsAnotherProcessOnTheSameHost) {
  const std::array<uint64_t, 2> child = in_child([] { return true; });
  EXPECT_EQ(child[0], host_id(Settings()));
  EXPECT_NE(child[1], process_id());
  EXPECT_NE(child[1], 0u);
}

TEST(HostId, ChildrenStartedInTheSameTickDiffer) {
  std::set<uint64_t> ids;  // the clock of start times ticks every 10 ms only
  for (int i = 0; i < 20; i++) ids.insert(in_child([] { return true; })[1]);
  EXPECT_EQ(ids.size(), 20u);
}

TEST(HostId, ThreadsShareTheProcess) {
  uint64_t other = 0;
  std::thread([&] { other = process_id(); }).join();
  EXPECT_EQ(other, process_id());
}

TEST(HostId, AnotherNetworkNamespaceIsAnotherHost) {
  const std::array<uint64_t, 2> child = in_child([] { return unshare(CLONE_NEWNET) == 0; });
  if (child[0] == 0) GTEST_SKIP() << "making a network namespace needs root";
  EXPECT_NE(child[0], host_id(Settings()));
}

}  // namespace
}  // namespace railccl
