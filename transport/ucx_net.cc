// Workers, endpoints, messages.
#include "transport/ucx_net.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "transport/little_endian.h"

namespace railccl::transport {
namespace {

// So long a connection that is closed waits for what it has sent, and for the end of its requests.
constexpr int64_t kQuitNs = 500'000'000;
constexpr int kProgressMost = 4;
constexpr size_t kAddressAt = 10, kAddressBytesMax = UcxNet::kHandleBytes - kAddressAt;
constexpr size_t kMessageBytesMax = size_t{1} << 30;

const UcxLibrary& ucx() { return *ucx_library(); }

Status failure(const char* function, ucs_status_t status) {
  return Status(Code::system, Scope::link, "UCX: {}: {}", function, ucx().status_string(status));
}

/// Lets UCX's handles go by its own functions where making something fails half way.
struct ConfigRelease {
  void operator()(ucp_config_t* config) const { ucx().config_release(config); }
};

}  // namespace

UcxNet::Worker::~Worker() {
  if (stuck) return;
  if (worker != nullptr) ucx().worker_destroy(worker);
  if (context != nullptr) ucx().cleanup(context);
}

Result<std::unique_ptr<UcxNet::Worker>> UcxNet::make_worker(const UcxDevices& row) {
  ucp_config_t* read = nullptr;
  ucs_status_t status = ucx().config_read(nullptr, nullptr, &read);
  if (status != UCS_OK) return failure("ucp_config_read", status);
  const std::unique_ptr<ucp_config_t, ConfigRelease> config(read);
  status = ucx().config_modify(config.get(), "NET_DEVICES", row.names.c_str());
  if (status != UCS_OK) return failure("ucp_config_modify", status);

  auto made = std::make_unique<Worker>();
  made->devices = row.names;
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP;
  status = ucx().init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config.get(), &made->context);
  if (status != UCS_OK) return failure("ucp_init", status);
  ucp_worker_params_t worker{};
  worker.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  worker.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  status = ucx().worker_create(made->context, &worker, &made->worker);
  if (status != UCS_OK) return failure("ucp_worker_create", status);
  status = ucx().worker_get_efd(made->worker, &made->descriptor);
  if (status != UCS_OK) return failure("ucp_worker_get_efd", status);

  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  status = ucx().worker_get_address(made->worker, &address, &bytes);
  if (status != UCS_OK) return failure("ucp_worker_get_address", status);
  made->address.assign(reinterpret_cast<const char*>(address), bytes);
  ucx().worker_release_address(made->worker, address);
  if (bytes > kAddressBytesMax)
    return Status(
        Code::unsupported,
        "UCX: the address of a worker for {} has {} bytes: let UCX_NET_DEVICES or UCX_TLS "
        "name fewer devices or transports",
        row.names, bytes);
  return made;
}

Result<std::shared_ptr<UcxNet>> UcxNet::open(const std::vector<UcxDevices>& rows) {
  if (!ucx_library().is_ok()) return ucx_library().status();
  std::shared_ptr<UcxNet> net(new UcxNet);
  Status why(Code::unsupported, "UCX: there is no device to use");
  for (const UcxDevices& row : rows) {
    auto worker = make_worker(row);
    if (!worker.is_ok()) {
      why = worker.status().context("{}", row.names);
      log::info("{}", why.text());
      continue;
    }
    NetDevice device;
    device.number = static_cast<int>(net->workers_.size());
    device.name = row.names;
    device.nic = row.nic;
    device.bytes_max = kMessageBytesMax;
    net->devices_.push_back(std::move(device));
    net->workers_.push_back(std::move(worker).value());
  }
  if (net->workers_.empty()) return why;
  return net;
}

UcxNet::~UcxNet() {
  if (!inherited()) return;
  for (auto& worker : workers_) (void)worker.release();
}

Result<void*> UcxNet::listen(int device, NetHandle* handle) {
  Worker* const worker = workers_[static_cast<size_t>(device)].get();
  auto connection = std::make_unique<Connection>();
  connection->worker = worker;
  if (!secret_bytes(&connection->tag, sizeof(connection->tag)))
    return system_error(errno, "no secret for a tag");
  handle->bytes = {};
  put<uint64_t>(handle->bytes.data(), connection->tag);
  put<uint16_t>(&handle->bytes[8], static_cast<uint16_t>(worker->address.size()));
  std::memcpy(&handle->bytes[kAddressAt], worker->address.data(), worker->address.size());
  return static_cast<void*>(connection.release());
}

ucs_status_t UcxNet::make_endpoint(Connection* connection, const std::byte* address) {
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
  params.address = reinterpret_cast<const ucp_address_t*>(address);
  params.err_mode = UCP_ERR_HANDLING_MODE_NONE;
  if (connection->worker->tells_failures) {
    params.field_mask |= UCP_EP_PARAM_FIELD_ERR_HANDLER;
    params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
    params.err_handler.arg = connection;
    params.err_handler.cb = [](void* which, ucp_ep_h, ucs_status_t status) {
      static_cast<Connection*>(which)->failure = status;
    };
  }
  return ucx().ep_create(connection->worker->worker, &params, &connection->endpoint);
}

