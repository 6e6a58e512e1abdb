// Reactor: the one thread per process that serves the control sockets of all communicators.
//
// A client is registered under an id and gets calls from the thread: on_ready for its sockets,
// on_wake when somebody poked it or its alarm went off. The thread holds no lock during calls and
// keeps the client alive meanwhile. The thread starts with the first client and never ends; it
// blocks all signals.
//
// fork: the child starts without a reactor and with the parent's control sockets closed, so that
// the child's life does not hide the parent's death. A client that finds is_current() false is an
// inherited one and must leave its sockets alone: their numbers may be others' by now.
// Private to this room. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "base/owners.h"
#include "base/status.h"

namespace railccl::runtime {

class Reactor {
 public:
  class Client {
   public:
    virtual ~Client() = default;
    virtual void on_ready(uint32_t socket_index) = 0;
    virtual void on_wake() = 0;
  };
  static constexpr uint32_t kSocketsMax = 4;  // per client

  /// This process's reactor; starts it.
  static Result<Reactor*> get();
  bool is_current() const;

  uint64_t add(std::shared_ptr<Client> client);
  void remove(uint64_t id);
  /// on_wake soon, or at `at_ns` at the latest (the earliest of several wins).
  void poke(uint64_t id);
  void wake_at(uint64_t id, int64_t at_ns);

  Status watch(uint64_t id, uint32_t socket_index, int fd);
  /// Also when the socket takes bytes again, or no longer.
  void want_write(uint64_t id, uint32_t socket_index, int fd, bool wanted);
  /// Before the fd is closed.
  void forget(int fd);

 private:
  Reactor() = default;
  Status start();
  void run();
  void ring();
  void run_due();
  std::shared_ptr<Client> find(uint64_t id);
  static void before_fork();
  static void after_fork_in_parent();
  static void after_fork_in_child();

  UniqueFd epoll_;
  UniqueFd bell_;  // eventfd
  std::mutex mutex_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, std::shared_ptr<Client>> clients_;
  std::map<uint64_t, int64_t> alarms_;  // id -> when
  std::set<int> fds_;
};

}  // namespace railccl::runtime
