// Reading another process's memory: what comes, and what is said when nothing can.
#include "transport/process_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <vector>

namespace railccl::transport {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

/// A child that has the same memory as this process had, and sleeps.
class Child {
 public:
  Child() : pid_(fork()) {
    if (pid_ == 0)
      for (;;) pause();
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(ProcessMemory, ComesAsItWasThere) {
  std::vector<unsigned char> data(3 << 20, 7), copy(data.size());
  const Child child;
  std::fill(data.begin(), data.end(), 9);  // here, not in the child
  const auto from = reinterpret_cast<uintptr_t>(data.data());
  const Status status = read_process_memory(child.pid(), copy.data(), from, copy.size());
  ASSERT_TRUE(status.is_ok()) << status.text();
  EXPECT_THAT(copy, Each(7));
  EXPECT_TRUE(read_process_memory(child.pid(), nullptr, 0, 0).is_ok());
}

TEST(ProcessMemory, WhatIsMissingIsSaid) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto* pages = static_cast<std::byte*>(
      mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(pages, MAP_FAILED);
  munmap(pages + page, page);
  std::vector<std::byte> copy(2 * page);
  const auto from = reinterpret_cast<uintptr_t>(pages);
  // Half of it is there.
  const Status status = read_process_memory(own_process(), copy.data(), from, copy.size());
  EXPECT_THAT(status.text(), HasSubstr("there is no such memory"));
  munmap(pages, page);

  pid_t gone = 0;
  {
    const Child child;
    gone = child.pid();
  }
  EXPECT_THAT(read_process_memory(gone, copy.data(), from, 1).text(), HasSubstr("No such process"));
}

TEST(ProcessMemory, AProcessIsKnownByItsLandmark) {
  uint64_t word = 0x1234567890abcdef;
  const Child child;
  const Landmark mark = {child.pid(), reinterpret_cast<uintptr_t>(&word), word};
  EXPECT_TRUE(can_read(mark));
  word = 5;  // this process is another one from here on
  EXPECT_TRUE(can_read(mark));
  EXPECT_FALSE(can_read({own_process(), mark.address, mark.value}));
  EXPECT_FALSE(can_read({mark.process, 0, mark.value}));
}

}  // namespace
}  // namespace railccl::transport