Result<void*> UcxNet::connect(int device, NetHandle* handle) {
  if (inherited()) return failure("ucp_ep_create", UCS_ERR_NOT_CONNECTED);
  const size_t bytes = get<uint16_t>(&handle->bytes[8]);
  if (bytes == 0 || bytes > kAddressBytesMax)
    return Status(Code::remote, Scope::link, "UCX: the address of its worker is malformed");
  auto connection = std::make_unique<Connection>();
  connection->worker = workers_[static_cast<size_t>(device)].get();
  connection->tag = get<uint64_t>(handle->bytes.data());
  std::lock_guard lock(mutex_);
  ucs_status_t status = make_endpoint(connection.get(), &handle->bytes[kAddressAt]);
  if (status == UCS_ERR_UNREACHABLE && connection->worker->tells_failures) {
    connection->worker->tells_failures = false;
    status = make_endpoint(connection.get(), &handle->bytes[kAddressAt]);
    log::info("UCX: {} reaches the far end only by what does not tell of failures",
              devices_[static_cast<size_t>(device)].name);
  }
  if (status != UCS_OK) return failure("ucp_ep_create", status);
  return static_cast<void*>(connection.release());
}

// Who connects needs nobody's consent: what will be sent has the listener's tag.
Result<void*> UcxNet::accept(void* listen) {
  const auto* const listener = static_cast<const Connection*>(listen);
  auto connection = std::make_unique<Connection>();
  connection->worker = listener->worker;
  connection->tag = listener->tag;
  return static_cast<void*>(connection.release());
}

Result<void*> UcxNet::enroll(void* comm, void* data, size_t bytes) {
  if (inherited()) return failure("ucp_mem_map", UCS_ERR_NOT_CONNECTED);
  ucp_mem_map_params_t params{};
  params.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  params.address = data;
  params.length = bytes;
  ucp_mem_h memory = nullptr;
  std::lock_guard lock(mutex_);
  const ucs_status_t status =
      ucx().mem_map(static_cast<Connection*>(comm)->worker->context, &params, &memory);
  if (status != UCS_OK) return failure("ucp_mem_map", status);
  return static_cast<void*>(memory);
}

Status UcxNet::dismiss(void* comm, void* memory) {
  if (inherited()) return ok();
  std::lock_guard lock(mutex_);
  const ucs_status_t status = ucx().mem_unmap(static_cast<Connection*>(comm)->worker->context,
                                              static_cast<ucp_mem_h>(memory));
  return status == UCS_OK ? ok() : failure("ucp_mem_unmap", status);
}

UcxNet::Request* UcxNet::new_request(Connection* connection, bool receives) {
  auto& requests = connection->requests;
  auto place = std::find_if(requests.begin(), requests.end(),
                            [](const Request& request) { return request.owner == nullptr; });
  if (place == requests.end()) {
    if (requests.size() == kRequestsMax) return nullptr;
    requests.emplace_back();
    place = requests.end() - 1;
  }
  *place = {connection, nullptr, receives};
  return &*place;
}

Result<void*> UcxNet::send(void* comm, void* data, size_t bytes, int, void* memory) {
  auto* const connection = static_cast<Connection*>(comm);
  RAILCCL_CHECK(state(comm));
  std::lock_guard lock(mutex_);
  Request* const made = new_request(connection, false);
  if (made == nullptr) return static_cast<void*>(nullptr);
  ucp_request_param_t params{};
  params.op_attr_mask = UCP_OP_ATTR_FIELD_MEMH;
  params.memh = static_cast<ucp_mem_h>(memory);
  made->request = ucx().tag_send_nbx(connection->endpoint, data, bytes, connection->tag, &params);
  if (!UCS_PTR_IS_ERR(made->request)) return static_cast<void*>(made);
  made->owner = nullptr;
  return failure("ucp_tag_send_nbx", UCS_PTR_STATUS(made->request));
}

Result<void*> UcxNet::receive(void* comm, std::span<const NetReceive> places) {
  if (places.size() != 1) return Status(Code::internal, "UCX: a group of receives");
  if (inherited()) return failure("ucp_tag_recv_nbx", UCS_ERR_NOT_CONNECTED);
  auto* const connection = static_cast<Connection*>(comm);
  std::lock_guard lock(mutex_);
  Request* const made = new_request(connection, true);
  if (made == nullptr) return static_cast<void*>(nullptr);
  ucp_request_param_t params{};
  // A request that is done at once could not be asked how much has come.
  params.op_attr_mask = UCP_OP_ATTR_FIELD_MEMH | UCP_OP_ATTR_FLAG_NO_IMM_CMPL;
  params.memh = static_cast<ucp_mem_h>(places[0].memory);
  made->request = ucx().tag_recv_nbx(connection->worker->worker, places[0].data, places[0].bytes,
                                     connection->tag, ~ucp_tag_t{0}, &params);
  if (!UCS_PTR_IS_ERR(made->request)) return static_cast<void*>(made);
  made->owner = nullptr;
  return failure("ucp_tag_recv_nbx", UCS_PTR_STATUS(made->request));
}

