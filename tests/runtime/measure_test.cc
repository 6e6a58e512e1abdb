// Shows that measuring gives figures that a machine can have, leaves the caller where it was and
// ends in time; that the result is kept in a file, once for all processes, and that a file which
// cannot be trusted is neither followed nor believed; that all ranks get the figures of their host.
// Real measurements, in folders of the test's own.
#include "runtime/measure.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/clock.h"
#include "ranks.h"
#include "runtime/host_speeds.h"
#include "runtime/measured_cores.h"

namespace railccl::test {
namespace {

namespace fs = std::filesystem;
using runtime::HostSpeeds;
using testing::HasSubstr;
using topology::kSpeedRows;
using topology::SpeedRow;
using topology::Speeds;

constexpr uint64_t kCache = 8 << 20;

void expect_plausible(const Speeds& speeds) {
  for (const SpeedRow& row : kSpeedRows)
    EXPECT_TRUE(topology::plausible(row, speeds.*row.member))
        << row.name << " " << speeds.*row.member;
}

TEST(Measure, GivesFiguresThatAMachineCanHave) {
  cpu_set_t before, after;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  const int64_t start = now_ns();
  const auto speeds = runtime::measure(runtime::cores_to_measure(), kCache, runtime::Effort::quick);
  ASSERT_TRUE(speeds.is_ok()) << speeds.status().text();
  EXPECT_LT(now_ns() - start, (runtime::kMeasureMsMax + 2000) * 1'000'000);
  expect_plausible(*speeds);
  // What must hold on any machine, sanitized and loaded as it may be.
  EXPECT_LT(speeds->signal_s, 1e-2);
  EXPECT_LT(speeds->signal_s, speeds->wake_s);
  const std::vector<int> cores = runtime::cores_to_measure();
  const runtime::Neighbours neighbours = runtime::neighbours_of_first(cores);
  if (neighbours.near == neighbours.far) {
    EXPECT_EQ(speeds->cross_bytes_per_s, speeds->message_bytes_per_s);
  }
  ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

TEST(Measure, OneCoreIsEnough) {
  const std::vector<int> cores = runtime::cores_to_measure();
  ASSERT_FALSE(cores.empty());
  const auto speeds = runtime::measure({cores[0]}, kCache, runtime::Effort::quick);
  ASSERT_TRUE(speeds.is_ok()) << speeds.status().text();
  expect_plausible(*speeds);
  EXPECT_EQ(speeds->signal_s, speeds->yield_s);
  EXPECT_EQ(speeds->host_streaming_bytes_per_s, speeds->core_streaming_bytes_per_s);
}

// A tree as the kernel shows it, of CPUs that firmware numbered node by node in turn.
TEST(Measure, ChoosesWhomToMeasureTheFirstCoreWith) {
  std::string pattern = (fs::path(testing::TempDir()) / "railccl_sys_XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr);
  const fs::path root = pattern;
  const auto cpu = [&](int number, int node, const std::string& shared) {
    const fs::path folder = root / fmt::format("devices/system/cpu/cpu{}", number);
    fs::create_directories(folder / fmt::format("node{}", node));
    for (const auto& [index, list] : {std::pair{0, std::to_string(number)}, {1, shared}}) {
      const fs::path cache = folder / fmt::format("cache/index{}", index);
      fs::create_directories(cache);
      std::ofstream(cache / "shared_cpu_list") << list << '\n';
    }
  };
  cpu(0, 0, "0,4");
  cpu(1, 1, "1,5");
  cpu(2, 0, "2,6");
  cpu(4, 0, "0,4");
  const auto neighbours = [&](const std::vector<int>& cpus) {
    const runtime::Neighbours found = runtime::neighbours_of_first(cpus, root.string());
    return std::pair(found.near, found.far);
  };
  EXPECT_EQ(neighbours({0, 1, 2, 4}), std::pair(4, 1));
  EXPECT_EQ(neighbours({0, 2, 4}), std::pair(4, 2));  // another cache, where there is no other node
  EXPECT_EQ(neighbours({0, 4}), std::pair(4, 4));
  EXPECT_EQ(neighbours({0, 1}), std::pair(1, 1));
  EXPECT_EQ(neighbours({0, 1, 2}), std::pair(2, 1));
  EXPECT_EQ(neighbours({2}), std::pair(2, 2));
  EXPECT_EQ(neighbours({7, 8, 9}), std::pair(8, 8));  // nothing is known
  fs::remove_all(root);
}

TEST(Measure, LooksBeyondTheCoreThatALauncherBoundARankTo) {
  const std::vector<int> all = runtime::cores_to_measure();
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(all[0], &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_GE(runtime::cores_to_measure().size(), all.size());
    cpu_set_t now;
    ASSERT_EQ(sched_getaffinity(0, sizeof now, &now), 0);
    EXPECT_TRUE(CPU_EQUAL(&one, &now));
  }).join();
}

/// A folder of caches. What a process remembers goes by the folder's name: each call of settings()
/// names it differently, so that it looks at the files again.
class Cache : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::path(testing::TempDir()) / "railccl_cache_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  Settings settings(const std::string& measure = "auto") {
    name_ += "/.";
    return settings_with(
        {"RAILCCL_MEASURE=" + measure, "XDG_CACHE_HOME=" + folder_.string() + name_});
  }
  HostSpeeds find(const Settings& settings) {
    auto found = runtime::host_speeds(settings, kCache);
    EXPECT_TRUE(found.is_ok()) << found.status().text();
    return found.is_ok() ? *found : HostSpeeds();
  }
  /// The only file of speeds there is.
  fs::path file() const {
    for (const auto& entry : fs::directory_iterator(folder_ / "railccl"))
      if (entry.path().extension() == ".json") return entry.path();
    return {};
  }
  /// Writes a file that any reader would believe.
  void write_good() {
    nlohmann::json speeds;
    for (const SpeedRow& row : kSpeedRows)
      speeds[row.key] = row.unit == topology::SpeedUnit::seconds ? 1.5e-6 : 1.5e9;
    good_ = {{"machine", runtime::machine_text(kCache)}, {"speeds", speeds}};
    write(good_.dump());
  }
  void write(const std::string& text) {
    if (path_.empty()) {
      find(settings());
      path_ = file();
    }
    fs::remove_all(path_);
    std::ofstream(path_) << text;
    fs::permissions(path_, fs::perms::owner_read | fs::perms::owner_write);
  }
  /// Is the file, as it is now, believed?
  bool believed() { return find(settings()).speeds.signal_s == 1.5e-6; }

