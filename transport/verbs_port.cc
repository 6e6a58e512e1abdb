// Opening ports, and their events and completions.
#include "transport/verbs_port.h"

#include <fcntl.h>
#include <net/if.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace railccl::transport {
namespace {

constexpr uint32_t kQueueCompletions = 4096;
constexpr int kGidsRead = 64;  // rows at the front of a table hold what addresses made
constexpr uint32_t kInlineBytes = 256;
constexpr uint32_t kGenerationShift = 32, kPlaceShift = 1;

std::string memory_limit_text() {
  rlimit limit{};
  if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  return fmt::format("; locked memory is limited to {} KiB (ulimit -l): raise it to unlimited",
                     limit.rlim_cur >> 10);
}

bool unblock(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

std::vector<GidRow> read_gids(ibv_context* context, uint8_t port, int count) {
  std::vector<GidRow> rows;
  for (int i = 0; i < std::min(count, kGidsRead); i++) {
    ibv_gid_entry entry{};
    if ((*verbs_library())
            .query_gid_ex(context, port, static_cast<uint32_t>(i), &entry, 0, sizeof(entry)) != 0)
      continue;  // an empty row
    GidRow row{.index = i, .interface = entry.ndev_ifindex};
    std::memcpy(row.gid.data(), entry.gid.raw, row.gid.size());
    row.type = entry.gid_type == IBV_GID_TYPE_ROCE_V2   ? GidRow::Type::roce_v2
               : entry.gid_type == IBV_GID_TYPE_ROCE_V1 ? GidRow::Type::roce_v1
                                                        : GidRow::Type::infiniband;
    rows.push_back(row);
  }
  return rows;
}

}  // namespace

VerbsPort::~VerbsPort() {
  // Its thread is not the child's, and may have held its locks: the child never ends it.
  if (inherited()) (void)burial_.release();
}

VerbsPort::Queue::~Queue() {
  if (queue && unacknowledged > 0) (*verbs_library()).ack_cq_events(queue.get(), unacknowledged);
}

Result<std::vector<std::unique_ptr<VerbsPort>>> VerbsPort::open_all(const Settings& settings) {
  if (!verbs_library().is_ok()) return verbs_library().status();
  const VerbsLibrary& verbs = *verbs_library();
  RAILCCL_TRY(const HcaFilter filter, HcaFilter::parse(settings.ib_hca));
  int count = 0;
  ibv_device** const list = verbs.get_device_list(&count);
  if (list == nullptr || count == 0) {
    if (list != nullptr) verbs.free_device_list(list);
    return Status(Code::unsupported, "this host has no RDMA device");
  }
  std::vector<ibv_device*> devices(list, list + count);
  std::sort(devices.begin(), devices.end(), [&](ibv_device* a, ibv_device* b) {
    return std::strcmp(verbs.get_device_name(a), verbs.get_device_name(b)) < 0;
  });
  std::vector<std::unique_ptr<VerbsPort>> ports;
  Status reason(Code::unsupported, "NCCL_IB_HCA={} allows no RDMA device of this host",
                settings.ib_hca);
  constexpr int kPortsMax = 2;  // more has no device that is sold
  for (ibv_device* device : devices) {
    for (int number = 1; number <= kPortsMax; number++) {
      if (!filter.allows(verbs.get_device_name(device), number)) continue;
      auto port = open(device, static_cast<uint8_t>(number), settings);
      if (port.is_ok() && *port) {
        ports.push_back(std::move(port).value());
      } else if (!port.is_ok()) {
        reason = port.status().context("{} port {}", verbs.get_device_name(device), number);
        log::info("verbs: not used: {}", reason.text());
      }
    }
  }
  verbs.free_device_list(list);
  if (ports.empty()) return reason;
  return ports;
}

// Null when the device has no such port.
Result<std::unique_ptr<VerbsPort>> VerbsPort::open(ibv_device* device, uint8_t number,
                                                   const Settings& settings) {
  const VerbsLibrary& verbs = *verbs_library();
  std::unique_ptr<VerbsPort> port(new VerbsPort);
  port->number_ = number;
  port->name_ = verbs.get_device_name(device);
  if (number > 1) port->name_ += fmt::format(":{}", number);
  port->context_.reset(verbs.open_device(device));
  if (!port->context_)
    return system_error(errno, "the device cannot be opened (is /dev/infiniband readable?)");
  if (const int error = verbs.query_device(port->context_.get(), &port->device_); error != 0)
    return system_error(error, "the device does not answer");
  if (number > port->device_.phys_port_cnt) return std::unique_ptr<VerbsPort>();
  port->refresh();
  if (!port->down_.empty()) return Status(Code::unsupported, "{}", port->down_);
  port->infiniband_ = port->attributes_.link_layer == IBV_LINK_LAYER_INFINIBAND;
  const std::vector<GidRow> rows =
      read_gids(port->context_.get(), number, port->attributes_.gid_tbl_len);
  RAILCCL_TRY(port->gid_, choose_gid(rows, port->infiniband_, settings.ib_gid_index));
  char interface[IF_NAMESIZE] = {};
  port->interface_ =
      port->gid_.interface != 0 && if_indextoname(port->gid_.interface, interface) != nullptr ? interface : port->name_;
  port->domain_.reset(verbs.alloc_pd(port->context_.get()));
  if (!port->domain_) return system_error(errno, "no protection domain");
  port->channel_.reset(verbs.create_comp_channel(port->context_.get()));
  if (!port->channel_) return system_error(errno, "no completion channel");
  if (!unblock(port->channel_->fd) || !unblock(port->context_->async_fd))
    return system_error(errno, "its events cannot be waited for");
  return port;
}

void VerbsPort::refresh() {
  const int error = (*verbs_library())
                        .query_port(context_.get(), number_,
                                    reinterpret_cast<_compat_ibv_port_attr*>(&attributes_));
  if (error != 0) {
    down_ = fmt::format("{} does not answer: {}", name_, std::system_category().message(error));
  } else if (attributes_.state != IBV_PORT_ACTIVE) {
    down_ = fmt::format("{} is not active (cable, switch{})", name_,
                        attributes_.link_layer == IBV_LINK_LAYER_INFINIBAND
                            ? ", or no subnet manager"
                            : ", or its interface is down");
  } else {
    down_.clear();
  }
}

Result<VerbsMemory> VerbsPort::enroll(void* address, size_t bytes, bool remote) {
  // Nobody looks for data before a completion has told of them, so they may land in any order.
  unsigned access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING;
  if (remote) access |= IBV_ACCESS_REMOTE_WRITE;
  VerbsMemory memory((*verbs_library())
                         .reg_mr_iova2(domain_.get(), address, bytes,
                                       reinterpret_cast<uint64_t>(address), access));
  if (!memory) {
    return Status(Code::system, Scope::link, "{}: {} KiB cannot be registered: {}{}", name_,
                  bytes >> 10, std::system_category().message(errno), memory_limit_text());
  }
  return memory;
}

std::optional<uint32_t> VerbsPort::lasting_key(const void* address, size_t bytes) {
  if (const uint64_t now = RegisteredMemory::generation(); now != lasting_generation_) {
    lasting_generation_ = now;
    std::erase_if(lasting_, [](const Lasting& known) { return known.range.expired(); });
  }
  for (const Lasting& known : lasting_) {
    if (!known.where.holds(address, bytes)) continue;
    return known.memory ? std::optional(known.memory->lkey) : std::nullopt;
  }
  const auto range = RegisteredMemory::find(address, bytes);
  if (!range) return std::nullopt;
  Result<VerbsMemory> memory = enroll(range->range().data, range->range().size, false);
  if (!memory.is_ok()) log::info("verbs: copied instead: {}", memory.status().text());
  lasting_.push_back({range, range->range(), memory.is_ok() ? std::move(memory).value() : nullptr});
  return lasting_.back().memory ? std::optional(lasting_.back().memory->lkey) : std::nullopt;
}

Result<size_t> VerbsPort::queue_with_room(uint32_t completions) {
  for (size_t i = 0; i < queues_.size(); i++)
    if (queues_[i].room >= completions) return i;
  const auto most = static_cast<uint32_t>(device_.max_cqe);
  const uint32_t size = std::min(std::max(kQueueCompletions, completions), most);
  Queue queue;
  queue.queue.reset(
      (*verbs_library())
          .create_cq(context_.get(), static_cast<int>(size), nullptr, channel_.get(), 0));
  if (!queue.queue || size < completions)
    return system_error(errno, fmt::format("{}: no completion queue of {}", name_, size));
  queue.room = size;
  queues_.push_back(std::move(queue));
  return queues_.size() - 1;
}

Result<VerbsPort::Enrolled> VerbsPort::make_queue_pair(User* user, uint32_t sends,
                                                       uint32_t receives) {
  RAILCCL_TRY(const size_t queue, queue_with_room(sends + receives));
  ibv_qp_init_attr attributes{};
  attributes.send_cq = attributes.recv_cq = queues_[queue].queue.get();
  attributes.qp_type = IBV_QPT_RC;
  attributes.cap = {
      .max_send_wr = sends,
      .max_recv_wr = receives,
      .max_send_sge = std::min<uint32_t>(kPiecesMax, static_cast<uint32_t>(device_.max_sge)),
      .max_recv_sge = 1,
      .max_inline_data = kInlineBytes};
  Enrolled enrolled;
  enrolled.queue_pair.reset((*verbs_library()).create_qp(domain_.get(), &attributes));
  if (!enrolled.queue_pair) {
    attributes.cap.max_inline_data = 0;  // not every device has it
    enrolled.queue_pair.reset((*verbs_library()).create_qp(domain_.get(), &attributes));
  }
  if (!enrolled.queue_pair)
    return system_error(errno, fmt::format("{}: no queue pair", name_)).widen(Scope::link);
  enrolled.inline_bytes = attributes.cap.max_inline_data;
  enrolled.pieces = std::min(attributes.cap.max_send_sge, kPiecesMax);
  if (free_.empty()) {
    free_.push_back(places_.size());
    places_.emplace_back();
  }
  const size_t index = free_.back();
  free_.pop_back();
  Place& place = places_[index];
  place.user = user;
  place.queue = queue;
  place.completions = sends + receives;
  queues_[queue].room -= place.completions;
  enrolled.tag = uint64_t{place.generation} << kGenerationShift | index << kPlaceShift;
  return enrolled;
}

size_t VerbsPort::disown(const Enrolled& enrolled) {
  const size_t index = (enrolled.tag & 0xffffffff) >> kPlaceShift;
  places_[index].user = nullptr;
  places_[index].generation++;
  return index;
}

// The queue pair is gone. What is still in the queue takes room: out with it before the place is
// given to another.
void VerbsPort::free_place(size_t index) {
  const Place& place = places_[index];
  unseen_ |= drain(&queues_[place.queue]);
  queues_[place.queue].room += place.completions;
  free_.push_back(index);
}

void VerbsPort::forget(Enrolled* enrolled) {
  if (!enrolled->queue_pair) return;
  const size_t index = disown(*enrolled);
  enrolled->queue_pair.reset();
  if (!inherited()) free_place(index);
}

void VerbsPort::bury(Enrolled* enrolled, VerbsRemains remains) {
  if (inherited()) return forget(enrolled);
  remains.place = disown(*enrolled);
  remains.queue_pair = std::move(enrolled->queue_pair);
  burial_->add(std::move(remains));
}

std::vector<int> VerbsPort::descriptors() const { return {channel_->fd, context_->async_fd}; }

bool VerbsPort::drain(Queue* queue) {
  constexpr int kBatch = 16;
  std::array<ibv_wc, kBatch> completions;
  bool any = false;
  while (true) {
    const int count = ibv_poll_cq(queue->queue.get(), kBatch, completions.data());
    for (int i = 0; i < count; i++) {
      const ibv_wc& completion = completions[static_cast<size_t>(i)];
      const Place& place = places_[(completion.wr_id & 0xffffffff) >> kPlaceShift];
      if (place.user != nullptr && place.generation == completion.wr_id >> kGenerationShift)
        place.user->complete(completion);
    }
    any |= count > 0;
    if (count < kBatch) return any;
  }
}

bool VerbsPort::poll() {
  while (const auto place = burial_->take_done()) free_place(*place);
  bool any = std::exchange(unseen_, false);
  for (Queue& queue : queues_) any |= drain(&queue);
  return any;
}

void VerbsPort::arm() {
  for (Queue& queue : queues_) {
    if (queue.armed) continue;
    queue.armed = ibv_req_notify_cq(queue.queue.get(), 0) == 0;
  }
}

void VerbsPort::on_descriptor(int fd) {
  if (fd == context_->async_fd) return take_events();
  if (fd != channel_->fd) return;
  ibv_cq* which = nullptr;
  void* unused = nullptr;
  while ((*verbs_library()).get_cq_event(channel_.get(), &which, &unused) == 0) {
    constexpr uint32_t kAcknowledgedAtOnce = 64;  // it takes a lock
    for (Queue& queue : queues_) {
      if (queue.queue.get() != which) continue;
      queue.armed = false;
      if (++queue.unacknowledged < kAcknowledgedAtOnce) continue;
      (*verbs_library()).ack_cq_events(which, queue.unacknowledged);
      queue.unacknowledged = 0;
    }
  }
  fetch();
}

void VerbsPort::take_events() {
  ibv_async_event event{};
  while ((*verbs_library()).get_async_event(context_.get(), &event) == 0) {
    const bool of_port =
        event.event_type == IBV_EVENT_PORT_ERR || event.event_type == IBV_EVENT_PORT_ACTIVE;
    const bool fatal = event.event_type == IBV_EVENT_DEVICE_FATAL;
    const bool ours = !of_port || event.element.port_num == number_;
    (*verbs_library()).ack_async_event(&event);
    if (!ours) continue;
    refresh();
    if (fatal) down_ = fmt::format("{} reports a fatal error of the device", name_);
    if (down_.empty()) continue;
    for (Place& place : places_)
      if (place.user != nullptr) place.user->port_down(down_);
  }
}

}  // namespace railccl::transport
