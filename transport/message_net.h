// MessageNet: a network that carries messages between devices of hosts, as paths over it
// (net_path.h) see it: a plugin of NCCL (nccl_net_plugin.h), or UCX (ucx_net.h).
//
// Connections go one way: one side listens and gives its handle to the other, which connects; the
// listener accepts. Messages match in the order in which they were sent and awaited. Nothing
// blocks: a null connection or request means "not yet, call again". What the network refuses is a
// Status that names it, what was asked of it, and its answer.
//
// One thread at a time uses a connection; several threads may use one MessageNet.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"

namespace railccl::transport {

/// A device, as the network describes it.
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

/// What a listener gives to whom is to connect. Networks may keep notes in it while connecting.
inline constexpr size_t kNetHandleBytesMax = 1000;
struct alignas(16) NetHandle {
  std::array<std::byte, kNetHandleBytesMax> bytes{};
};

/// One place of a (grouped) receive.
struct NetReceive {
  void* data = nullptr;
  size_t bytes = 0;
  int tag = 0;
  void* memory = nullptr;
};

class MessageNet {
 public:
  virtual ~MessageNet() = default;
  MessageNet(const MessageNet&) = delete;
  MessageNet& operator=(const MessageNet&) = delete;

  /// What it calls itself: networks of equal names understand each other.
  const std::string& name() const { return name_; }
  /// "network plugin OFI (v9)": for errors.
  virtual std::string title() const = 0;
  /// Those that can be used: with host memory, without a GPU.
  const std::vector<NetDevice>& devices() const { return devices_; }
  /// How many bytes of a handle mean something.
  virtual size_t handle_bytes() const = 0;

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

  /// Why a connection for sending is broken, where the network knows that without being asked to
  /// send.
  virtual Status state(void*) { return ok(); }
  /// Before memory is dismissed: no request of the connection is under way any more. Networks that
  /// cannot end requests say nothing.
  virtual Status quit(void*) { return ok(); }
  /// Does what goes on only while somebody calls; no path is used meanwhile.
  virtual void progress() {}
  /// Descriptors that tell that there is something to do, once arm() has found nothing; empty where
  /// none does, and one has to look.
  virtual std::vector<int> descriptors() const { return {}; }
  /// From now on descriptors tell. True when there is something to do now.
  virtual bool arm() { return false; }

  static constexpr size_t kGroupMax = 8;
  /// All networks take so many requests of one connection at a time.
  static constexpr size_t kRequestsMax = 8;

 protected:
  explicit MessageNet(std::string name) : name_(std::move(name)) {}

  const std::string name_;
  std::vector<NetDevice> devices_;
};

}  // namespace railccl::transport
