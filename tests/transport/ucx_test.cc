// UCX as a transport: which devices belong to which path; that it is used only where it is asked
// for; links between processes over its TCP and its shared memory; that paths end with the process
// at the far end, and that one which UCX loses is replaced by the other. What all transports must
// do is conformance_test.cc.
#include <gmock/gmock.h>
#include <netinet/in.h>

#include <filesystem>
#include <fstream>

#include "transport/net_wire.h"
#include "transport/processes.h"
#include "transport/ucx_devices.h"
#ifdef RAILCCL_UCX_HEADERS
#include "transport/ucx_net.h"
#endif

namespace railccl::transport {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<UcxDevices> rows_of(const Settings& settings, const std::vector<UcxPort>& ports) {
  auto rows = ucx_devices(settings, {"eth1", "eth0", "eth1"}, ports);
  EXPECT_TRUE(rows.is_ok());
  return rows.is_ok() ? *rows : std::vector<UcxDevices>();
}

TEST(UcxDevices, EachInterfaceHasItsPorts) {
  Settings settings;
  EXPECT_THAT(rows_of(settings, {}),
              ElementsAre(UcxDevices{"eth1", "eth1"}, UcxDevices{"eth0", "eth0"}));
  const std::vector<UcxPort> ports = {
      {"mlx5_0", 1, "eth0"}, {"mlx5_1", 1, "eth1"}, {"mlx5_1", 2, "eth1"}};
  EXPECT_THAT(rows_of(settings, ports), ElementsAre(UcxDevices{"eth1", "eth1,mlx5_1:1,mlx5_1:2"},
                                                    UcxDevices{"eth0", "eth0,mlx5_0:1"}));
  // A slow interface beside fast ones is for meeting only.
  const std::vector<UcxPort> elsewhere = {{"mlx5_0", 1, ""}, {"mlx5_1", 1, "ib0"}};
  EXPECT_THAT(rows_of(settings, elsewhere),
              ElementsAre(UcxDevices{"mlx5_0", "mlx5_0:1"}, UcxDevices{"ib0", "mlx5_1:1"}));
}

TEST(UcxDevices, TheUserSaysWhich) {
  const std::vector<UcxPort> ports = {{"mlx5_0", 1, "eth0"}, {"mlx5_1", 1, "eth1"}};
  Settings settings;
  settings.ib_hca = "=mlx5_1";
  EXPECT_THAT(rows_of(settings, ports), ElementsAre(UcxDevices{"eth1", "eth1,mlx5_1:1"}));
  settings.ib_disable = true;
  EXPECT_THAT(rows_of(settings, ports),
              ElementsAre(UcxDevices{"eth1", "eth1"}, UcxDevices{"eth0", "eth0"}));
  settings.ucx_net_devices = "mlx5_1:1,eth7";
  EXPECT_THAT(rows_of(settings, ports), ElementsAre(UcxDevices{"mlx5_1", "mlx5_1:1,eth7"}));
  settings.ucx_net_devices = "all";
  EXPECT_EQ(rows_of(settings, ports).size(), 2u);
  settings.ib_hca = "^";
  EXPECT_FALSE(ucx_devices(settings, {"eth0"}, ports).is_ok());
}

TEST(UcxDevices, PortsAreThoseThatSysfsCallsActive) {
  std::string root = testing::TempDir() + "ucx.XXXXXX";
  ASSERT_NE(mkdtemp(root.data()), nullptr);
  const auto write = [&](const std::string& file, const std::string& text) {
    const std::filesystem::path path = root + "/sys/class/infiniband/" + file;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  };
  write("mlx5_1/ports/1/state", "4: ACTIVE");
  write("mlx5_1/ports/1/gid_attrs/ndevs/0", "eth1");
  write("mlx5_1/ports/2/state", "1: DOWN");
  write("mlx5_0/ports/1/state", "4: ACTIVE");
  write("mlx5_0/device/net/ib0/mtu", "2044");
  write("efa_0/ports/1/state", "4: ACTIVE");
  std::string found;
  for (const UcxPort& port : active_ports(root))
    found += fmt::format("{}:{} {};", port.device, port.number, port.interface);
  EXPECT_EQ(found, "efa_0:1 ;mlx5_0:1 ib0;mlx5_1:1 eth1;");
  std::filesystem::remove_all(root);
  EXPECT_TRUE(active_ports(root).empty());
}

#ifdef RAILCCL_UCX_HEADERS

/// UCX reads its variables when a transport is made.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

Settings ucx_settings(const std::string& interfaces = "=lo") {
  Settings settings;
  settings.net = "ucx";
  settings.socket_ifname = interfaces;
  return settings;
}

class Ucx : public testing::Test {
 protected:
  void SetUp() override {
    const TransportKind& ucx = kind_of("ucx");
    const Status usable = ucx.usable(context_of(0, 2, 1, 1, ucx_settings()));
    if (!usable.is_ok()) GTEST_SKIP() << usable.text();
  }
};

TEST_F(Ucx, IsUsedOnlyWhereItIsAskedFor) {
  Settings settings = ucx_settings();
  settings.net = "";
  EXPECT_THAT(kind_of("ucx").usable(context_of(0, 2, 1, 1, settings)).text(),
              HasSubstr("NCCL_NET=UCX"));
}

TEST_F(Ucx, WithoutATransportOfItsOwnSaysWhy) {
  const Variable variable("UCX_TLS", "no_such_transport");
  const Status status = kind_of("ucx").create(context_of(0, 2, 1, 1, ucx_settings())).status();
  EXPECT_FALSE(status.is_ok());
  EXPECT_THAT(status.text(), HasSubstr("ucx: lo: UCX: ucp_init: "));
}

TEST_F(Ucx, AFarEndsNonsenseIsRefused) {
  auto net = UcxNet::open({{"lo", "lo"}});
  ASSERT_TRUE(net.is_ok()) << net.status().text();
  NetHandle handle;
  EXPECT_THAT((*net)->connect(0, &handle).status().text(), HasSubstr("malformed"));
  handle.bytes[9] = std::byte{0xff};
  EXPECT_THAT((*net)->connect(0, &handle).status().text(), HasSubstr("malformed"));
}

TEST_F(Ucx, ManyShortExchangesBetweenProcessesNeverWaitInVain) {
  for (const char* transports : {"tcp", "posix,self"}) {
    const Variable variable("UCX_TLS", transports);
    const auto results = run_processes(
        "ucx", 2, ucx_settings(),
        [](Transport& transport, int rank, int) { return ping_pong(transport, rank, 300); });
    for (const int code : results) EXPECT_EQ(code, 0) << transports;
  }
}

TEST_F(Ucx, StreamsBetweenProcesses) {
  for (const char* transports : {"tcp", "posix,self", "all"}) {
    const Variable variable("UCX_TLS", transports);
    const auto results =
        run_processes("ucx", 3, ucx_settings(), [](Transport& transport, int rank, int ranks) {
          Tasks tasks;
          for (int peer = 0; peer < ranks; peer++) {
            if (peer == rank) continue;
            Result<Link*> link = transport.link(peer, 0);
            if (!link.is_ok()) return report(link.status());
            tasks.push_back(std::make_unique<SendTask>(*link, rank, 3 << 20, 300'000));
            tasks.push_back(std::make_unique<ReceiveTask>(*link, peer, 3 << 20, 300'000));
          }
          return report(drive(transport, tasks, 30'000));
        });
    for (const int code : results) EXPECT_EQ(code, 0) << transports;
  }
}

TEST_F(Ucx, KilledPeerIsNoticedWithinASecond) {
  for (const char* transports : {"tcp", "posix,self"}) {
    const Variable variable("UCX_TLS", transports);
    const auto results =
        run_processes("ucx", 2, ucx_settings(), [](Transport& transport, int rank, int) {
          return outlive_killed_peer(transport, rank, "closed by peer");
        });
    EXPECT_EQ(results[0], 0) << transports;
    EXPECT_EQ(results[1], 128 + SIGKILL) << transports;
  }
}

TEST_F(Ucx, BytesOfAPeerThatLeftAreStillGood) {
  for (const char* transports : {"tcp", "posix,self"}) {
    const Variable variable("UCX_TLS", transports);
    const auto results =
        run_processes("ucx", 2, ucx_settings(), [](Transport& transport, int rank, int) {
          return read_after_goodbye(transport, rank, "closed by peer");
        });
    for (const int code : results) EXPECT_EQ(code, 0) << transports;
  }
}

/// Cuts what UCX has connected with `address` in this process: TCP connections that are not those
/// that ranks have made to meet.
int cut_connections(uint32_t address, const std::vector<uint16_t>& ours) {
  int cut = 0;
  for (int fd = 0; fd < 1024; fd++) {
    sockaddr_in near{}, far{};
    socklen_t near_bytes = sizeof(near), far_bytes = sizeof(far);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&near), &near_bytes) != 0 ||
        getpeername(fd, reinterpret_cast<sockaddr*>(&far), &far_bytes) != 0 ||
        near.sin_family != AF_INET || far.sin_addr.s_addr != address)
      continue;
    if (std::any_of(ours.begin(), ours.end(), [&](uint16_t port) {
          return port == ntohs(near.sin_port) || port == ntohs(far.sin_port);
        }))
      continue;
    cut += shutdown(fd, SHUT_RDWR) == 0 ? 1 : 0;
  }
  return cut;
}

// Of two paths UCX loses one in mid-transfer: the other takes over, and no byte is lost or doubled.
TEST_F(Ucx, APathThatItLosesIsReplacedByTheOther) {
  if (on_loopback_only()) GTEST_SKIP() << "hosts do not meet on loopback";
  const Variable variable("UCX_TLS", "tcp");
  const std::string nic = usable_interfaces(Settings())->front().name;
  RealWorld world("ucx", 2, ucx_settings("=lo," + nic), nullptr, [](Context* context) {
    context->host_id = static_cast<uint64_t>(context->rank) + 1;
  });
  std::vector<uint16_t> ours;
  for (int rank = 0; rank < 2; rank++)
    ours.push_back(decode_net_address(world.at(rank).address())->control.port);
  std::vector<Tasks> tasks(2);
  std::vector<ReceiveTask*> receives;
  constexpr uint64_t kBytes = 24 << 20;
  for (int rank = 0; rank < 2; rank++) {
    Link* const link = *world.at(rank).link(1 - rank, 0);
    const auto mine = static_cast<uint64_t>(rank), theirs = static_cast<uint64_t>(1 - rank);
    tasks[mine].push_back(std::make_unique<SendTask>(link, mine, kBytes, 300'000));
    auto receive = std::make_unique<ReceiveTask>(link, theirs, kBytes, 300'000);
    receives.push_back(receive.get());
    tasks[mine].push_back(std::move(receive));
  }
  std::atomic<int> done{0}, cut{0};
  std::vector<Status> results(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; rank++) {
    threads.emplace_back([&, rank] {
      const auto self = static_cast<size_t>(rank);
      const Deadline deadline = Deadline::after_ms(30'000);
      // In mid-transfer, once.
      while (rank == 0 && receives[0]->got() < kBytes / 4 && !deadline.passed()) {
        for (auto& task : tasks[0]) task->step();
        if (!world.at(0).progress().is_ok()) break;
      }
      if (rank == 0) cut = cut_connections(htonl(INADDR_LOOPBACK), ours);
      results[self] = drive(world.at(rank), tasks[self], 30'000);
      done++;
      while (done < 2 && world.at(rank).progress().is_ok()) world.at(rank).wait(1000);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(cut, 0);
  for (const Status& status : results) EXPECT_TRUE(status.is_ok()) << status.text();
  std::string events;
  for (const auto& event : world.at(0).report().events) events += event.text + "\n";
  EXPECT_THAT(events, HasSubstr("the path by lo ")) << "no path was lost";
}

#endif

}  // namespace
}  // namespace railccl::transport
