// Shows that the probes tell the truth about this machine as far as it can be checked by other
// means, follow the settings, and read RDMA devices and PCI places out of a sysfs tree as two
// recorded kernels write it (built in a temporary folder).
#include "topology/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/interfaces.h"
#include "topology/probes.h"
#include "topology/rails.h"

namespace railccl::topology {
namespace {

namespace fs = std::filesystem;

TEST(Probe, ThisMachine) {
  const Result<Facts> facts = detect(Settings());
  ASSERT_TRUE(facts.is_ok()) << facts.status().text();
  const Host& host = facts->host;
  EXPECT_FALSE(host.name.empty());
  EXPECT_NE(host.id, 0u);
  EXPECT_NE(facts->process, 0u);
  EXPECT_GE(host.cores, 1);
  EXPECT_LE(host.cores, sysconf(_SC_NPROCESSORS_CONF));
  ASSERT_GE(host.numas.size(), 1u);
  uint64_t memory = 0;  // not compared with sysconf: machines that balloon tell two stories
  for (const Numa& numa : host.numas) memory += numa.memory_bytes;
  EXPECT_GT(memory, uint64_t{1} << 20);
  EXPECT_LT(host.last_level_cache_bytes, uint64_t{4} << 30);
  EXPECT_FALSE(facts->cpus.empty());
  EXPECT_LT(facts->numa, static_cast<int>(host.numas.size()));
  for (const Nic& nic : host.nics) {
    EXPECT_FALSE(nic.name.empty());
    EXPECT_LT(nic.numa, static_cast<int>(host.numas.size()));
    EXPECT_EQ(nic.rail, -1);
  }
  // Nothing in it changes from call to call, save the memory of a machine that balloons.
  Result<Facts> again = detect(Settings());
  ASSERT_TRUE(again.is_ok());
  for (size_t i = 0; i < host.numas.size(); i++)
    again->host.numas[i].memory_bytes = host.numas[i].memory_bytes;
  EXPECT_EQ(*again, *facts);
  EXPECT_EQ(*decode(encode(*facts)), *facts);
}

TEST(Probe, SeesTheBindingOfTheCallingThread) {
  std::thread([] {
    cpu_set_t all, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &all)) cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    const Result<Facts> facts = detect(Settings());
    ASSERT_TRUE(facts.is_ok()) << facts.status().text();
    EXPECT_EQ(facts->cpus, std::to_string(cpu));
    EXPECT_GE(facts->numa, 0);  // one CPU is on one node
  }).join();
}

// A machine of the recorded kind that the tests rarely run on, described to hwloc.
TEST(Probe, FindsTheNodeAndTheCacheThatAThreadIsBoundTo) {
  setenv("HWLOC_SYNTHETIC", "numa:2 l3:2 core:2 pu:1", 1);
  setenv("HWLOC_THISSYSTEM", "1", 1);
  std::thread([] {
    cpu_set_t all, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    for (int cpu = 0; cpu < 8; cpu++) {
      if (!CPU_ISSET(cpu, &all)) continue;
      CPU_ZERO(&one);
      CPU_SET(cpu, &one);
      ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
      Facts facts;
      NumaIndex numas;
      ASSERT_TRUE(probe_hwloc(facts, numas).is_ok());
      EXPECT_EQ(facts.host.numas.size(), 2u);
      EXPECT_EQ(facts.host.cores_per_cache, 2);
      EXPECT_EQ(facts.numa, cpu / 4);
      EXPECT_EQ(facts.cache, cpu / 2 * 2);
    }
  }).join();
  unsetenv("HWLOC_SYNTHETIC");
  unsetenv("HWLOC_THISSYSTEM");
}

TEST(Probe, FollowsTheSettings) {
  Settings settings;
  settings.socket_ifname = "=lo";
  settings.rails = "lo=3";
  settings.host_id = "x";
  const Result<Facts> facts = detect(settings);
  ASSERT_TRUE(facts.is_ok()) << facts.status().text();
  const auto lo = std::find_if(facts->host.nics.begin(), facts->host.nics.end(),
                               [](const Nic& nic) { return nic.name == "lo"; });
  ASSERT_NE(lo, facts->host.nics.end());
  EXPECT_EQ(lo->rail, 3);
  EXPECT_EQ(facts->host.id, detect(settings)->host.id);
  EXPECT_NE(facts->host.id, detect(Settings())->host.id);

  settings.rails = "lo";
  EXPECT_THAT(detect(settings).status().text(), testing::HasSubstr("RAILCCL_RAILS"));
  settings.rails = "";
  settings.socket_ifname = "nosuchinterface";
  EXPECT_THAT(detect(settings).status().text(), testing::HasSubstr("NCCL_SOCKET_IFNAME"));
}

