// RegisteredMemory: ranges of this process's memory whose owners promise that they stay as they are
// mapped for as long as they are registered: those of ncclCommRegister and of windows, what
// ncclMemAlloc gave, and scratch of our own. Media whose devices have to be shown memory before
// they read it (verbs) do that once per range instead of copying.
//
// Only such ranges: nobody tells a library when other memory is unmapped and its address is given
// to something else, and a device would go on reading the old pages. So what is not registered is
// copied.
//
// A range is registered while its handle lives. A range registered again, or another one at the
// same address, is another handle: what was remembered by the old one means nothing for it.
//
// Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace railccl::transport {

struct MemoryRange {
  std::byte* data = nullptr;
  size_t size = 0;
  bool holds(const void* address, size_t bytes) const {
    const auto offset = reinterpret_cast<uintptr_t>(address) - reinterpret_cast<uintptr_t>(data);
    return offset <= size && bytes <= size - offset;
  }
};

class RegisteredMemory {
 public:
  static std::shared_ptr<const RegisteredMemory> add(const void* address, size_t bytes);
  /// Some range that holds all of [address, address + bytes), or null.
  static std::shared_ptr<const RegisteredMemory> find(const void* address, size_t bytes);
  /// Changes with every add() and with the end of every handle.
  static uint64_t generation();

  ~RegisteredMemory();
  RegisteredMemory(const RegisteredMemory&) = delete;
  RegisteredMemory& operator=(const RegisteredMemory&) = delete;

  const MemoryRange& range() const { return range_; }

 private:
  explicit RegisteredMemory(const MemoryRange& range) : range_(range) {}
  const MemoryRange range_;
};

}  // namespace railccl::transport
