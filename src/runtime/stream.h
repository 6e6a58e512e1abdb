// Stream: an ordered queue of work on the host, usable where a cudaStream_t is taken.
//
// Work enqueued on one Stream runs in order on the Stream's own thread; different Streams run
// concurrently. A failed item is remembered (synchronize() reports it) and later items still run.
// Any thread may call anything here, except that nobody may use a Stream during its destruction.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "base/status.h"

namespace railccl::runtime {

class Stream {
 public:
  Stream();
  ~Stream();  // finishes what was enqueued
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void enqueue(std::function<Status()> work);
  /// Waits until everything enqueued so far is done; the first failure since the last call.
  Status synchronize();
  /// True when nothing is queued or running.
  bool idle() const;

  /// Is the caller one of this Stream's work items?
  bool on_own_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

  /// The Stream behind an opaque handle, or null when the handle is not one of ours.
  static Stream* from_handle(const void* handle);

 private:
  void run();
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<Status()>> queue_;
  uint64_t enqueued_ = 0;
  uint64_t finished_ = 0;
  bool stop_ = false;
  Status first_failure_;
  std::thread thread_;
};

/// In whose order a call is to run: the caller's (nothing is set), one of our streams', or one of
/// CUDA's (a CUstream, but not null: only buffers of a GPU give a null stream that meaning).
struct Queue {
  Queue(Stream* stream) : host(stream) {}  // NOLINT: implicit on purpose
  static Queue of_cuda(void* stream) {
    Queue queue = nullptr;
    queue.cuda = stream;
    return queue;
  }
  Stream* host = nullptr;
  void* cuda = nullptr;
};

}  // namespace railccl::runtime