/// A sysfs tree in a temporary folder.
class Sysfs : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::path(testing::TempDir()) / "railccl_sysfs_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { fs::remove_all(root_); }

  void file(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text << '\n';
  }
  /// A PCI device below `bridges`, and what /sys/class/infiniband has for it.
  void rdma(const std::string& name, const std::string& pci, int numa, const std::string& netdev) {
    const std::string device = "devices/pci0000:00/0000:00:01.0/0000:10:00.0/" + pci;
    file(device + "/numa_node", std::to_string(numa));
    if (!netdev.empty()) fs::create_directories(root_ / device / "net" / netdev);
    fs::create_directories(root_ / "class/infiniband" / name);
    fs::create_directory_symlink(root_ / device, root_ / "class/infiniband" / name / "device");
  }
  void port(const std::string& name, int number, const std::string& layer, const std::string& state,
            const std::string& rate, const std::vector<std::string>& gids) {
    const std::string base = fmt::format("class/infiniband/{}/ports/{}/", name, number);
    file(base + "link_layer", layer);
    file(base + "state", state);
    file(base + "rate", rate);
    for (size_t i = 0; i < gids.size(); i++) file(base + fmt::format("gids/{}", i), gids[i]);
  }

  fs::path root_;
};

TEST_F(Sysfs, InfinibandWithoutInterfaces) {
  rdma("mlx5_1", "0000:11:00.0", 4, "");
  rdma("mlx5_0", "0000:12:00.0", -1, "");
  const std::vector<std::string> gids = {"fec0:0000:0000:0007:0002:c903:0012:3456",
                                         "0000:0000:0000:0000:0000:0000:0000:0000"};
  port("mlx5_0", 1, "InfiniBand", "4: ACTIVE", "400 Gb/sec (4X NDR)", gids);
  port("mlx5_1", 1, "InfiniBand", "1: DOWN", "10 Gb/sec (4X SDR)", gids);
  port("mlx5_1", 2, "InfiniBand", "4: ACTIVE", "2.5 Gb/sec (1X SDR)", {});
  Facts facts;
  const NumaIndex numas = {{0, 0}, {4, 1}};  // the kernel numbers nodes with gaps
  ASSERT_TRUE(probe_rdma(root_.string(), numas, facts).is_ok());
  ASSERT_EQ(facts.host.nics.size(), 3u);
  const Nic& first = facts.host.nics[0];
  EXPECT_EQ(first.name, "mlx5_0");  // by name, whatever order the folder has
  EXPECT_EQ(first.rdma, "mlx5_0");
  EXPECT_EQ(first.pci, "0000:12:00.0");
  EXPECT_EQ(first.upstream, "0000:00:01.0/0000:10:00.0");
  EXPECT_EQ(first.numa, -1);
  EXPECT_TRUE(first.up);
  EXPECT_EQ(first.bytes_per_s, 50e9);
  EXPECT_EQ(first.neighbourhood, "ib subnet fec0:0:0:7::/64");
  EXPECT_FALSE(facts.host.nics[1].up);
  EXPECT_EQ(facts.host.nics[1].numa, 1);
  EXPECT_EQ(facts.host.nics[2].name, "mlx5_1:2");
  EXPECT_EQ(facts.host.nics[2].bytes_per_s, 2.5e9 / 8);
  EXPECT_EQ(facts.host.nics[2].neighbourhood, "");

  // Two such hosts share the subnet, hence a rail.
  std::vector<Host> hosts = {facts.host, facts.host};
  const std::vector<Rail> rails = form_rails(hosts);
  ASSERT_EQ(rails.size(), 1u);
  EXPECT_THAT(rails[0].reason, testing::HasSubstr("ib subnet fec0:0:0:7::/64"));
}

