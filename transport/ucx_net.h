// UcxNet: UCX as a network of messages (message_net.h): a context and a worker for each row of
// devices (ucx_devices.h), messages by tags.
//
// Whoever listens draws a tag and tells it, with its worker's address; who connects makes an
// endpoint to that worker. Receives are posted before messages come, so nothing of ours waits in
// UCX for room of its own. How a message goes (copied, from registered memory, fetched by the far
// end) UCX decides by its size and the device.
//
// Endpoints tell of failures, also of those that nobody asked for, where the device can; shared
// memory cannot, and there only the connection over which the path was made shows that the far end
// is gone. Closing waits for what was sent to have left, but not for long.
//
// UCX leaves one thread at a time into a worker: a lock sees to it. After a fork the child leaves
// everything alone, for its connections are the parent's.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/forks.h"
#include "transport/message_net.h"
#include "transport/ucx_devices.h"
#include "transport/ucx_library.h"

namespace railccl::transport {

class UcxNet final : public MessageNet {
 public:
  /// Fails when UCX is not there, or can use none of the rows.
  static Result<std::shared_ptr<UcxNet>> open(const std::vector<UcxDevices>& rows);
  ~UcxNet() override;

  std::string title() const override { return "UCX"; }
  size_t handle_bytes() const override { return kHandleBytes; }
  Result<void*> listen(int device, NetHandle* handle) override;
  Result<void*> connect(int device, NetHandle* handle) override;
  Result<void*> accept(void* listen) override;
  Result<void*> enroll(void* comm, void* data, size_t bytes) override;
  Status dismiss(void* comm, void* memory) override;
  Result<void*> send(void* comm, void* data, size_t bytes, int tag, void* memory) override;
  Result<void*> receive(void* comm, std::span<const NetReceive> places) override;
  Result<bool> test(void* request, std::span<int> bytes) override;
  Status close_send(void* comm) override;
  Status close_receive(void* comm) override { return close_send(comm); }
  Status close_listen(void* listen) override;
  Status state(void* comm) override;
  Status quit(void* comm) override;
  void progress() override;
  std::vector<int> descriptors() const override;
  bool arm() override;

  /// tag 8, bytes of the worker's address 2, the address, zeros.
  static constexpr size_t kHandleBytes = kNetHandleBytesMax;

 private:
  struct Worker {
    ucp_context_h context = nullptr;
    ucp_worker_h worker = nullptr;
    std::string devices;
    std::string address;
    int descriptor = -1;
    bool tells_failures = true;  // until an endpoint that shall tell cannot be made
    bool stuck = false;          // a connection does not end: the worker stays for ever
    Worker() = default;
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    ~Worker();
  };
  struct Connection;
  struct Request {
    Connection* owner = nullptr;  // null: free
    void* request = nullptr;      // UCX's; null: done at once
    bool receives = false;
  };
  struct Connection {  // of either kind; a listener is one that will receive
    Worker* worker = nullptr;
    ucp_ep_h endpoint = nullptr;  // null: receives
    uint64_t tag = 0;
    ucs_status_t failure = UCS_OK;
    std::deque<Request> requests;
    bool stuck = false;
  };

  UcxNet() : MessageNet("UCX") {}
  static Result<std::unique_ptr<Worker>> make_worker(const UcxDevices& row);
  static ucs_status_t make_endpoint(Connection* connection, const std::byte* address);
  static Request* new_request(Connection* connection, bool receives);
  static bool leave(Connection* connection);
  static bool under_way(const Connection& connection);
  template <typename Done>
  static bool progress_until(Worker* worker, const Done& done);
  bool inherited() const { return forks_so_far() != born_; }

  const unsigned born_ = forks_so_far();
  std::mutex mutex_;
  std::deque<std::unique_ptr<Worker>> workers_;  // by device
};

}  // namespace railccl::transport
