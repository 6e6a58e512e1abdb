// VerbsBurial: destroys queue pairs of broken paths, with their memory, on a thread of its own.
//
// The kernel destroys one when nobody holds anything of it any more: packets, for instance, that
// wait for the address of a far end that has become unreachable. Soft-RoCE has whoever asks wait
// for that, for seconds, in which the rank could go on by other paths. Until then the device may
// still read and write the memory, and completions may still come.
//
// The thread is there from the first burial on. One thread at a time, that of the transport.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "transport/mirrored.h"
#include "transport/verbs_owners.h"

namespace railccl::transport {

/// What is left of a path; the queue pair goes first.
struct VerbsRemains {
  Mirrored ring, out;
  VerbsMemory ring_memory, out_memory;
  VerbsQueuePair queue_pair;
  size_t place = 0;  // of it, in its port
};

class VerbsBurial {
 public:
  VerbsBurial() = default;
  /// Waits for what is left.
  ~VerbsBurial();
  void add(VerbsRemains remains);
  /// The place of a queue pair that is gone, once.
  std::optional<size_t> take_done();

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable more_;
  std::deque<VerbsRemains> waiting_;
  std::deque<size_t> done_;
  std::atomic<bool> any_done_{false};
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace railccl::transport
