// NetKeeper: a rank's paths over a network of messages, and a thread that goes on with them while
// the rank does not call.
//
// No kernel and no device does anything for a path by itself: what was written goes out, and what
// has come is told to the far end, when somebody polls. A rank polls as long as it waits for
// anything. But when it has all that it wanted it may compute, or wait for something else, for as
// long as it likes, and its peer may be waiting for the last bytes, for credit or for an
// acknowledgement. So when a rank has not polled for a moment the thread does: often while it has
// something to hand over or to hear, ever more rarely while nothing comes. What it finds a bell
// tells a rank that sleeps.
//
// A path belongs to whoever holds the lock. The child of a fork has no such thread, and perhaps a
// lock that nobody will open: it takes none.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/forks.h"
#include "base/owners.h"
#include "base/status.h"

namespace railccl::transport {

class MessageNet;
class NetPath;

class NetKeeper {
 public:
  /// `net` must outlive it.
  static Result<std::unique_ptr<NetKeeper>> make(MessageNet* net);
  /// All paths have been removed.
  ~NetKeeper();
  NetKeeper(const NetKeeper&) = delete;
  NetKeeper& operator=(const NetKeeper&) = delete;

  /// From now on it is polled; the thread starts with the first.
  void add(NetPath* path);
  void remove(NetPath* path);
  [[nodiscard]] std::unique_lock<std::mutex> lock();

  /// By the rank: polls all paths. True when there may be something to do for their links, also
  /// when it was the thread that found it.
  bool poll();
  /// Becomes readable with each finding of the thread.
  int bell() const { return bell_.get(); }

 private:
  NetKeeper(MessageNet* net, UniqueFd bell);
  bool inherited() const { return forks_so_far() != born_; }
  void start();
  void run();
  bool poll_all();

  MessageNet* const net_;
  const UniqueFd bell_;
  const unsigned born_ = forks_so_far();
  std::mutex mutex_;
  std::unique_ptr<std::condition_variable> changed_ = std::make_unique<std::condition_variable>();
  std::vector<NetPath*> paths_;
  std::unique_ptr<std::thread> thread_;
  bool stopping_ = false;
  bool news_ = false;      // that the thread found, and the rank does not know
  int64_t polled_ns_ = 0;  // by the rank
};

}  // namespace railccl::transport