Result<bool> UcxNet::test(void* request, std::span<int> bytes) {
  if (inherited()) return failure("ucp_request_check_status", UCS_ERR_NOT_CONNECTED);
  auto* const asked = static_cast<Request*>(request);
  std::lock_guard lock(mutex_);
  ucs_status_t status = UCS_OK;
  if (asked->request != nullptr) {
    ucp_tag_recv_info_t info{};
    status = asked->receives ? ucx().tag_recv_request_test(asked->request, &info)
                             : ucx().request_check_status(asked->request);
    if (status == UCS_INPROGRESS) return false;
    if (asked->receives && status == UCS_OK) bytes[0] = static_cast<int>(info.length);
    ucx().request_free(asked->request);
  }
  asked->owner = nullptr;
  if (status != UCS_OK) return failure(asked->receives ? "a receive" : "a send", status);
  return true;
}

Status UcxNet::state(void* comm) {
  if (inherited()) return failure("a worker", UCS_ERR_NOT_CONNECTED);
  const auto* const connection = static_cast<const Connection*>(comm);
  std::lock_guard lock(mutex_);
  if (connection->failure == UCS_OK) return ok();
  return failure("an endpoint", connection->failure);
}

// True when it is done; false after a while.
template <typename Done>
bool UcxNet::progress_until(Worker* worker, const Done& done) {
  const int64_t end_ns = now_ns() + kQuitNs;
  while (!done()) {
    if (now_ns() > end_ns) return false;
    ucx().worker_progress(worker->worker);
  }
  return true;
}

bool UcxNet::under_way(const Connection& connection) {
  return std::any_of(connection.requests.begin(), connection.requests.end(),
                     [](const Request& request) {
                       return request.owner != nullptr && request.request != nullptr &&
                              ucx().request_check_status(request.request) == UCS_INPROGRESS;
                     });
}

// Leaves the endpoint; false when it cannot be left.
bool UcxNet::leave(Connection* connection) {
  Worker* const worker = connection->worker;
  const auto finish = [&](ucs_status_ptr_t request) {
    if (!UCS_PTR_IS_PTR(request)) return true;
    const bool done = progress_until(worker, [&] {
      return ucx().request_check_status(request) != UCS_INPROGRESS || connection->failure != UCS_OK;
    });
    ucx().request_free(request);
    return done;
  };
  ucp_request_param_t params{};
  // UCX (1.13) ends the process when an endpoint is forced to close that has not met the far end.
  if (connection->failure == UCS_OK && !finish(ucx().ep_flush_nbx(connection->endpoint, &params)))
    return false;
  params.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
  params.flags = worker->tells_failures ? UCP_EP_CLOSE_FLAG_FORCE : 0;
  return finish(ucx().ep_close_nbx(connection->endpoint, &params));
}

Status UcxNet::quit(void* comm) {
  if (inherited()) return ok();
  auto* const connection = static_cast<Connection*>(comm);
  Worker* const worker = connection->worker;
  std::lock_guard lock(mutex_);
  bool ended = true;
  if (connection->endpoint != nullptr) {
    ended = leave(connection);
  } else {
    for (const Request& request : connection->requests)
      if (request.owner != nullptr) ucx().request_cancel(worker->worker, request.request);
  }
  ended = ended && progress_until(worker, [&] { return !under_way(*connection); });
  worker->stuck |= !ended;
  connection->stuck = !ended;
  if (!ended)
    return Status(Code::system, Scope::link, "UCX: a connection of {} does not end",
                  worker->devices);
  for (const Request& request : connection->requests)
    if (request.owner != nullptr && request.request != nullptr) ucx().request_free(request.request);
  connection->requests.clear();
  return ok();
}

Status UcxNet::close_send(void* comm) {
  auto* const connection = static_cast<Connection*>(comm);
  // What did not end may still come back to it.
  if (!connection->stuck) delete connection;
  return ok();
}

Status UcxNet::close_listen(void* listen) {
  delete static_cast<Connection*>(listen);
  return ok();
}

void UcxNet::progress() {
  if (inherited()) return;
  std::lock_guard lock(mutex_);
  for (auto& worker : workers_)
    for (int i = 0; i < kProgressMost && ucx().worker_progress(worker->worker) > 0; i++) {
    }
}

std::vector<int> UcxNet::descriptors() const {
  std::vector<int> all;
  for (const auto& worker : workers_) all.push_back(worker->descriptor);
  return all;
}

// Not every device's part of arm() looks whether anything is left to be taken.
bool UcxNet::arm() {
  if (inherited()) return false;
  std::lock_guard lock(mutex_);
  bool any = false;
  for (auto& worker : workers_)
    any |= ucx().worker_progress(worker->worker) > 0 || ucx().worker_arm(worker->worker) != UCS_OK;
  return any;
}

}  // namespace railccl::transport
