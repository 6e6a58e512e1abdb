// NetPlugin: a network plugin of NCCL as one communicator uses it, whatever the version of its
// interface: libraries are found by NCCL_NET_PLUGIN and chosen by NCCL_NET, and each version from 6
// to 11 is adapted to this class.
//
// Connections go one way: one side listens and gives its handle to the other, which connects; the
// listener accepts. Messages match in the order in which they were sent and awaited. Nothing
// blocks: a null connection or request means "not yet, call again". What a plugin refuses is a
// Status that names the plugin, the function and its result.
//
// A library is opened, and up to version 10 initialized, once per process, and stays. One thread at
// a time uses a connection; several threads may use one NetPlugin.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/settings.h"
#include "base/status.h"
#include "transport/nccl_net_abi.h"

namespace railccl::transport {

/// One of a plugin's devices, as it describes it.
struct NetDevice {
  int number = 0;
  std::string name;
  std::string pci_path;  // in sysfs; empty: not a device of the machine
  std::string nic;       // the name by which others know it: of its interface, RDMA device, its own
  uint64_t guid = 0;
  int mbps = 0;  // 0: not told
  int port = 0;
  double latency_us = 0;
  int receives_max = 1;  // in one group
  size_t bytes_max = 0;  // of a message
};

/// What a listener gives to whom is to connect. Plugins also keep notes in it while connecting.
struct alignas(16) NetHandle {
  std::array<std::byte, net_abi::kHandleBytes> bytes{};
};

/// One place of a (grouped) receive.
struct NetReceive {
  void* data = nullptr;
  size_t bytes = 0;
  int tag = 0;
  void* memory = nullptr;
};

class NetPlugin {
 public:
  /// The first plugin that the settings mean, that loads, initializes, and has devices. Fails with
  /// unsupported when there is none, and why; with invalid_usage when NCCL_NET names none of them.
  static Result<std::shared_ptr<NetPlugin>> open(const Settings& settings, uint64_t communicator);
  virtual ~NetPlugin() = default;

  const std::string& name() const { return name_; }
  int version() const { return version_; }
  /// Those that can be used: with host memory, without a GPU.
  const std::vector<NetDevice>& devices() const { return devices_; }

  virtual Result<void*> listen(int device, NetHandle* handle) = 0;
  virtual Result<void*> connect(int device, NetHandle* handle) = 0;
  virtual Result<void*> accept(void* listen) = 0;
  /// Of either kind of connection.
  virtual Result<void*> enroll(void* comm, void* data, size_t bytes) = 0;
  virtual Status dismiss(void* comm, void* memory) = 0;
  virtual Result<void*> send(void* comm, void* data, size_t bytes, int tag, void* memory) = 0;
  /// At most kGroupMax places; all of them are one request.
  virtual Result<void*> receive(void* comm, std::span<const NetReceive> places) = 0;
  /// Is it done? Then it is gone, and the bytes of each message are in `bytes`.
  virtual Result<bool> test(void* request, std::span<int> bytes) = 0;
  virtual Status close_send(void* comm) = 0;
  virtual Status close_receive(void* comm) = 0;
  virtual Status close_listen(void* listen) = 0;

  static constexpr size_t kGroupMax = 8;
  static constexpr int kOldest = 6, kNewest = 11;

 protected:
  NetPlugin(std::string name, int version) : name_(std::move(name)), version_(version) {}
  /// That the plugin's function has returned this.
  Status failure(const char* function, PluginResult result) const;
  Status check(const char* function, PluginResult result) const {
    return result == kPluginSuccess ? ok() : failure(function, result);
  }

  const std::string name_;
  const int version_;
  std::vector<NetDevice> devices_;
};

}  // namespace railccl::transport
