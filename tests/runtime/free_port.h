// A port for a meeting at a place that is known beforehand.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>

#include "base/owners.h"

namespace railccl::test {

/// A port that nobody uses now. Not one of those that the kernel hands out: any connection may get
/// such a port before the meeting does, even one that is made to the meeting. Tests that run side
/// by side begin to look in different places.
inline uint16_t free_port() {
  constexpr unsigned kFirst = 10'000, kPorts = 14'000;
  static std::atomic<unsigned> next{static_cast<unsigned>(getpid()) * 37};
  for (unsigned tried = 0; tried < kPorts; tried++) {
    const auto port = static_cast<uint16_t>(kFirst + next++ % kPorts);
    const UniqueFd probe(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (bind(probe.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return port;
  }
  ADD_FAILURE() << "no port is free";
  return 0;
}

}  // namespace railccl::test
