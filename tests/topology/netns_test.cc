// Shows rails on real network stacks: three network namespaces stand for hosts, each with two veth
// interfaces on two bridges (the leaf switches) in a fourth namespace. Each host detects itself;
// merged, they form two rails, each with its subnet as the reason. A pulled cable and a missing
// interface are tried as well. Needs root; everything ends with the processes that hold it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "topology/merge.h"
#include "topology/probe.h"

namespace railccl::topology {
namespace {

/// A process in network and mount namespaces of its own. Each byte written to it makes it detect
/// its facts and answer with their text; it ends with the test.
class HostProcess {
 public:
  HostProcess() {
    int to[2], from[2];
    if (pipe(to) != 0 || pipe(from) != 0) return;
    pid_ = fork();
    if (pid_ == 0) {
      close(to[1]);
      close(from[0]);
      serve(to[0], from[1]);
    }
    close(to[0]);
    close(from[1]);
    to_ = to[1];
    from_ = from[0];
    char ready = 0;
    ready_ = read(from_, &ready, 1) == 1 && ready == 'y';
  }
  HostProcess(const HostProcess&) = delete;
  HostProcess& operator=(const HostProcess&) = delete;
  ~HostProcess() {
    close(to_);
    close(from_);
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  bool ready() const { return ready_; }
  pid_t pid() const { return pid_; }

  Facts facts() {
    uint32_t length = 0;
    EXPECT_EQ(write(to_, "d", 1), 1);
    EXPECT_EQ(read(from_, &length, sizeof length), static_cast<ssize_t>(sizeof length));
    std::string text(length, '\0');
    for (size_t got = 0; got < text.size();) {
      const ssize_t more = read(from_, text.data() + got, text.size() - got);
      if (more <= 0) break;
      got += static_cast<size_t>(more);
    }
    Result<Facts> read = decode(text);
    EXPECT_TRUE(read.is_ok()) << text;
    return read.is_ok() ? std::move(read).value() : Facts();
  }

 private:
  [[noreturn]] static void serve(int requests, int answers) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    // Sysfs shows the network namespace it was mounted in, hence the mount.
    const bool apart = unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 &&
                       mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                       mount("sysfs", "/sys", "sysfs", 0, nullptr) == 0;
    char byte = apart ? 'y' : 'n';
    bool alive = write(answers, &byte, 1) == 1 && apart;
    while (alive && read(requests, &byte, 1) == 1) {
      const Result<Facts> facts = detect(Settings());
      const std::string text = facts.is_ok() ? encode(*facts) : facts.status().text();
      const auto length = static_cast<uint32_t>(text.size());
      alive = write(answers, &length, sizeof length) == sizeof length &&
              write(answers, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    }
    _exit(0);
  }

  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  bool ready_ = false;
};

class Namespaces : public testing::Test {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "making network namespaces needs root";
    if (std::system("ip -V >/dev/null 2>&1 && nsenter -V >/dev/null 2>&1") != 0)
      GTEST_SKIP() << "needs the programs ip (iproute2) and nsenter (util-linux)";
    switches_ = std::make_unique<HostProcess>();
    if (!switches_->ready()) GTEST_SKIP() << "this machine does not allow network namespaces";
    for (int h = 0; h < 3; h++) hosts_.push_back(std::make_unique<HostProcess>());
    for (int rail = 0; rail < 2; rail++) {
      const std::string bridge = fmt::format("leaf{}", rail);
      if (!run(*switches_, "ip link add " + bridge + " type bridge"))
        GTEST_SKIP() << "this kernel has no bridges";
      ASSERT_TRUE(run(*switches_, "ip link set " + bridge + " up"));
      for (int h = 0; h < 3; h++) wire(h, rail);
    }
  }

  /// Runs `command` inside a namespace.
  static bool run(const HostProcess& where, const std::string& command) {
    return std::system(
               fmt::format("nsenter -t {} -n {} >/dev/null 2>&1", where.pid(), command).c_str()) ==
           0;
  }

