// VerbsPort: an RDMA port of this host, opened for one rank: its device, protection domain,
// completion queues, and the events that a sleeper waits for.
//
// Completion queues cannot overflow: each has room for so many completions, every queue pair takes
// as many places as it can have requests outstanding, and when a queue is full another is made.
//
// One thread at a time, that of the transport. Users (queue pairs, memory regions) go before it.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/settings.h"
#include "transport/registered_memory.h"
#include "transport/verbs_burial.h"
#include "transport/verbs_choice.h"
#include "transport/verbs_owners.h"

namespace railccl::transport {

class VerbsPort {
 public:
  /// Who posts to queue pairs of the port.
  class User {
   public:
    virtual ~User() = default;
    /// A completion of a request that the user posted with its tag. May make the user fail, and not
    /// more: it is told while others are, too.
    virtual void complete(const ibv_wc& completion) = 0;
    /// The port or device went down.
    virtual void port_down(const std::string& why) = 0;
  };

  /// The ports that the settings allow and that are active, in the order of their names. Fails when
  /// there is none, with the reason for the user.
  static Result<std::vector<std::unique_ptr<VerbsPort>>> open_all(const Settings& settings);

  ~VerbsPort();

  /// "mlx5_0", or "mlx5_0:2" of a second port.
  const std::string& name() const { return name_; }
  /// Of the network interface that the port belongs to; its own name when there is none.
  const std::string& interface() const { return interface_; }
  const GidRow& gid() const { return gid_; }
  bool infiniband() const { return infiniband_; }
  uint8_t number() const { return number_; }
  const ibv_port_attr& attributes() const { return attributes_; }
  /// Why the port cannot be used now, as far as events have told; empty when it can.
  const std::string& down() const { return down_; }
  /// Asks the device.
  void refresh();

  /// Memory that the device may read, and that far ends may write if `remote`. Fails with what to
  /// do about the limit on locked memory.
  Result<VerbsMemory> enroll(void* address, size_t bytes, bool remote);

  /// The device's key of registered memory (registered_memory.h) that holds the range; nothing
  /// where there is none, or where the device does not take it. What has ended is forgotten here.
  std::optional<uint32_t> lasting_key(const void* address, size_t bytes);

  /// A reliable-connected queue pair. `tag`: what the wr_id of its requests must be, plus one for
  /// receives.
  struct Enrolled {
    VerbsQueuePair queue_pair;
    uint64_t tag = 0;
    uint32_t inline_bytes = 0;  // granted
    uint32_t pieces = 1;        // that a request may have, at most kPiecesMax
  };
  static constexpr uint32_t kPiecesMax = 4;
  Result<Enrolled> make_queue_pair(User* user, uint32_t sends, uint32_t receives);
  /// Before the queue pair goes: its completions mean nothing any more.
  void forget(Enrolled* enrolled);
  /// The same for a path that is broken, of which this is left: it goes by and by.
  void bury(Enrolled* enrolled, VerbsRemains remains);

  /// Descriptors of completions and of events of the device.
  std::vector<int> descriptors() const;
  void on_descriptor(int fd);
  /// Tells users their completions; true when there were any, now or in fetch().
  bool poll();
  /// The same where nobody can be told that there were some: poll() will tell.
  void fetch() { unseen_ |= poll(); }
  /// Asks for an event at the next completion, where that was not asked for already.
  void arm();

 private:
  struct Queue {
    VerbsOwner<ibv_cq, &VerbsLibrary::destroy_cq> queue;
    uint32_t room = 0;
    uint32_t unacknowledged = 0;  // events
    bool armed = false;
    ~Queue();
    Queue() = default;
    Queue(Queue&&) = default;
  };
  struct Place {  // of a user; the tag tells its generations apart
    User* user = nullptr;
    uint32_t generation = 0;
    size_t queue = 0;
    uint32_t completions = 0;
  };

  struct Lasting {
    std::weak_ptr<const RegisteredMemory> range;
    MemoryRange where;
    VerbsMemory memory;  // null: the device does not take it
  };

  VerbsPort() = default;
  static Result<std::unique_ptr<VerbsPort>> open(ibv_device* device, uint8_t number,
                                                 const Settings& settings);
  Result<size_t> queue_with_room(uint32_t completions);
  bool drain(Queue* queue);
  size_t disown(const Enrolled& enrolled);
  /// Is this the child of a fork, and all of it its parent's?
  bool inherited() const { return forks_so_far() != born_; }
  void free_place(size_t index);
  void take_events();

  std::string name_;
  std::string interface_;
  bool infiniband_ = false;
  uint8_t number_ = 1;
  GidRow gid_;
  ibv_port_attr attributes_{};
  ibv_device_attr device_{};
  std::string down_;
  VerbsOwner<ibv_context, &VerbsLibrary::close_device> context_;
  VerbsOwner<ibv_pd, &VerbsLibrary::dealloc_pd> domain_;
  VerbsOwner<ibv_comp_channel, &VerbsLibrary::destroy_comp_channel> channel_;
  std::vector<Lasting> lasting_;
  uint64_t lasting_generation_ = 0;
  std::deque<Queue> queues_;
  bool unseen_ = false;
  std::deque<Place> places_;
  std::vector<size_t> free_;
  std::unique_ptr<VerbsBurial> burial_ = std::make_unique<VerbsBurial>();
  const unsigned born_ = forks_so_far();
};

}  // namespace railccl::transport