TEST_F(Sysfs, RoceJoinsItsInterface) {
  rdma("rocep1", "0000:11:00.0", 0, "eth0");
  rdma("rocep2", "0000:12:00.0", 0, "eth1");
  port("rocep1", 1, "Ethernet", "4: ACTIVE", "100 Gb/sec (4X EDR)",
       {"fe80:0000:0000:0000:0000:0000:0000:0001", "0000:0000:0000:0000:0000:ffff:0a00:0102",
        "fd00:0000:0000:0001:0000:0000:0000:0002"});
  port("rocep2", 1, "Ethernet", "4: ACTIVE", "100 Gb/sec (4X EDR)", {});
  Facts facts;
  Nic eth0;
  eth0.name = "eth0";
  eth0.addresses = {"10.0.1.2/24"};
  facts.host.nics = {eth0};
  ASSERT_TRUE(probe_rdma(root_.string(), {{0, 0}}, facts).is_ok());
  ASSERT_EQ(facts.host.nics.size(), 1u);  // eth1 was not selected, so rocep2 is not either
  const Nic& nic = facts.host.nics[0];
  EXPECT_EQ(nic.name, "eth0");
  EXPECT_EQ(nic.rdma, "rocep1");
  EXPECT_EQ(nic.bytes_per_s, 12.5e9);
  EXPECT_EQ(nic.addresses, (std::vector<std::string>{"10.0.1.2/24", "gid fd00:0:0:1::2/64"}));
  EXPECT_EQ(neighbourhoods_of(nic),
            (std::vector<std::string>{"subnet 10.0.1.0/24", "gid prefix fd00:0:0:1::/64"}));
}

TEST_F(Sysfs, DevicesInSoftwareAreTheirInterfaces) {
  port("rxe0", 1, "Ethernet", "4: ACTIVE", "2.5 Gb/sec (1X SDR)",
       {"0000:0000:0000:0000:0000:ffff:0a00:0001"});
  file("class/infiniband/rxe0/ports/1/gid_attrs/ndevs/0", "eth1");
  Facts facts;
  facts.host.nics.resize(2);
  facts.host.nics[0].name = "eth0";
  facts.host.nics[1].name = "eth1";
  ASSERT_TRUE(probe_rdma(root_.string(), {}, facts).is_ok());
  ASSERT_EQ(facts.host.nics.size(), 2u);
  EXPECT_EQ(facts.host.nics[0].rdma, "");
  EXPECT_EQ(facts.host.nics[1].rdma, "rxe0");
}

TEST_F(Sysfs, GarbageIsPassedOver) {
  fs::create_directories(root_ / "class/infiniband/empty");
  rdma("odd", "0000:11:00.0", 0, "");
  port("odd", 1, "", "", "fast", {"not a gid", std::string(5000, ':')});
  Facts facts;
  ASSERT_TRUE(probe_rdma(root_.string(), {}, facts).is_ok());
  ASSERT_EQ(facts.host.nics.size(), 1u);
  EXPECT_FALSE(facts.host.nics[0].up);
  EXPECT_EQ(facts.host.nics[0].bytes_per_s, 0);
  EXPECT_TRUE(neighbourhoods_of(facts.host.nics[0]).empty());
}

TEST_F(Sysfs, PciPlaces) {
  file("devices/pci0000:00/0000:00:03.0/virtio1/net/eth0/speed", "-1");
  file("devices/pci0000:00/0000:00:03.0/numa_node", "-1");
  fs::create_directories(root_ / "class/net/eth0");
  fs::create_directory_symlink(root_ / "devices/pci0000:00/0000:00:03.0/virtio1",
                               root_ / "class/net/eth0/device");
  const std::string link = (root_ / "class/net/eth0/device").string();
  EXPECT_EQ(pci_place(link, {{0, 0}, {1, 1}}).address, "0000:00:03.0");
  EXPECT_EQ(pci_place(link, {{0, 0}, {1, 1}}).upstream, "");
  EXPECT_EQ(pci_place(link, {{0, 0}, {1, 1}}).numa, -1);
  EXPECT_EQ(pci_place(link, {{0, 0}}).numa, 0);  // one node: no choice
  EXPECT_EQ(pci_place((root_ / "nothing").string(), {{0, 0}}).address, "");
  EXPECT_EQ(pci_place((root_ / "class").string(), {{0, 0}}).address, "");
}

}  // namespace
}  // namespace railccl::topology
