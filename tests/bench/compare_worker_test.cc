// The worker of compare_host: its turns, samples and above all its verification, with a library
// made for the test that works through one shared array and can be told to be wrong in one way.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "worker.h"

namespace railccl::compare {
namespace {

constexpr int kRanks = 3;
constexpr size_t kMost = 12 * 1024;  // elements

/// Everyone's input, seen by all ranks.
struct Shared {
  float in[kRanks][kMost];
};

/// The plainest collectives there are. The fault is asked for through the turn's variant.
class Plain : public Library {
 public:
  Plain(Page& page, Shared& shared, int rank) : page_(page), shared_(shared), rank_(rank) {}
  bool connect(Page&, int, std::string*) override { return true; }

  bool bind(Work& work, std::string* error) override {
    work_ = &work;
    work.in_place = work.variant == "in place";
    *error = "no halves here";
    return work.type == Type::float32;
  }

  bool call() override {
    const Work& w = *work_;
    if (w.variant == "fails") return false;
    const bool from_out = w.operation == Operation::broadcast || w.in_place;
    const size_t mine = w.operation == Operation::all_gather ? w.block : w.count;
    std::memcpy(shared_.in[rank_], from_out ? w.out : w.in, mine * 4);
    if (!meet(page_)) return false;
    auto* out = static_cast<float*>(w.out);
    const size_t me = static_cast<size_t>(rank_);
    for (size_t r = 0; r < kRanks; ++r) {
      switch (w.operation) {
        case Operation::all_reduce:
          add(out, shared_.in[r], w.count, r == 0);
          break;
        case Operation::reduce_scatter:
          add(out, shared_.in[r] + me * w.block, w.block, r == 0);
          break;
        case Operation::all_gather:
          std::memcpy(out + r * w.block, shared_.in[r], w.block * 4);
          break;
        case Operation::broadcast:
          std::memcpy(out, shared_.in[0], w.count * 4);
          break;
        case Operation::all_to_all:
          std::memcpy(out + r * w.block, shared_.in[r] + me * w.block, w.block * 4);
          break;
      }
    }
    if (w.variant == "one off" && rank_ == 1) out[w.block - 1] += 1;
    if (w.variant == "shifted" && rank_ == 2) std::memmove(out, out + 1, (w.block - 1) * 4);
    return meet(page_);  // nobody writes an input that others still read
  }

 private:
  static void add(float* out, const float* in, size_t count, bool first) {
    for (size_t i = 0; i < count; ++i) out[i] = in[i] + (first ? 0 : out[i]);
  }

  Page& page_;
  Shared& shared_;
  const int rank_;
  const Work* work_ = nullptr;
};

/// Three worker processes; the test is their driver.
class CompareWorker : public testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() / ("page." + std::to_string(getpid()));
    std::filesystem::remove(path_);
    ASSERT_TRUE(page_.create(path_, kRanks, false, true));
    void* memory =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    for (int rank = 0; rank < kRanks; ++rank) {
      const pid_t child = fork();
      if (child == 0) {
        Plain library(*page_, *static_cast<Shared*>(memory), rank);
        _exit(run_worker(library, path_, rank));
      }
      children_.push_back(child);
    }
    munmap(memory, sizeof(Shared));
  }

  void TearDown() override {
    Turn last;
    last.finish = 1;
    command(last);
    for (const pid_t child : children_) waitpid(child, nullptr, 0);
    std::filesystem::remove(path_);
  }

  void command(const Turn& turn) {
    page_->turn = turn;
    page_->turn_number.fetch_add(1, std::memory_order_release);
    wake_all(&page_->turn_number);
    ++turns_;
  }

  /// Elements that all ranks together found wrong, or -1 when not all answered within 20 s.
  int64_t wrong(const Turn& turn) {
    command(turn);
    const double deadline = now_us() + 20e6;
    while (page_->answers.load(std::memory_order_acquire) != turns_ * kRanks) {
      if (now_us() > deadline) return -1;
      usleep(200);
    }
    int64_t sum = 0;
    for (int rank = 0; rank < kRanks; ++rank) {
      sum += static_cast<int64_t>(page_->answer[rank].wrong);
    }
    return sum;
  }

