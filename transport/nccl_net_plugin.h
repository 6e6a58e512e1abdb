// NetPlugin: a network plugin of NCCL as one communicator uses it, whatever the version of its
// interface: libraries are found by NCCL_NET_PLUGIN and chosen by NCCL_NET, and each version from 6
// to 11 is adapted to this class.
//
// A library is opened, and up to version 10 initialized, once per process, and stays. One thread at
// a time uses a connection; several threads may use one NetPlugin.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/settings.h"
#include "transport/message_net.h"
#include "transport/nccl_net_abi.h"

namespace railccl::transport {

class NetPlugin : public MessageNet {
 public:
  /// The first plugin that the settings mean, that loads, initializes, and has devices. Fails with
  /// unsupported when there is none, and why; with invalid_usage when NCCL_NET names none of them.
  static Result<std::shared_ptr<NetPlugin>> open(const Settings& settings, uint64_t communicator);
  int version() const { return version_; }
  std::string title() const override {
    return fmt::format("network plugin {} (v{})", name_, version_);
  }
  size_t handle_bytes() const override { return net_abi::kHandleBytes; }

  static constexpr int kOldest = 6, kNewest = 11;

 protected:
  NetPlugin(std::string name, int version) : MessageNet(std::move(name)), version_(version) {}
  /// That the plugin's function has returned this.
  Status failure(const char* function, PluginResult result) const;
  Status check(const char* function, PluginResult result) const {
    return result == kPluginSuccess ? ok() : failure(function, result);
  }

  const int version_;
};

}  // namespace railccl::transport
