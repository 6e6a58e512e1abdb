// Ranks for API tests: threads of this process, each with a communicator. Private to these tests.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "nccl.h"
#include "railccl/railccl.h"

namespace railccl::test {

#define OK(call) ASSERT_EQ(call, ncclSuccess) << ncclGetLastError(nullptr)

/// The call fails with this code, and the text contains this.
#define FAILS(call, code, text)                                         \
  do {                                                                  \
    EXPECT_EQ(call, code);                                              \
    EXPECT_THAT(ncclGetLastError(nullptr), ::testing::HasSubstr(text)); \
  } while (0)

/// An environment variable for the time of a test.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

/// Runs body(rank) in one thread per rank.
template <typename Body>
void on_threads(int ranks, const Body& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; rank++) threads.emplace_back([&body, rank] { body(rank); });
  for (std::thread& thread : threads) thread.join();
}

/// Communicators of `ranks` ranks, comm(i) being rank i; destroyed with the object unless taken.
class Ranks {
 public:
  explicit Ranks(int ranks, const ncclConfig_t* config = nullptr)
      : comms_(static_cast<size_t>(ranks)) {
    ncclUniqueId id;
    EXPECT_EQ(ncclGetUniqueId(&id), ncclSuccess) << ncclGetLastError(nullptr);
    on_threads(ranks, [&](int rank) {
      ncclConfig_t own = NCCL_CONFIG_INITIALIZER;
      if (config != nullptr) own = *config;
      const ncclResult_t result =
          ncclCommInitRankConfig(&comms_[static_cast<size_t>(rank)], ranks, id, rank, &own);
      EXPECT_TRUE(result == ncclSuccess || result == ncclInProgress) << ncclGetLastError(nullptr);
    });
  }
  ~Ranks() {
    on_threads(size(), [&](int rank) {
      EXPECT_EQ(ncclCommDestroy(comm(rank)), ncclSuccess) << ncclGetLastError(nullptr);
    });
  }
  int size() const { return static_cast<int>(comms_.size()); }
  ncclComm_t comm(int rank) const { return comms_[static_cast<size_t>(rank)]; }
  ncclComm_t take(int rank) { return std::exchange(comms_[static_cast<size_t>(rank)], nullptr); }
  template <typename Body>  // body(rank, comm)
  void each(const Body& body) const {
    on_threads(size(), [&](int rank) { body(rank, comm(rank)); });
  }

 private:
  std::vector<ncclComm_t> comms_;
};

}  // namespace railccl::test
