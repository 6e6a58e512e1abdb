// Shows on real processes that the number of ranks does not change what is learned, also when ranks
// are killed, that a network does learn, and that bad data ends with a sentence and exit code 2.
// Runs railccl-train on a small dataset made on the spot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "idx_files.h"

namespace railccl::train {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int code;
  std::string output;  // stdout and stderr
};

Outcome run_trainer(const std::string& arguments) {
  const std::string command = std::string(RAILCCL_TRAIN) + " " + arguments + " 2>&1";
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {-1, "cannot be started"};
  std::string output;
  char block[4096];
  for (size_t got; (got = fread(block, 1, sizeof block, pipe)) > 0;) output.append(block, got);
  const int status = pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

/// The lines of --json.
std::vector<nlohmann::json> epochs_of(const Outcome& outcome) {
  std::vector<nlohmann::json> epochs;
  std::istringstream lines(outcome.output);
  for (std::string line; std::getline(lines, line);) {
    const auto parsed = nlohmann::json::parse(line, nullptr, false);
    if (parsed.is_object() && parsed.contains("epoch")) epochs.push_back(parsed);
  }
  return epochs;
}

// Batches of 50, which neither 3 nor 4 divides, and a last one of 3, which leaves a rank of four
// with nothing. Tolerance: 0.2% of each loss, after 30 steps of float32 sums in another order.
TEST(TrainProcess, SameCurveForAnyNumberOfRanks) {
  TemporaryFolder folder;
  write_dataset(folder, 503, 101);
  const std::string arguments =
      "--json --epochs 3 --batch 50 --lr 0.02 --bucket-bytes 10000 --data " + folder.path();
  const Outcome alone = run_trainer(arguments);
  ASSERT_EQ(alone.code, 0) << alone.output;
  const auto expected = epochs_of(alone);
  ASSERT_EQ(expected.size(), 3u) << alone.output;
  EXPECT_LT(expected[2]["train_loss"], 0.7 * expected[0]["train_loss"].get<double>());
  for (const int ranks : {2, 3, 4}) {
    const Outcome outcome = run_trainer(arguments + " --ranks " + std::to_string(ranks));
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const auto epochs = epochs_of(outcome);
    ASSERT_EQ(epochs.size(), 3u) << outcome.output;
    for (size_t i = 0; i < 3; i++) {
      EXPECT_EQ(epochs[i]["ranks"], ranks);
      for (const char* curve : {"train_loss", "test_loss"}) {
        const double want = expected[i][curve];
        EXPECT_NEAR(epochs[i][curve].get<double>(), want, 0.002 * want)
            << curve << " of epoch " << i + 1 << " on " << ranks << " ranks";
      }
    }
  }
}

TEST(TrainProcess, OneBigBucketAndOnePerLayerAgree) {
  TemporaryFolder folder;
  write_dataset(folder, 200, 50);
  const std::string arguments = "--json --epochs 1 --batch 40 --ranks 2 --data " + folder.path();
  const auto small = epochs_of(run_trainer(arguments + " --bucket-bytes 1"));
  const auto big = epochs_of(run_trainer(arguments + " --bucket-bytes 100000000"));
  ASSERT_EQ(small.size(), 1u);
  ASSERT_EQ(big.size(), 1u);
  const double want = small[0]["train_loss"];
  EXPECT_NEAR(big[0]["train_loss"].get<double>(), want, 0.001 * want);
}

/// Children of a process, in the order in which it started them.
std::vector<pid_t> children_of(pid_t parent) {
  std::ifstream file("/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) +
                     "/children");
  std::vector<pid_t> children;
  for (pid_t child; file >> child;) children.push_back(child);
  return children;
}

/// Runs the trainer on four ranks, and kills those of `victims` one after the other, each when an
/// epoch is over.
Outcome run_and_kill(const std::string& arguments, const std::vector<size_t>& victims) {
  int ends[2];
  if (pipe(ends) != 0) return {-1, "no pipe"};
  const pid_t trainer = fork();
  if (trainer == 0) {
    dup2(ends[1], 1);
    dup2(ends[1], 2);
    const std::string command = std::string("exec ") + RAILCCL_TRAIN + " --ranks 4 " + arguments;
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  close(ends[1]);
  std::string output;
  size_t killed = 0;
  std::vector<pid_t> ranks;
  char block[4096];
  for (ssize_t got; (got = read(ends[0], block, sizeof block)) > 0;) {
    output.append(block, static_cast<size_t>(got));
    if (ranks.empty()) ranks = children_of(trainer);
    const auto epochs = static_cast<size_t>(epochs_of({0, output}).size());
    if (killed < victims.size() && epochs > killed && ranks.size() == 4)
      kill(ranks[victims[killed++]], SIGKILL);
  }
  close(ends[0]);
  int status = 0;
  waitpid(trainer, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

// That every sample has its part in every epoch exactly once shows in the curve: it stays that of
// the undisturbed run. Tolerance: 1%, since sums in another order grow apart where the curve is
// steepest, over three times as many steps as above.
TEST(TrainProcess, KilledRanksDoNotChangeTheCurve) {
  TemporaryFolder folder;
  write_dataset(folder, 1503, 101);
  const std::string arguments =
      "--json --epochs 5 --batch 50 --lr 0.01 --bucket-bytes 10000 --data " + folder.path();
  const auto expected = epochs_of(run_trainer(arguments + " --ranks 2"));
  ASSERT_EQ(expected.size(), 5u);
  for (const std::vector<size_t>& victims : std::vector<std::vector<size_t>>{{2, 1}, {0, 3}}) {
    const Outcome outcome = run_and_kill(arguments, victims);
    ASSERT_EQ(outcome.code, 0) << outcome.output;
    const auto epochs = epochs_of(outcome);
    ASSERT_EQ(epochs.size(), 5u) << outcome.output;
    EXPECT_EQ(epochs[4]["ranks"], 2) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr("recovered_at_step"));
    for (size_t i = 0; i < 5; i++) {
      const double want = expected[i]["test_loss"];
      EXPECT_NEAR(epochs[i]["test_loss"].get<double>(), want, 0.01 * want)
          << "epoch " << i + 1 << "\n"
          << outcome.output;
    }
  }
}

TEST(TrainProcess, BadDataAndBadOptions) {
  TemporaryFolder folder;
  Outcome outcome = run_trainer("--ranks 2 --data " + folder.path());
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("cannot be opened"));
  write_dataset(folder, 20, 20);
  std::filesystem::resize_file(folder.file("t10k-labels-idx1-ubyte"), 20);
  outcome = run_trainer("--ranks 2 --data " + folder.path());
  EXPECT_EQ(outcome.code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("t10k-labels-idx1-ubyte ends too early"));
  EXPECT_EQ(run_trainer("--batch 0").code, 2);
  EXPECT_EQ(run_trainer("--epochs many").code, 2);
  EXPECT_EQ(run_trainer("--help").code, 0);
  outcome = run_trainer("--version");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, HasSubstr("railccl-train "));
}

}  // namespace
}  // namespace railccl::train
