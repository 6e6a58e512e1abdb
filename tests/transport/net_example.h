// The example network plugins of tests/plugins, for tests: where they are, how to make them
// misbehave, and worlds of ranks that use them.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "transport/harness.h"

namespace railccl::transport {

inline std::string file_of(int version) {
  return fmt::format("{}/libnccl-net-example{}.so", RAILCCL_PLUGINS, version);
}

inline Settings settings_of(int version) {
  Settings settings;
  settings.socket_ifname = "=lo";
  settings.net_plugin = file_of(version);
  return settings;
}

/// What an example plugin shows of itself, and how to make it misbehave. Behaves well again at the
/// end.
class Example {
 public:
  explicit Example(int version) : library_(::dlopen(file_of(version).c_str(), RTLD_NOW)) {
    EXPECT_NE(library_, nullptr) << ::dlerror();
  }
  ~Example() { misbehave(""); }
  Example(const Example&) = delete;
  Example& operator=(const Example&) = delete;
  void misbehave(const std::string& how) {
    std::strncpy(find<char>("example_fault"), how.c_str(), 63);
    *find<int>("example_times") = 0;
  }
  int alive() const { return *find<int>("example_alive"); }
  int inits() const { return *find<int>("example_inits"); }

 private:
  template <typename T>
  T* find(const char* name) const {
    return static_cast<T*>(::dlsym(library_, name));
  }
  void* library_;
};

/// Ranks on hosts of their own: links have two paths.
inline RealWorld two_hosts(int version) {
  Settings settings = settings_of(version);
  settings.socket_ifname = "";
  return RealWorld("nccl_net", 2, settings, nullptr, [](Context* context) {
    context->host_id = static_cast<uint64_t>(context->rank) + 1;
  });
}

}  // namespace railccl::transport