  Turn turn_of(Operation operation, size_t bytes, const std::string& variant = "") {
    Turn turn;
    turn.operation = operation;
    turn.bytes = bytes;
    turn.blocks = 2;
    variant.copy(turn.variant, sizeof turn.variant - 1);
    return turn;
  }

  std::string path_;
  PageFile page_;
  std::vector<pid_t> children_;
  uint32_t turns_ = 0;
};

TEST_F(CompareWorker, RightResultsPassInEveryCollective) {
  for (int i = 0; i < kOperationCount; ++i) {
    for (const size_t bytes : {12UL, 1000UL, 48UL * 1024}) {
      EXPECT_EQ(wrong(turn_of(static_cast<Operation>(i), bytes)), 0)
          << name_of(static_cast<Operation>(i)) << " " << bytes;
    }
  }
}

TEST_F(CompareWorker, OneWrongElementIsCounted) {
  for (int i = 0; i < kOperationCount; ++i) {
    EXPECT_EQ(wrong(turn_of(static_cast<Operation>(i), 6000, "one off")), 1)
        << name_of(static_cast<Operation>(i));
  }
}

TEST_F(CompareWorker, AShiftedBlockIsFound) {
  for (int i = 0; i < kOperationCount; ++i) {
    EXPECT_GT(wrong(turn_of(static_cast<Operation>(i), 6000, "shifted")), 100)
        << name_of(static_cast<Operation>(i));
  }
}

TEST_F(CompareWorker, BlocksOfCallsGiveOneTimePerCall) {
  Turn turn = turn_of(Operation::all_reduce, 1200);
  turn.blocks = 3;
  turn.calls_per_block = 50;
  ASSERT_EQ(wrong(turn), 0);
  for (int rank = 0; rank < kRanks; ++rank) {
    for (int i = 0; i < 3; ++i) EXPECT_GT(page_->answer[rank].us[i], 0);
    EXPECT_EQ(page_->answer[rank].us[3], 0);
  }
}

TEST_F(CompareWorker, InPlaceSumsAreCheckedAfterASingleCall) {
  Turn turn = turn_of(Operation::all_reduce, 1200, "in place");
  turn.calls_per_block = 5;
  EXPECT_EQ(wrong(turn), 0);
  EXPECT_EQ(wrong(turn), 0);
}

TEST_F(CompareWorker, WhatALibraryDoesNotOfferIsARefusalAndNoEnd) {
  Turn turn = turn_of(Operation::all_reduce, 1200);
  turn.type = Type::bfloat16;
  EXPECT_EQ(wrong(turn), 0);
  for (int rank = 0; rank < kRanks; ++rank) {
    EXPECT_EQ(page_->answer[rank].failed, 1U);
    EXPECT_STREQ(page_->answer[rank].text, "no halves here");
  }
  EXPECT_EQ(wrong(turn_of(Operation::all_reduce, 1200)), 0);
  EXPECT_EQ(page_->answer[0].failed, 0U);
}

TEST_F(CompareWorker, AFailedCallEndsTheProcess) {
  command(turn_of(Operation::all_reduce, 1200, "fails"));
  for (pid_t& child : children_) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
  }
  children_.clear();
  EXPECT_STREQ(page_->answer[0].text, "the call failed");
}

TEST(ComparePage, AFileOfAnotherSizeIsNoPage) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("nopage." + std::to_string(getpid()));
  {
    PageFile page;
    EXPECT_FALSE(page.attach(path));
  }
  ASSERT_EQ(system(("echo short > " + path).c_str()), 0);
  {
    PageFile page;
    EXPECT_FALSE(page.attach(path));
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace railccl::compare
