// Little endian: whole numbers in messages between hosts, lowest byte first on any machine.
#pragma once

#include <cstddef>

namespace railccl::transport {

template <typename T>
void put(std::byte* to, T value) {
  for (size_t i = 0; i < sizeof(T); i++) to[i] = static_cast<std::byte>((value >> (8 * i)) & 0xff);
}

template <typename T>
T get(const std::byte* from) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); i++)
    value = static_cast<T>(value | static_cast<T>(std::to_integer<T>(from[i]) << (8 * i)));
  return value;
}

}  // namespace railccl::transport
