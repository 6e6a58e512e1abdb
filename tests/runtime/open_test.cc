// Open buffers: collectives that read and write all ranks' buffers in place. Shown, with threads,
// processes and both: exact results of every collective, type and operator, in and out of place, at
// odd offsets inside an allocation; that what cannot be reached by all is served the ordinary way,
// with all ranks in step; that memory may be released while peers map it; that different calls are
// named, and waits can be aborted. RAILCCL_OPEN_SIZE=0 makes calls of every size ask.
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>

#include "base/owners.h"
#include "processes.h"
#include "transport/memory_file.h"

namespace railccl::test {
namespace {

using ::testing::HasSubstr;
using transport::MemoryFile;

const std::vector<std::string> kAlways = {"RAILCCL_OPEN_SIZE=0"};

/// Memory from a memory file, released in the end.
class Memory {
 public:
  explicit Memory(size_t bytes) {
    auto made = MemoryFile::create(std::max<size_t>(bytes, 1));
    EXPECT_TRUE(made.is_ok()) << made.status().text();
    start_ = (*made)->data();
  }
  ~Memory() { MemoryFile::release(start_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  std::byte* at(size_t offset) const { return start_ + offset; }

 private:
  std::byte* start_;
};

/// The buffers of one call, moved to memory files, `shift` bytes behind a file's start.
class Placed {
 public:
  Placed(const Request& request, int ranks, int rank, size_t shift)
      : model_(request, ranks, rank),
        output_(shift + model_.output_memory.size()),
        input_(shift + model_.input_memory.size()),
        shift_(shift) {
    std::copy(model_.output_memory.begin(), model_.output_memory.end(), output_.at(shift));
    std::copy(model_.input_memory.begin(), model_.input_memory.end(), input_.at(shift));
  }
  Call call() {
    Call call = call_of(model_.request_, model_);
    const auto moved = [&](const std::byte* p) -> std::byte* {
      const auto in = [&](const std::vector<std::byte>& memory) {
        return !memory.empty() && p >= memory.data() && p < memory.data() + memory.size();
      };
      if (in(model_.output_memory)) return output_.at(shift_) + (p - model_.output_memory.data());
      if (in(model_.input_memory)) return input_.at(shift_) + (p - model_.input_memory.data());
      return nullptr;
    };
    call.input = moved(model_.input);
    call.output = moved(model_.output);
    return call;
  }
  int64_t first_wrong() {
    std::copy_n(output_.at(shift_), model_.output_memory.size(), model_.output_memory.begin());
    return model_.first_wrong();
  }

 private:
  Buffers model_;
  Memory output_, input_;
  size_t shift_;
};

/// One call on memory files; by which algorithm it was served.
std::string served_by(Communicator& communicator, const Request& request, size_t shift = 0) {
  Placed placed(request, communicator.size(), communicator.rank(), shift);
  const Status status = communicator.start(placed.call(), nullptr);
  EXPECT_TRUE(status.is_ok()) << plan::text_of(request) << ": " << status.text();
  if (!status.is_ok()) return "";
  EXPECT_EQ(placed.first_wrong(), -1)
      << plan::text_of(request) << " on rank " << communicator.rank() << " of "
      << communicator.size() << " by " << communicator.last_choice().algorithm;
  return communicator.last_choice().algorithm;
}

/// Random calls of every collective, the same on all ranks.
void expect_all_open(Communicator& communicator, int rounds) {
  Random random(7);
  for (int round = 0; round < rounds; round++)
    for (int c = 0; c < kCollectiveCount; c++) {
      const Request request =
          random_request(random, static_cast<Collective>(c), communicator.size(), 60000);
      const size_t shift = random.below(3) == 0 ? 0 : random.below(200);
      const std::string algorithm = served_by(communicator, request, shift);
      if (testing::Test::HasFailure()) return;
      if (communicator.size() > 1 && request.count > 0) {
        ASSERT_EQ(algorithm, "open") << plan::text_of(request);
      }
    }
}

TEST(OpenBuffers, ThreadsNeedNoMemoryFiles) {
  for (const int ranks : {1, 2, 3, 4, 5}) {
    with_communicator(ranks, settings_with(kAlways), [&](const CommunicatorPtr& communicator) {
      Random random(11);
      for (int round = 0; round < 12; round++)
        for (int c = 0; c < kCollectiveCount; c++) {
          const Request request = random_request(random, static_cast<Collective>(c), ranks, 40000);
          expect_exact(*communicator, request);
          if (HasFatalFailure()) return;
          if (ranks > 1 && request.count > 0) {
            ASSERT_EQ(communicator->last_choice().algorithm, "open") << plan::text_of(request);
          }
        }
    });
    if (HasFailure()) return;
  }
}

TEST(OpenBuffers, ThePlansThatRunAreProven) {
  with_communicator(3, settings_with({"RAILCCL_OPEN_SIZE=0", "RAILCCL_CHECK_PLANS=1"}),
                    [&](const CommunicatorPtr& communicator) {
                      for (int c = 0; c < kCollectiveCount; c++)
                        expect_exact(*communicator, sum_request(100, static_cast<Collective>(c)));
                    });
}

TEST(OpenBuffers, ProcessesShareMemoryFiles) {
  RAILCCL_SKIP_FORKS();
  for (const int ranks : {2, 3, 5}) {
    with_processes(ranks, 1, settings_with(kAlways),
                   [&](const CommunicatorPtr& communicator) { expect_all_open(*communicator, 8); });
    if (HasFailure()) return;
  }
}

TEST(OpenBuffers, ThreadsOfSeveralProcesses) {
  RAILCCL_SKIP_FORKS();
  with_processes(2, 2, settings_with(kAlways),
                 [&](const CommunicatorPtr& communicator) { expect_all_open(*communicator, 8); });
}

TEST(OpenBuffers, EveryContributionHasItsOwnFactor) {
  const auto check = [](const CommunicatorPtr& communicator) {
    constexpr size_t kCount = 5000;
    const int rank = communicator->rank();
    const Memory memory(2 * kCount * sizeof(float));
    float* const input = reinterpret_cast<float*>(memory.at(0));
    float* const output = input + kCount;
    for (size_t i = 0; i < kCount; i++) input[i] = static_cast<float>(i % 7);
    Call call;
    call.request = sum_request(kCount);
    call.request.op = Reduction::pre_mul_sum;
    call.input = input;
    call.output = output;
    call.factor = {kernels::Scale::Kind::multiply, rank + 1.0, rank + 1};
    const Status status = communicator->start(call, nullptr);
    ASSERT_TRUE(status.is_ok()) << status.text();
    EXPECT_EQ(communicator->last_choice().algorithm, "open");
    for (size_t i = 0; i < kCount; i++)
      ASSERT_EQ(output[i], static_cast<float>((1 + 2 + 3) * (i % 7))) << i;
  };
  with_communicator(3, settings_with(kAlways), check);
#ifndef __SANITIZE_THREAD__
  with_processes(3, 1, settings_with(kAlways), check);
#endif
}

TEST(OpenBuffers, OneOrdinaryBufferIsEnoughForTheOrdinaryWay) {
  RAILCCL_SKIP_FORKS();
  with_processes(2, 1, settings_with(kAlways), [&](const CommunicatorPtr& communicator) {
    const bool ordinary = communicator->rank() == 1;
    for (int c = 0; c < kCollectiveCount; c++)
      for (const uint64_t count : {1, 100, 30000}) {
        const Request request = sum_request(count, static_cast<Collective>(c));
        if (ordinary)
          expect_exact(*communicator, request);
        else
          EXPECT_NE(served_by(*communicator, request), "open");
        EXPECT_EQ(served_by(*communicator, request), "open");  // both
        if (HasFailure()) return;
      }
  });
}

TEST(OpenBuffers, WhoNeverHasOpenBuffersIsAskedRarelyButInTheEnd) {
  RAILCCL_SKIP_FORKS();
  with_processes(3, 1, settings_with(kAlways), [&](const CommunicatorPtr& communicator) {
    Request request = sum_request(500);
    for (int round = 0; round < 300; round++) {
      // Of this the ranks need not be of one mind.
      request.in_place = round % 3 == communicator->rank();
      expect_exact(*communicator, request);
      if (HasFailure()) return;
    }
    request.in_place = false;
    int calls = 0;
    while (served_by(*communicator, request) != "open" && !HasFailure()) ASSERT_LT(++calls, 66);
    // Other calls were open all the time, and this one is again.
    EXPECT_EQ(served_by(*communicator, sum_request(501)), "open");
    EXPECT_EQ(served_by(*communicator, request), "open");
  });
}

TEST(OpenBuffers, ABufferAcrossTwoFilesIsServedTheOrdinaryWay) {
  RAILCCL_SKIP_FORKS();
  with_processes(2, 1, settings_with(kAlways), [&](const CommunicatorPtr& communicator) {
    // Small mappings grow downwards, each next to the one before, mostly: look for such a pair.
    constexpr size_t kBytes = 64 << 10;
    std::vector<std::unique_ptr<Memory>> memories;
    std::byte* pair = nullptr;
    while (pair == nullptr && memories.size() < 50) {
      memories.push_back(std::make_unique<Memory>(kBytes));
      for (const auto& memory : memories)
        if (memory->at(0) == memories.back()->at(kBytes)) pair = memories.back()->at(0);
    }
    std::vector<float> ordinary(2 * kBytes / sizeof(float));
    float* data = pair == nullptr ? ordinary.data() : reinterpret_cast<float*>(pair);
    Call call;
    call.request = sum_request(ordinary.size());
    call.request.in_place = true;
    call.input = call.output = data;
    std::fill_n(data, call.request.count, 1.0f);
    ASSERT_TRUE(communicator->start(call, nullptr).is_ok());
    EXPECT_NE(communicator->last_choice().algorithm, "open");
    EXPECT_EQ(std::count(data, data + call.request.count, 2.0f), call.request.count);
    call.request.count /= 2;  // all in one
    data = reinterpret_cast<float*>(memories.front()->at(0));
    call.input = call.output = data;
    std::fill_n(data, call.request.count, 2.0f);
    ASSERT_TRUE(communicator->start(call, nullptr).is_ok());
    EXPECT_EQ(communicator->last_choice().algorithm, "open");
    EXPECT_EQ(std::count(data, data + call.request.count, 4.0f), call.request.count);
  });
}

TEST(OpenBuffers, MemoryMayBeReleasedWhilePeersMapIt) {
  RAILCCL_SKIP_FORKS();
  with_processes(2, 1, settings_with(kAlways), [&](const CommunicatorPtr& communicator) {
    const auto mapped_files = [] {
      int count = 0;
      std::ifstream maps("/proc/self/maps");
      for (std::string line; std::getline(maps, line);)
        count += line.find("railccl-memory") != std::string::npos ? 1 : 0;
      return count;
    };
    for (int round = 0; round < 100; round++) {
      ASSERT_EQ(served_by(*communicator, sum_request(20000 + static_cast<uint64_t>(round))),
                "open");
      if (round % 20 == 0) usleep(60'000);  // longer than a look at the sockets takes to come
    }
    usleep(120'000);
    // Calls bring the looks at the sockets with them.
    for (int round = 0; round < 3; round++) {
      served_by(*communicator, sum_request(1));
      usleep(60'000);
    }
    EXPECT_LT(mapped_files(), 40);
  });
}

TEST(OpenBuffers, DifferentCallsAreNamed) {
  for (const uint64_t theirs : {uint64_t{7}, uint64_t{70000}}) {
    with_communicator(
        2, settings_with({"RAILCCL_STALL_MS=50"}), [&](const CommunicatorPtr& communicator) {
          const Request request = sum_request(communicator->rank() == 0 ? 60000 : theirs);
          Buffers buffers(request, 2, communicator->rank());
          const Status status = communicator->start(call_of(request, buffers), nullptr);
          EXPECT_EQ(status.code(), Code::mismatch) << status.text();
          EXPECT_THAT(status.text(), HasSubstr("count=60000"));
          EXPECT_THAT(status.text(), HasSubstr(fmt::format("count={}", theirs)));
        });
  }
}

TEST(OpenBuffers, TheExchangeCanBeAborted) {
  with_communicator(2, settings_with(kAlways), [&](const CommunicatorPtr& communicator) {
    if (communicator->rank() == 1) {
      usleep(100'000);
      return communicator->abort("enough");
    }
    Buffers buffers(sum_request(1000), 2, 0);
    const Status status = communicator->start(call_of(sum_request(1000), buffers), nullptr);
    EXPECT_FALSE(status.is_ok());
    EXPECT_THAT(status.text(), HasSubstr("enough"));
  });
}

}  // namespace
}  // namespace railccl::test
