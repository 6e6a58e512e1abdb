// Measure: one rank's share of one row: buffers, repeated calls, verification.
#pragma once

#include <nccl.h>
#include <railccl/railccl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "options.h"

namespace railccl::bench {

/// A row's parameters.
struct Case {
  size_t count = 0;  // NCCL's count argument
  size_t bytes = 0;  // nccl-tests' size column
  Datatype type = Datatype::float32;
  Reduction op = Reduction::none;
  int root = 0;
  bool in_place = false;
};

/// What all ranks together measured; equal on all ranks.
struct Row {
  Case what;
  double time_us = 0;      // median over iterations, then over ranks as -a says
  double time_min_us = 0;  // of rank 0
  double algbw_gbs = 0;    // 1e9 bytes per second
  double busbw_gbs = 0;
  int64_t wrong = -1;  // elements, over all ranks; -1: not checked
  std::string algorithm;
  std::string transport;
  int channels = 0;
  double predicted_us = 0;              // by the cost model, which chose the algorithm
  double bound_us = 0;                  // no algorithm can be faster on the topology as known
  std::optional<railcclProof_t> proof;  // on rank 0, with Options::prove
  // Of each iteration on rank 0, with Options::each; starts by the machine's monotonic clock.
  std::vector<double> times_us, starts_us;
};

/// The case of nccl-tests' `bytes` for this collective, rounded down to whole elements and blocks.
Case case_of(const Options& options, size_t bytes, Datatype type, int ranks);
/// Has the collective an in-place form?
bool has_in_place(const Kind& kind);
/// busbw / algbw as nccl-tests defines it.
double bus_factor(const Kind& kind, int ranks);

/// One rank's communicator and stream. Used by one thread, whose current device is the rank's.
class Bench {
 public:
  Bench(const Options& options, ncclComm_t comm, int rank, int ranks);
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  /// Collective. Exits the process with a message when a call fails: a benchmark has no plan B.
  Row measure(const Case& what);

 private:
  void barrier();
  void finish_stream();
  void call(const Case& what, ncclRedOp_t op, std::byte* send, std::byte* recv);
  std::vector<double> everyones(double mine);
  railcclProof_t prove(const Case& what, ncclRedOp_t op, railcclReach_t reach);

  const Options& options_;
  ncclComm_t comm_;
  cudaStream_t stream_ = nullptr;
  int rank_;
  int ranks_;
};

/// Prints "rank R: what: why" and ends the process unless `result` is ncclSuccess.
void must(ncclResult_t result, const char* what, int rank, ncclComm_t comm);

}  // namespace railccl::bench