  /// A cable from ethR of host h to leaf switch R, address 10.77.R.h+1/24.
  void wire(int h, int rail) {
    const HostProcess& host = *hosts_[static_cast<size_t>(h)];
    const std::string port = fmt::format("p{}h{}", rail, h), eth = fmt::format("eth{}", rail);
    if (!run(*switches_,
             fmt::format("ip link add {} type veth peer name {} netns {}", port, eth, host.pid())))
      GTEST_SKIP() << "this kernel has no veth interfaces";
    ASSERT_TRUE(run(*switches_, fmt::format("ip link set {} master leaf{} up", port, rail)));
    ASSERT_TRUE(run(host, fmt::format("ip address add 10.77.{}.{}/24 dev {}", rail, h + 1, eth)));
    ASSERT_TRUE(run(host, fmt::format("ip link set {} up", eth)));
  }

  /// Two ranks per host, as if each process detected itself.
  Topology cluster() {
    std::vector<Facts> facts;
    for (auto& host : hosts_)
      for (uint64_t r = 0; r < 2; r++) {
        facts.push_back(host->facts());
        facts.back().process += r;
      }
    return merge(facts);
  }

  std::unique_ptr<HostProcess> switches_;
  std::vector<std::unique_ptr<HostProcess>> hosts_;
};

TEST_F(Namespaces, TwoSubnetsAreTwoRails) {
  const Topology t = cluster();
  ASSERT_EQ(t.hosts().size(), 3u);
  ASSERT_EQ(t.rails().size(), 2u);
  EXPECT_EQ(t.rails()[0].reason, "subnet 10.77.0.0/24 joins eth0 of 3 hosts");
  EXPECT_EQ(t.rails()[1].reason, "subnet 10.77.1.0/24 joins eth1 of 3 hosts");
  EXPECT_GT(t.rails()[0].bytes_per_s, 0);  // veth claims 10 Gbit/s
  for (const Host& host : t.hosts()) {
    ASSERT_EQ(host.nics.size(), 2u);
    EXPECT_TRUE(host.nics[0].up && host.nics[1].up);
  }
  for (int r = 0; r < 6; r++) EXPECT_EQ(t.rank(r).rail, r % 2) << why_nic(t, r);
}

TEST_F(Namespaces, APulledCableLeavesTheRailAndMovesTheRank) {
  ASSERT_TRUE(run(*switches_, "ip link set p1h1 down"));
  const Topology t = cluster();
  ASSERT_EQ(t.rails().size(), 2u);
  EXPECT_EQ(t.rails()[1].reason, "subnet 10.77.1.0/24 joins eth1 of 3 hosts");
  EXPECT_FALSE(t.hosts()[1].nics[1].up);
  EXPECT_EQ(t.rank(3).rail, 0);  // local rank 1 of that host
  EXPECT_EQ(t.rank(1).rail, 1);
  EXPECT_EQ(t.rank(5).rail, 1);
}

TEST_F(Namespaces, AHostWithoutTheSecondInterface) {
  ASSERT_TRUE(run(*hosts_[2], "ip link delete eth1"));
  const Topology t = cluster();
  ASSERT_EQ(t.rails().size(), 2u);
  EXPECT_EQ(t.rails()[1].reason, "subnet 10.77.1.0/24 joins eth1 of 2 hosts");
  EXPECT_EQ(t.hosts()[2].nics.size(), 1u);
  EXPECT_EQ(t.rank(5).rail, 0);
}

TEST_F(Namespaces, AHostWithoutAnyNetwork) {
  ASSERT_TRUE(run(*hosts_[0], "ip link delete eth0"));
  ASSERT_TRUE(run(*hosts_[0], "ip link delete eth1"));
  const Topology t = cluster();
  ASSERT_EQ(t.rails().size(), 2u);
  EXPECT_TRUE(t.hosts()[0].nics.empty());
  EXPECT_EQ(t.rank(0).nic, -1);
}

}  // namespace
}  // namespace railccl::topology
