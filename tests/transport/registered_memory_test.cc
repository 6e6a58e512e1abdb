// Registered memory: found while its handle lives, whatever else is registered; and never by a
// handle that has ended, though the address be the same.
#include "transport/registered_memory.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "transport/memory_file.h"

namespace railccl::transport {
namespace {

TEST(RegisteredMemory, IsFoundByAnyPartOfItWhileItsHandleLives) {
  std::array<std::byte, 1000> memory{};
  auto handle = RegisteredMemory::add(memory.data(), memory.size());
  EXPECT_EQ(RegisteredMemory::find(memory.data(), memory.size()), handle);
  EXPECT_EQ(RegisteredMemory::find(memory.data() + 999, 1), handle);
  EXPECT_EQ(RegisteredMemory::find(memory.data() + 1, 999), handle);
  EXPECT_EQ(RegisteredMemory::find(memory.data() + 1, 1000), nullptr);
  EXPECT_EQ(RegisteredMemory::find(memory.data() - 1, 2), nullptr);
  EXPECT_EQ(RegisteredMemory::find(memory.data() + 10, ~size_t{0}), nullptr);
  const uint64_t generation = RegisteredMemory::generation();
  handle.reset();
  EXPECT_NE(RegisteredMemory::generation(), generation);
  EXPECT_EQ(RegisteredMemory::find(memory.data(), 1), nullptr);
}

TEST(RegisteredMemory, RangesMayOverlap) {
  std::array<std::byte, 1000> memory{};
  auto inner = RegisteredMemory::add(memory.data() + 100, 10);
  auto outer = RegisteredMemory::add(memory.data(), 1000);
  auto again = RegisteredMemory::add(memory.data(), 1000);
  EXPECT_NE(outer, again);
  EXPECT_EQ(RegisteredMemory::find(memory.data() + 105, 10), outer);
  outer.reset();
  EXPECT_EQ(RegisteredMemory::find(memory.data() + 105, 10), again);
  again.reset();
  EXPECT_EQ(RegisteredMemory::find(memory.data() + 105, 5), inner);
}

TEST(RegisteredMemory, AFileIsItUntilItIsReleased) {
  auto file = MemoryFile::create(4096);
  ASSERT_TRUE(file.is_ok());
  std::byte* const data = (*file)->data();
  EXPECT_NE(RegisteredMemory::find(data + 4000, 96), nullptr);
  ASSERT_TRUE(MemoryFile::release(data));
  // Though the mapping is still held here.
  EXPECT_EQ(RegisteredMemory::find(data, 1), nullptr);
}

TEST(RegisteredMemory, ThreadsComeAndGo) {
  std::array<std::byte, 64> memory{};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; i++) {
        const auto handle = RegisteredMemory::add(memory.data(), memory.size());
        const auto found = RegisteredMemory::find(memory.data() + 1, 8);
        ASSERT_NE(found, nullptr);
        EXPECT_EQ(found->range().data, memory.data());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(RegisteredMemory::find(memory.data(), 1), nullptr);
}

}  // namespace
}  // namespace railccl::transport
