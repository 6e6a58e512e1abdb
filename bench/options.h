// Options of railccl-bench: nccl-tests' letters, and a few of our own.
#pragma once

#include <railccl/types.h>

#include <cstddef>
#include <string>
#include <vector>

namespace railccl::bench {

/// What is measured: a collective, or the send/recv ring that nccl-tests calls sendrecv.
struct Kind {
  const char* name;
  bool send_recv = false;
  Collective collective = Collective::all_reduce;
};
const std::vector<Kind>& kinds();

struct Options {
  Kind kind{"all_reduce"};
  bool init = false;  // measure no collective but how communicators come about
  int ranks = 0;      // --ranks: processes to fork; 0: what the environment says
  int threads = 1;    // -t: ranks per process
  size_t min_bytes = 32 << 20;
  size_t max_bytes = 32 << 20;
  size_t step_bytes = 1 << 20;   // -i, when no factor is given
  double factor = 0;             // -f
  int iterations = 20;           // -n
  int warmup = 1;                // -w
  int aggregate = 1;             // -m: operations per group and iteration
  bool check = true;             // -c
  bool parallel_init = false;    // -p
  bool blocking_streams = true;  // -z 1: null stream; 0: a host stream
  int average = 1;               // -a: 0 rank 0, 1 mean, 2 min, 3 max over ranks
  int timeout_s = 0;             // -T: give up after; 0: never
  bool registered = false;       // -R: buffers from ncclMemAlloc
  bool cuda = false;             // --device: buffers of a GPU, on streams of CUDA's
  std::vector<Datatype> types{Datatype::float32};
  std::vector<Reduction> ops{Reduction::sum};
  std::vector<int> roots{0};  // -1 inside: all ranks, resolved by the driver
  bool json = false;
  bool each = false;   // iteration is verified, and its time is in JSON rows
  bool prove = false;  // the checker's word on each row's plan
  bool quiet = false;  // no progress line
};

/// Parses argv. Returns true when the program should go on; else `*exit_code` is what main returns
/// (help, version and errors were printed).
bool parse_options(int argc, char** argv, Options* options, int* exit_code);

}  // namespace railccl::bench