  fs::path folder_, path_;
  std::string name_;
  nlohmann::json good_;
};

TEST_F(Cache, IsWrittenOnceAndReadAfterwards) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  const HostSpeeds first = find(settings());
  EXPECT_THAT(first.source, HasSubstr("measured now, kept in " + folder_.string()));
  expect_plausible(first.speeds);
  const HostSpeeds second = find(settings());
  EXPECT_THAT(second.source, testing::StartsWith("kept in"));
  EXPECT_EQ(first.speeds, second.speeds);
  const HostSpeeds forced = find(settings("force"));
  EXPECT_THAT(forced.source, HasSubstr("measured now"));
  EXPECT_EQ(find(settings()).speeds, forced.speeds);
  EXPECT_FALSE(find(settings("off")).speeds.known());
  EXPECT_FALSE(runtime::host_speeds(settings("perhaps"), kCache).is_ok());
}

TEST(CacheText, ComesBackAsItWas) {
  Speeds speeds;
  for (const SpeedRow& row : kSpeedRows)
    speeds.*row.member = row.unit == topology::SpeedUnit::seconds ? 1e-7 / 3 : 1e10 / 3;
  const auto back = runtime::parse_speeds(runtime::speeds_file_text(speeds, "m"), "m");
  ASSERT_TRUE(back.is_ok()) << back.status().text();
  EXPECT_EQ(*back, speeds);
}

