// Buckets and their all-reduces.
#include "reducer.h"

#include <railccl/railccl.h>

#include "seconds.h"

namespace railccl::train {

std::string describe(ncclResult_t result, ncclComm_t comm, const char* call) {
  const std::string reason = ncclGetLastError(comm);
  return std::string(call) + ": " + ncclGetErrorString(result) +
         (reason.empty() ? "" : " (" + reason + ")");
}

Reducer::Reducer(Network& network, ncclComm_t comm, size_t bucket_bytes)
    : network_(network),
      comm_(comm),
      bucket_bytes_(bucket_bytes),
      begin_(network.offset(network.layers())),
      end_(begin_) {
  if (comm_ != nullptr) check(railcclStreamCreate(&stream_), "railcclStreamCreate");
}

Reducer::~Reducer() {
  // A failure here was reported by wait(), or concerns a batch that nobody waits for.
  if (stream_ != nullptr) static_cast<void>(railcclStreamDestroy(stream_));
}

void Reducer::layer_done(size_t layer) {
  begin_ = network_.offset(layer);
  const bool full = (end_ - begin_) * sizeof(float) >= bucket_bytes_;
  if (!full && layer > 0) return;
  if (comm_ != nullptr && error_.empty() && begin_ < end_) {
    float* bucket = network_.gradients().data() + begin_;
    check(ncclAllReduce(bucket, bucket, end_ - begin_, ncclFloat, ncclSum, comm_, stream_),
          "ncclAllReduce");
  }
  end_ = layer > 0 ? begin_ : network_.offset(network_.layers());
}

bool Reducer::wait() {
  if (comm_ == nullptr) return true;
  const double begin = seconds_now();
  if (stream_ != nullptr) check(railcclStreamSynchronize(stream_), "railcclStreamSynchronize");
  exposed_seconds_ += seconds_now() - begin;
  return error_.empty();
}

void Reducer::restart(ncclComm_t comm) {
  // Calls on a communicator that has failed end by themselves, and that they failed is known.
  if (stream_ != nullptr) static_cast<void>(railcclStreamSynchronize(stream_));
  comm_ = comm;
  error_.clear();
  begin_ = end_ = network_.offset(network_.layers());
}

void Reducer::check(ncclResult_t result, const char* call) {
  if (result != ncclSuccess && error_.empty()) error_ = describe(result, comm_, call);
}

}  // namespace railccl::train
