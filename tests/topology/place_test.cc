// Shows that a rank's own place is the one that hwloc sees, also where hwloc is told of a machine
// with several caches and nodes, and that lists of CPUs from elsewhere do no harm.
#include "topology/place.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "topology/probe.h"

namespace railccl::topology {
namespace {

namespace fs = std::filesystem;

void expect_as_probed() {
  const Result<Facts> facts = detect(Settings());
  ASSERT_TRUE(facts.is_ok()) << facts.status().text();
  const Place place = own_place();
  EXPECT_EQ(place.cpus, facts->cpus);
  EXPECT_EQ(place.cache, facts->cache);
  EXPECT_EQ(numa_of(facts->host, place.cpus), facts->numa);
}

/// The first CPU that the calling thread may run on.
int first_cpu() {
  cpu_set_t all;
  EXPECT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  int cpu = 0;
  while (!CPU_ISSET(cpu, &all)) cpu++;
  return cpu;
}

void bind_to(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
}

TEST(Place, IsWhatHwlocSees) {
  expect_as_probed();
  std::thread([] {
    bind_to(first_cpu());
    EXPECT_EQ(own_place().cpus, std::to_string(first_cpu()));
    expect_as_probed();
  }).join();
}

TEST(Place, TheCacheIsTheLastThatAllMayShare) {
  const fs::path root = fs::temp_directory_path() / ("railccl-place-" + std::to_string(getpid()));
  const int cpu = first_cpu();
  const auto cache = [&](int index, int level, const std::string& shared) {
    const fs::path folder = root / "devices/system/cpu" / ("cpu" + std::to_string(cpu)) / "cache" /
                            ("index" + std::to_string(index));
    fs::create_directories(folder);
    std::ofstream(folder / "level") << level << '\n';
    std::ofstream(folder / "shared_cpu_list") << shared << '\n';
  };
  const int last = cpu + 7;
  std::thread([&] {
    bind_to(cpu);
    EXPECT_EQ(own_place(root.string()).cache, -1) << "there is no cache";
    cache(0, 1, std::to_string(cpu));
    cache(1, 2, std::to_string(cpu));
    EXPECT_EQ(own_place(root.string()).cache, cpu);
    cache(2, 3, "0-" + std::to_string(last));
    EXPECT_EQ(own_place(root.string()).cache, 0);
    cache(3, 4, std::to_string(last) + "-" + std::to_string(last + 1));
    EXPECT_EQ(own_place(root.string()).cache, 0) << "a fourth level is no cache";
    cache(2, 3, std::to_string(cpu + 1));
    EXPECT_EQ(own_place(root.string()).cache, -1) << "the thread may run where it is not";
  }).join();
  fs::remove_all(root);
}

TEST(Place, NodesOfListsOfCpus) {
  Host host;
  host.numas = {{1, "0-3,16-19"}, {1, ""}, {1, "4-7,20-23"}};
  EXPECT_EQ(numa_of(host, "0"), 0);
  EXPECT_EQ(numa_of(host, "1-3,17"), 0);
  EXPECT_EQ(numa_of(host, "20,21,22"), 2);
  EXPECT_EQ(numa_of(host, "3-4"), -1) << "on two nodes";
  EXPECT_EQ(numa_of(host, "8"), -1);
  EXPECT_EQ(numa_of(host, ""), -1);
  for (const char* bad : {"x", "0-", "-1", "1,", "3-1", "2,1", "0,0", "0 1", "99999999999", "0x1",
                          "1048577", "0-1048577", ","})
    EXPECT_EQ(numa_of(host, bad), -1) << bad;
  host.numas[0].cpus = "garbage";
  EXPECT_EQ(numa_of(host, "0"), -1);
  EXPECT_EQ(numa_of(host, "4"), 2);
}

}  // namespace
}  // namespace railccl::topology
