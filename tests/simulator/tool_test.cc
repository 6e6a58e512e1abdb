// Shows that railccl-sim does what its options say: tables, JSON, topologies from files, faults and
// slow ranks, and errors that name the option. Runs the program itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "topology/synthetic.h"
#include "topology/text.h"

namespace railccl::simulator {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kTool = RAILCCL_BIN "/railccl-sim";

struct Outcome {
  int status = -1;
  std::string output;  // both streams
};

Outcome run(const std::string& arguments) {
  Outcome outcome;
  FILE* pipe = popen((kTool + " " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  char piece[4096];
  for (size_t got; (got = fread(piece, 1, sizeof piece, pipe)) > 0;)
    outcome.output.append(piece, got);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

/// The number behind `"name":` in a JSON line.
double field(const std::string& line, const std::string& name) {
  const size_t at = line.find("\"" + name + "\":");
  EXPECT_NE(at, line.npos) << name << " in " << line;
  return at == line.npos ? 0 : std::atof(line.c_str() + at + name.size() + 3);
}

class SimTool : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kTool)) GTEST_SKIP() << kTool << " has not been built";
  }
};

TEST_F(SimTool, Table) {
  const Outcome table =
      run("all_reduce --synthetic dgx-h100:2 -b 1K -e 16M -f 128 --algorithm rail");
  EXPECT_EQ(table.status, 0) << table.output;
  EXPECT_THAT(table.output, HasSubstr("16 ranks on 2 hosts, 8 rails"));
  EXPECT_THAT(table.output, HasSubstr("\n        1024         256     float"));
  EXPECT_THAT(table.output, HasSubstr("\n      131072       32768     float"));
  EXPECT_THAT(table.output, HasSubstr("\n    16777216     4194304     float"));
  EXPECT_THAT(table.output, HasSubstr("rail, "));
  EXPECT_THAT(table.output, HasSubstr("# simulated in "));
}

TEST_F(SimTool, Json) {
  const Outcome json = run(
      "all_gather --synthetic hosts=2,gpus=2 -b 1M --algorithm direct --step 1us --json -d half "
      "--channels 1");
  EXPECT_EQ(json.status, 0) << json.output;
  EXPECT_THAT(json.output, HasSubstr("\"algorithm\":\"direct\""));
  EXPECT_EQ(field(json.output, "bytes"), 1 << 20);
  EXPECT_EQ(field(json.output, "count"), (1 << 20) / 2 / 4);
  EXPECT_EQ(field(json.output, "bytes_between_hosts"), 8 * (1 << 20) / 4);
  EXPECT_GE(field(json.output, "time_us"), field(json.output, "bound_us"));
  const double us = field(json.output, "time_us");
  EXPECT_NEAR(field(json.output, "algbw_gbs"), (1 << 20) / us / 1e3, 1e-9);
  EXPECT_NEAR(field(json.output, "busbw_gbs"), 0.75 * (1 << 20) / us / 1e3, 1e-9);
}

TEST_F(SimTool, TopologyFromAFileIsTheSame) {
  const fs::path file =
      fs::path(testing::TempDir()) / ("railccl_sim_" + std::to_string(getpid()) + ".topo");
  const auto topology = topology::synthetic("hosts=3,gpus=2,nic=100Gb/s");
  ASSERT_TRUE(topology.is_ok());
  ASSERT_TRUE(topology::save_topology(*topology, file.string()).is_ok());
  const std::string rest = " -b 1M --json";
  const Outcome from_file = run("reduce_scatter --topology " + file.string() + rest);
  const Outcome described = run("reduce_scatter --synthetic hosts=3,gpus=2,nic=100Gb/s" + rest);
  fs::remove(file);
  EXPECT_EQ(from_file.status, 0) << from_file.output;
  EXPECT_EQ(field(from_file.output, "time_us"), field(described.output, "time_us"));
}

TEST_F(SimTool, FaultsSlowRanksAndJitterTakeLonger) {
  const std::string call = "all_reduce --synthetic dgx-h100:2 -b 64M --algorithm rail --json ";
  const double well = field(run(call).output, "time_us");
  EXPECT_GT(field(run(call + "--fault 0:node-1/nic3:0.1").output, "time_us"), 2 * well);
  EXPECT_EQ(field(run(call + "--fault 0:1/3:0.1").output, "time_us"),
            field(run(call + "--fault 0:node-1/nic3:0.1").output, "time_us"));
  EXPECT_GT(field(run(call + "--slow 5:20").output, "time_us"), well);
  const std::string jitter = run(call + "--jitter 0.5 --seed 3").output;
  EXPECT_GT(field(jitter, "time_us"), well);
  EXPECT_NE(field(run(call + "--jitter 0.5 --seed 4").output, "time_us"), field(jitter, "time_us"));
}

TEST_F(SimTool, ErrorsNameWhatIsWrong) {
  const auto failure = [](const std::string& arguments) {
    const Outcome outcome = run(arguments);
    EXPECT_NE(outcome.status, 0) << arguments;
    return outcome.output;
  };
  const std::string call = "all_reduce --synthetic dgx-h100:2 ";
  EXPECT_THAT(failure("all_reduce"), HasSubstr("--synthetic"));
  EXPECT_THAT(failure("sort --synthetic dgx-h100:2"), HasSubstr("unknown collective 'sort'"));
  EXPECT_THAT(failure("all_reduce --synthetic cray:2"), HasSubstr("no machine \"cray\""));
  EXPECT_THAT(failure("all_reduce --topology /nowhere/x"), HasSubstr("/nowhere/x"));
  EXPECT_THAT(failure(call + "--algorithm best"), HasSubstr("\"best\" is no algorithm"));
  EXPECT_THAT(failure(call + "-b 1X"), HasSubstr("expected a size"));
  EXPECT_THAT(failure(call + "-b 1 -e 8"), HasSubstr("give -f or -i"));
  EXPECT_THAT(failure(call + "-d quad"), HasSubstr("unknown datatype 'quad'"));
  EXPECT_THAT(failure(call + "-o mean"), HasSubstr("unknown operator 'mean'"));
  EXPECT_THAT(failure(call + "-r 16"), HasSubstr("root 16"));
  EXPECT_THAT(failure(call + "--step 5"), HasSubstr("15us"));
  EXPECT_THAT(failure(call + "--slow 1"), HasSubstr("RANK:FACTOR"));
  EXPECT_THAT(failure(call + "--slow 16:2"), HasSubstr("no rank 16"));
  EXPECT_THAT(failure(call + "--fault 1ms:0.5"), HasSubstr("TIME:HOST/NIC:FACTOR"));
  EXPECT_THAT(failure(call + "--fault 1:node-0/nic0:0.5"), HasSubstr("--fault"));
  EXPECT_THAT(failure(call + "--fault 1ms:node-2/nic0:0.5"), HasSubstr("no host \"node-2\""));
  EXPECT_THAT(failure(call + "--fault 1ms:node-0/nic8:0.5"), HasSubstr("no NIC \"nic8\""));
  EXPECT_THAT(failure(call + "--fault 1ms:node-0/nic0:2"), HasSubstr("factor of a fault is 2"));
}

}  // namespace
}  // namespace railccl::simulator