TEST(CacheText, NonsenseIsRefused) {
  Speeds speeds;
  for (const SpeedRow& row : kSpeedRows)
    speeds.*row.member = row.unit == topology::SpeedUnit::seconds ? 1e-7 : 1e10;
  const auto good = nlohmann::json::parse(runtime::speeds_file_text(speeds, "m"));
  const auto refused = [](const std::string& text) {
    const auto parsed = runtime::parse_speeds(text, "m");
    EXPECT_FALSE(parsed.is_ok()) << text;
    if (!parsed.is_ok()) {
      EXPECT_EQ(parsed.status().code(), Code::invalid_argument);
    }
  };
  ASSERT_TRUE(runtime::parse_speeds(good.dump(), "m").is_ok());
  for (const SpeedRow& row : kSpeedRows) {
    for (const nlohmann::json& value :
         {nlohmann::json(0), nlohmann::json(-1.0), nlohmann::json(1e300), nlohmann::json("1"),
          nlohmann::json(nullptr), nlohmann::json(NAN), nlohmann::json::array()}) {
      nlohmann::json wrong = good;
      wrong["speeds"][row.key] = value;
      refused(wrong.dump());
    }
    nlohmann::json wrong = good;
    wrong["speeds"].erase(row.key);
    refused(wrong.dump());
  }
  for (const char* text : {"", "{", "[]", "{}", "null", "{\"machine\": 1, \"speeds\": {}}",
                           "{\"machine\": \"m\", \"speeds\": []}", "{\"machine\": \"\\ud800\"}"})
    refused(text);
  refused(std::string(50'000, '['));
  nlohmann::json other = good;
  other["machine"] = "another";
  refused(other.dump());
}

TEST_F(Cache, OnlyWhatCanBeTrustedIsBelieved) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  write_good();
  ASSERT_TRUE(believed());
  write("{}");
  EXPECT_FALSE(believed());
  write(good_.dump() + std::string(100'000, ' '));
  EXPECT_FALSE(believed()) << "too long";
  write(good_.dump());
  fs::permissions(path_, fs::perms::group_write, fs::perm_options::add);
  EXPECT_FALSE(believed()) << "others may write it";
  write(good_.dump());
  fs::rename(path_, folder_ / "elsewhere");
  fs::create_symlink(folder_ / "elsewhere", path_);
  EXPECT_FALSE(believed()) << "a link";
  fs::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_FALSE(believed()) << "a pipe";
  fs::remove(path_);
  fs::create_directory(path_);
  EXPECT_FALSE(believed()) << "a folder";
  if (geteuid() == 0) {
    write(good_.dump());
    ASSERT_EQ(chown(path_.c_str(), 1, 1), 0);
    EXPECT_FALSE(believed()) << "somebody else's";
  }
  write(good_.dump());
  EXPECT_TRUE(believed());
}

TEST_F(Cache, AFolderThatIsNotOursAloneIsNotUsed) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  write_good();
  fs::permissions(folder_ / "railccl", fs::perms::others_write, fs::perm_options::add);
  const HostSpeeds open = find(settings());
  EXPECT_THAT(open.source, HasSubstr("not kept"));
  EXPECT_NE(open.speeds.signal_s, 1.5e-6);
  fs::rename(folder_ / "railccl", folder_ / "elsewhere");
  fs::permissions(folder_ / "elsewhere", fs::perms::others_write, fs::perm_options::remove);
  fs::create_symlink(folder_ / "elsewhere", folder_ / "railccl");
  EXPECT_THAT(find(settings()).source, HasSubstr("not kept"));
}

TEST_F(Cache, WithoutAFolderTheMeasurementIsQuickAndForThisProcess) {
  RAILCCL_SKIP_WITHOUT_THREADS();
  const HostSpeeds none = find(settings_with({"RAILCCL_MEASURE=auto"}));
  EXPECT_THAT(none.source, HasSubstr("neither XDG_CACHE_HOME nor HOME"));
  EXPECT_TRUE(none.speeds.known());
  EXPECT_EQ(find(settings_with({"RAILCCL_MEASURE=auto"})).speeds, none.speeds);
  // A relative folder of caches is to be ignored, says its specification.
  const HostSpeeds home = find(
      settings_with({"RAILCCL_MEASURE=auto", "XDG_CACHE_HOME=cache", "HOME=" + folder_.string()}));
  EXPECT_THAT(home.source, HasSubstr(folder_.string() + "/.cache/railccl/speeds-"));
}

TEST_F(Cache, ManyProcessesMeasureOnce) {
  constexpr int kProcesses = 4;
  int pipes[2];
  ASSERT_EQ(pipe(pipes), 0);
  for (int i = 0; i < kProcesses; i++) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child != 0) continue;
    const auto found = runtime::host_speeds(settings(), kCache);
    const char letter = !found.is_ok() ? 'F' : found->source.starts_with("measured") ? 'M' : 'K';
    _exit(::write(pipes[1], &letter, 1) == 1 ? 0 : 1);
  }
  close(pipes[1]);
  std::string letters;
  for (char letter; read(pipes[0], &letter, 1) == 1;) letters += letter;
  close(pipes[0]);
  while (wait(nullptr) > 0) {
  }
  std::sort(letters.begin(), letters.end());
  EXPECT_EQ(letters, "KKKM");
}

TEST_F(Cache, AllRanksGetTheFiguresOfTheirHost) {
  constexpr long kLargeCache = 128 << 20;
  if (test::kBuildKind == test::BuildKind::thread && sysconf(_SC_LEVEL3_CACHE_SIZE) > kLargeCache)
    GTEST_SKIP() << "the thread sanitizer is too slow for the memory beyond so large a cache";
  write_good();
  with_communicator(3, settings(), [](CommunicatorPtr communicator) {
    const Speeds& speeds = communicator->topology()->hosts()[0].speeds;
    // This machine's cache is not the test's: the ranks measured, and all have the same.
    EXPECT_TRUE(speeds.known());
    expect_exact(*communicator, sum_request(1000));
    auto part = communicator->split(communicator->rank() % 2, 0, Config());
    ASSERT_TRUE(part.is_ok()) << part.status().text();
    EXPECT_EQ((*part)->topology()->hosts()[0].speeds, speeds);
  });
  std::vector<Speeds> of_ranks(2);
  with_communicator(2, settings(), [&](CommunicatorPtr communicator) {
    of_ranks[static_cast<size_t>(communicator->rank())] =
        communicator->topology()->hosts()[0].speeds;
  });
  EXPECT_TRUE(of_ranks[0].known());
  EXPECT_EQ(of_ranks[0], of_ranks[1]);
  with_communicator(2, settings("off"), [](CommunicatorPtr communicator) {
    EXPECT_FALSE(communicator->topology()->hosts()[0].speeds.known());
  });
}

TEST(MeasureSetting, NonsenseIsAnErrorOnEveryRank) {
  const Settings settings = settings_with({"RAILCCL_MEASURE=perhaps"});
  auto id = runtime::make_unique_id(settings);
  ASSERT_TRUE(id.is_ok());
  on_threads(2, [&](int r) {
    const auto joined = Communicator::join(*id, r, 2, Config(), settings);
    ASSERT_FALSE(joined.is_ok());
    EXPECT_THAT(joined.status().text(), HasSubstr("RAILCCL_MEASURE=perhaps"));
  });
}

}  // namespace
}  // namespace railccl::test
