// Shows on real processes that the number of ranks does not change what is learned, that a network
// does learn, and that bad data ends with a sentence and exit code 2. Runs railccl-train on a small
// dataset made on the spot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdio>
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
    if (parsed.is_object()) epochs.push_back(parsed);
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
