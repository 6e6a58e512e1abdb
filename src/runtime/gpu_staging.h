// Staging: calls with buffers of a GPU, through pinned memory of the host. Private to this room.
//
// Such a call is queued on the stream of CUDA's that it was made with, and never waits: the stream
// copies the input into pinned memory and says so in a word there; a thread of the communicator's
// own (the worker, one of our Streams) sees it and runs the call on the copies as on any host
// buffers; it says so in another word, for which the stream waits before it copies the output back
// and goes on. No thread of ours calls CUDA, so none can be held up by what an application does
// there; and CUDA calls none of ours, so no two ranks of a process can hold up each other.
//
// What does not fit into the pinned memory passes through it in pieces, to and from ordinary memory
// of the host (the spool). All input of a group leaves its streams before any of them waits for
// output: so what ranks wait for each other is the same as on the host, whatever their buffers.
//
// A communicator's calls use the pinned memory one after the other: on one stream they are in order
// anyway, and when the stream changes the next one waits for the last by an event.
//
// Host buffers in such a call are used where they are, when the stream has come to the call.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "runtime/communicator.h"
#include "runtime/gpu_area.h"

namespace railccl::runtime {

class Member;
struct Recorded;

/// What of a call is of a GPU.
struct OnGpu {
  bool any = false;                    // it belongs on `stream`, null being CUDA's null stream
  void* stream = nullptr;              // a CUstream
  bool input = false, output = false;  // not for the host to touch
};
/// Code invalid_argument for a buffer of a GPU on one of our own streams.
/// `place`: the communicator's.
Result<OnGpu> look_at(const Call& call, Queue queue, const GpuPlace& place, int ranks, int rank);

/// One communicator's. By the thread that makes the communicator's calls.
class Staging {
 public:
  /// `context`: null: that of `stream`, else that which is current. Pins memory, for which the
  /// driver may wait until streams have come to rest: where the context is known it is made with
  /// the communicator, not when peers may wait already.
  static Result<std::unique_ptr<Staging>> make(gpu::Context context, void* stream);
  ~Staging();

  Stream& worker() { return *worker_; }
  std::unique_ptr<Stream> take_worker() { return std::move(worker_); }
  uint64_t pinned_bytes() const { return area_->pinned_bytes(); }
  uint64_t spool_bytes() const { return spool_ == nullptr ? 0 : spool_->size(); }
  void release_spool();

 private:
  friend class StagedGroup;
  Staging() = default;
  Result<std::shared_ptr<transport::MemoryFile>> spool(uint64_t bytes);
  std::shared_ptr<GpuArea> area_;
  std::shared_ptr<transport::MemoryFile> spool_;
  std::unique_ptr<Stream> worker_;
  uint32_t filled_ = 0, produced_ = 0;  // all that was queued so far will bring the words to these
  bool used_ = false;
  unsigned long long last_stream_ = 0;  // by CUDA's number for it: handles are used again
};

/// The calls of a group that are on streams of CUDA's.
class StagedGroup {
 public:
  StagedGroup();
  ~StagedGroup();
  /// Queues all that the streams do, and gives these calls host buffers and the worker's Stream.
  /// Where it fails nothing will run, and streams that were given something are let go.
  Status begin(std::span<Recorded> calls);
  /// After the calls are queued on the workers.
  void end();

 private:
  struct Batch;
  Status plan(std::span<Recorded> calls);
  Status queue();
  std::vector<std::shared_ptr<Batch>> batches_;
};

}  // namespace railccl::runtime
