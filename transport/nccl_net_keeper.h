// NetKeeper: a rank's paths over a network plugin, and a thread that goes on with them while the
// rank does not call.
//
// No kernel and no device does anything for a path by itself: what was written goes out, and what
// has come is told to the far end, when somebody polls. A rank polls as long as it waits for
// anything. But when it has all that it wanted it may compute, or wait for something else, for as
// long as it likes, and its peer may be waiting for the last bytes, for credit or for an
// acknowledgement. So when a rank has not polled for a moment the thread does: often while it has
// something to hand over or to hear, ever more rarely while nothing comes.
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

namespace railccl::transport {

class NetPath;

class NetKeeper {
 public:
  NetKeeper();
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

 private:
  bool inherited() const;
  void start();
  void run();
  bool poll_all();

  const unsigned born_;  // after so many forks
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<NetPath*> paths_;
  std::unique_ptr<std::thread> thread_;
  bool stopping_ = false;
  bool news_ = false;      // that the thread found, and the rank does not know
  int64_t polled_ns_ = 0;  // by the rank
};

}  // namespace railccl::transport
