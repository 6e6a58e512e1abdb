// Shows that railccl-topo does what its options say: tree, reasons, JSON, files in and out, a
// cluster merged from facts, and errors with exit status 1. Runs the program itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::string kTool = RAILCCL_BIN "/railccl-topo";

struct Outcome {
  int status = -1;
  std::string output;  // both streams
};

Outcome run(const std::string& arguments, const std::string& environment = "") {
  Outcome outcome;
  FILE* pipe = popen((environment + " " + kTool + " " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return outcome;
  char piece[4096];
  for (size_t got; (got = fread(piece, 1, sizeof piece, pipe)) > 0;)
    outcome.output.append(piece, got);
  const int status = pclose(pipe);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return outcome;
}

std::string contents(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

class Tool : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kTool)) GTEST_SKIP() << kTool << " has not been built";
    std::string pattern = (fs::path(testing::TempDir()) / "railccl_topo_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    if (!folder_.empty()) fs::remove_all(folder_);
  }
  std::string file(const char* name) const { return (folder_ / name).string(); }

  fs::path folder_;
};

TEST_F(Tool, Tree) {
  const Outcome tree = run("--synthetic hosts=4,gpus=4,rails=4");
  EXPECT_EQ(tree.status, 0);
  EXPECT_THAT(tree.output, HasSubstr("4 hosts, 16 ranks, 4 rails"));
  EXPECT_THAT(tree.output, HasSubstr("nic nic0, 25 GB/s, rail 0: used by rank 0"));
  EXPECT_THAT(tree.output, HasSubstr("hosts node-1 to node-3: built as node-0, ranks 4-15"));
  EXPECT_THAT(tree.output, HasSubstr("rail 3: 25 GB/s, leaf 3 joins nic3 of 4 hosts"));
  const Outcome caches = run("--synthetic ranks=8,numas=2,caches=2,cores=16");
  EXPECT_THAT(caches.output, HasSubstr("ranks in 4 domains"));
  EXPECT_THAT(caches.output, HasSubstr("ranks 6-7 on host memory, last-level cache of cpu 12"));
  EXPECT_THAT(run("--synthetic hosts=4,gpus=4,rails=4 --all").output, HasSubstr("host node-3:"));
  EXPECT_THAT(run("").output, HasSubstr("1 host, 1 rank"));
}

TEST_F(Tool, Why) {
  const Outcome why = run("--synthetic hosts=2,gpus=2,nics=2:0 --why");
  EXPECT_EQ(why.status, 0);
  EXPECT_THAT(why.output, HasSubstr("no rails were formed"));
  EXPECT_THAT(why.output, HasSubstr("nic1 of node-0 is on no rail: no NIC of another host"));
  EXPECT_THAT(why.output, HasSubstr("rank 2 on node-1: its host has no NIC"));
}

TEST_F(Tool, SavesLoadsAndDraws) {
  const std::string saved = file("a.topo"), again = file("b.topo"), picture = file("a.svg");
  const Outcome save = run("--synthetic dgx-h100:2 --save " + saved + " --svg " + picture);
  EXPECT_EQ(save.status, 0);
  EXPECT_EQ(save.output, "");
  EXPECT_EQ(run("--load " + saved + " --save " + again).status, 0);
  EXPECT_EQ(contents(saved), contents(again));
  EXPECT_THAT(contents(picture), HasSubstr("</svg>"));
  EXPECT_THAT(run("", "RAILCCL_TOPO_FILE=" + saved).output, HasSubstr("2 hosts, 16 ranks"));
}

TEST_F(Tool, Json) {
  const Outcome json = run("--synthetic cpu:2x2 --json");
  EXPECT_EQ(json.status, 0);
  EXPECT_THAT(json.output, HasSubstr("\"reason\": \"leaf 0 joins nic0 of 2 hosts\""));
  EXPECT_THAT(json.output, HasSubstr("\"why\": \"nic0 is"));
}

TEST_F(Tool, MergesFacts) {
  std::ofstream(file("a")) << run("--facts", "NCCL_HOSTID=a").output;
  std::ofstream(file("b")) << run("--facts", "NCCL_HOSTID=b").output;
  const Outcome merged = run("--merge " + file("a") + " " + file("b") + " " + file("a"));
  EXPECT_EQ(merged.status, 0);
  EXPECT_THAT(merged.output, HasSubstr("2 hosts, 3 ranks"));
}

TEST_F(Tool, MeasuresThisMachineOnce) {
  const std::string here = "RAILCCL_MEASURE=auto XDG_CACHE_HOME=" + folder_.string();
  const Outcome first = run("--measure", here);
  EXPECT_EQ(first.status, 0) << first.output;
  EXPECT_THAT(first.output, HasSubstr("speeds: measured now, kept in " + folder_.string()));
  EXPECT_THAT(first.output, HasSubstr("├─ measured speeds"));
  EXPECT_THAT(first.output, HasSubstr("a flag's way from one core to another"));
  EXPECT_THAT(run("--measure --json", here).output, HasSubstr("\"signal_s\": "));
  const Outcome facts = run("--measure --facts", here);
  EXPECT_THAT(facts.output, HasSubstr("  speeds signal="));
  std::ofstream(file("a")) << facts.output;
  EXPECT_THAT(run("--merge " + file("a")).output, HasSubstr("measured speeds"));
  EXPECT_THAT(run("--measure", here).output, HasSubstr("speeds: kept in"));
  EXPECT_EQ(run("").output.find("measured speeds"), std::string::npos);
  EXPECT_EQ(run("--measure", "RAILCCL_MEASURE=nonsense").status, 1);
}

TEST_F(Tool, Errors) {
  const std::pair<const char*, const char*> bad[] = {
      {"--synthetic hosts=x", "railccl-topo: synthetic topology: hosts: expected"},
      {"--load /nonexistent", "cannot read topology file \"/nonexistent\""},
      {"--merge /nonexistent", "cannot read \"/nonexistent\""},
      {"--synthetic cpu:1x1 --svg /nonexistent/x", "cannot write \"/nonexistent/x\""},
      {"--synthetic cpu:1x1 --save /nonexistent/x", "cannot write topology file"},
  };
  for (const auto& [arguments, says] : bad) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, 1) << arguments;
    EXPECT_THAT(outcome.output, HasSubstr(says));
  }
  EXPECT_NE(run("--synthetic cpu:1x1 --load x").status, 0);
  EXPECT_NE(run("--synthetic cpu:1x1 --measure").status, 0);
  EXPECT_NE(run("--no-such-option").status, 0);
  EXPECT_EQ(run("", "NCCL_SOCKET_IFNAME=nosuchinterface").status, 1);
  EXPECT_THAT(run("--help").output, HasSubstr("spine"));
  EXPECT_THAT(run("--version").output, HasSubstr("railccl-topo "));
}

}  // namespace
