// Reducer: sums gradients over ranks in buckets, on a host stream, while back-propagation goes on.
//
// Back-propagation finishes layers last to first, and each finished layer extends the open bucket
// downwards; a bucket that reaches its size is handed to ncclAllReduce, in place, on the stream. As
// all ranks run the same network, all form the same buckets in the same order.
//
//   for each batch:  network.backward(..., [&](size_t layer) { reducer.layer_done(layer); });
//                    if (!reducer.wait()) report(reducer.error());
//
// Used by one thread. Without a communicator (one rank) it does nothing.
#pragma once

#include <nccl.h>

#include <string>

#include "network.h"

namespace railccl::train {

class Reducer {
 public:
  /// `network` and `comm` are borrowed; `comm` may be null.
  Reducer(Network& network, ncclComm_t comm, size_t bucket_bytes);
  ~Reducer();
  Reducer(const Reducer&) = delete;
  Reducer& operator=(const Reducer&) = delete;

  /// The gradients of `layer` are final; those of all layers after it must be already.
  void layer_done(size_t layer);
  /// Waits until all gradients of this batch are sums over ranks. False after a failure, until
  /// restart().
  bool wait();
  /// Goes on with another communicator, from the next batch. What the old one was still doing has
  /// ended on return.
  void restart(ncclComm_t comm);
  const std::string& error() const { return error_; }
  /// Seconds spent in wait() so far: the communication that computation did not hide.
  double exposed_seconds() const { return exposed_seconds_; }

 private:
  void check(ncclResult_t result, const char* call);
  Network& network_;
  ncclComm_t comm_;
  size_t bucket_bytes_;
  cudaStream_t stream_ = nullptr;
  size_t begin_;  // the open bucket's first parameter, and the one after its last
  size_t end_;
  double exposed_seconds_ = 0;
  std::string error_;
};

/// "call: reason" for a failed call on `comm` (which may be null).
std::string describe(ncclResult_t result, ncclComm_t comm, const char* call);

}  // namespace railccl::train
