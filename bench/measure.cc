// Measure: buffers with known contents, the timed loop, verification, the ranks' common row.
#include "measure.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "cuda.h"
#include "values.h"

namespace railccl::bench {
namespace {

constexpr size_t kGuardBytes = 64;  // after every buffer: catches writes past its end
constexpr auto kGuard = std::byte{0xa5};

double now_us() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) * 1e-3;
}

/// Memory for one buffer, guarded; from ncclMemAlloc when `registered`. With a GPU what is written
/// and looked at is a copy of the host's: push() and pull() bring it there and back.
class Area {
 public:
  Area(size_t bytes, bool registered, bool cuda) : bytes_(bytes), registered_(registered && !cuda) {
    void* memory = nullptr;
    if (cuda) make_on_gpu(registered);
    if (registered_) {
      if (ncclMemAlloc(&memory, bytes + kGuardBytes) != ncclSuccess) memory = nullptr;
    } else {
      const size_t rounded = (bytes + kGuardBytes + 4095) / 4096 * 4096;
      memory = std::aligned_alloc(4096, rounded);
    }
    if (memory == nullptr) {
      std::fprintf(stderr, "railccl-bench: no memory for a buffer of %zu bytes\n", bytes);
      std::exit(2);
    }
    memory_ = static_cast<std::byte*>(memory);
    std::memset(memory_, 0, bytes);
    std::memset(memory_ + bytes, static_cast<int>(kGuard), kGuardBytes);
  }
  ~Area() {
    if (on_gpu_ != nullptr && from_nccl_) (void)ncclMemFree(on_gpu_);
    if (on_gpu_ != nullptr && !from_nccl_) Cuda::free(on_gpu_);
    if (registered_) {
      (void)ncclMemFree(memory_);
    } else {
      std::free(memory_);
    }
  }
  Area(const Area&) = delete;
  Area& operator=(const Area&) = delete;
  std::byte* data() { return memory_; }
  /// What calls are given for a place in data().
  std::byte* given(std::byte* at) { return on_gpu_ != nullptr ? on_gpu_ + (at - memory_) : at; }
  void push() {
    if (on_gpu_ != nullptr) Cuda::copy(on_gpu_, memory_, bytes_ + kGuardBytes);
  }
  void pull() {
    if (on_gpu_ != nullptr) Cuda::copy(memory_, on_gpu_, bytes_ + kGuardBytes);
  }
  size_t bytes() const { return bytes_; }
  bool guard_intact() const {
    return std::all_of(memory_ + bytes_, memory_ + bytes_ + kGuardBytes,
                       [](std::byte b) { return b == kGuard; });
  }

 private:
  void make_on_gpu(bool from_nccl) {
    from_nccl_ = from_nccl;
    void* memory = nullptr;
    if (!from_nccl) {
      memory = Cuda::alloc(bytes_ + kGuardBytes);
    } else if (ncclMemAlloc(&memory, bytes_ + kGuardBytes) != ncclSuccess) {
      std::fprintf(stderr, "railccl-bench: %s\n", ncclGetLastError(nullptr));
      std::exit(2);
    }
    on_gpu_ = static_cast<std::byte*>(memory);
  }
  std::byte* memory_ = nullptr;
  std::byte* on_gpu_ = nullptr;
  bool from_nccl_ = false;  // on_gpu_
  size_t bytes_;
  bool registered_;
};

/// Where one rank's elements lie for a case, in elements.
struct Layout {
  size_t send_count = 0;
  size_t recv_count = 0;
  size_t send_at = 0;  // offset of the send part inside the one buffer of an in-place call
  size_t recv_at = 0;
};

Layout layout_of(const Kind& kind, const Case& what, int rank, int ranks) {
  const size_t n = static_cast<size_t>(ranks), mine = static_cast<size_t>(rank) * what.count;
  if (kind.send_recv) return {what.count, what.count, 0, 0};
  const bool root = rank == what.root;
  switch (kind.collective) {
    case Collective::all_reduce:
    case Collective::broadcast:
    case Collective::reduce:
      return {what.count, what.count, 0, 0};
    case Collective::all_gather:
      return {what.count, what.count * n, mine, 0};
    case Collective::reduce_scatter:
      return {what.count * n, what.count, 0, mine};
    case Collective::all_to_all:
      return {what.count * n, what.count * n, 0, 0};
    case Collective::gather:
      return {what.count, root ? what.count * n : 0, root ? mine : 0, 0};
    case Collective::scatter:
      return {root ? what.count * n : 0, what.count, 0, root ? mine : 0};
  }
  return {};
}

/// Does the call read this rank's input / define its output?
bool has_input(const Kind& kind, const Case& what, int rank) {
  return kind.send_recv || rank == what.root ||
         (kind.collective != Collective::broadcast && kind.collective != Collective::scatter);
}
bool has_output(const Kind& kind, const Case& what, int rank) {
  return kind.send_recv || rank == what.root ||
         (kind.collective != Collective::reduce && kind.collective != Collective::gather);
}

/// The patterns that a case needs, made once per measurement.
class Expectation {
 public:
  Expectation(const Kind& kind, const Case& what, int rank, int ranks)
      : kind_(kind), what_(what), rank_(rank), ranks_(ranks), bytes_(size_of(what.type)) {
    const bool everyones = kind.send_recv || kind.collective == Collective::all_gather ||
                           kind.collective == Collective::gather ||
                           kind.collective == Collective::all_to_all;
    inputs_.resize(static_cast<size_t>(ranks));
    for (int r = 0; r < ranks; r++)
      if (everyones || r == rank || r == what.root)
        inputs_[static_cast<size_t>(r)] = input_tile(what.type, what.op, r, ranks);
    if (!kind.send_recv && reduces(kind.collective))
      reduced_ = reduced_tile(what.type, what.op, ranks);
  }
  void write_input(std::byte* send, size_t count) const {
    fill(send, tile(rank_), bytes_, 0, count);
  }
  size_t wrong_input(const std::byte* send, size_t count) const {
    return count_wrong(send, tile(rank_), bytes_, 0, count);
  }
  size_t wrong_output(const std::byte* recv) const {
    const size_t count = what_.count, mine = static_cast<size_t>(rank_) * count;
    if (kind_.send_recv)
      return count_wrong(recv, tile((rank_ + ranks_ - 1) % ranks_), bytes_, 0, count);
    switch (kind_.collective) {
      case Collective::all_reduce:
      case Collective::reduce:
        return count_wrong(recv, reduced_, bytes_, 0, count);
      case Collective::reduce_scatter:
        return count_wrong(recv, reduced_, bytes_, mine, count);
      case Collective::broadcast:
        return count_wrong(recv, tile(what_.root), bytes_, 0, count);
      case Collective::scatter:
        return count_wrong(recv, tile(what_.root), bytes_, mine, count);
      case Collective::all_gather:
      case Collective::gather:
      case Collective::all_to_all:
        break;
    }
    const size_t from = kind_.collective == Collective::all_to_all ? mine : 0;
    size_t wrong = 0;
    for (int r = 0; r < ranks_; r++)
      wrong +=
          count_wrong(recv + static_cast<size_t>(r) * count * bytes_, tile(r), bytes_, from, count);
    return wrong;
  }

 private:
  const std::vector<std::byte>& tile(int rank) const { return inputs_[static_cast<size_t>(rank)]; }
  const Kind& kind_;
  const Case& what_;
  int rank_;
  int ranks_;
  size_t bytes_;
  std::vector<std::vector<std::byte>> inputs_;
  std::vector<std::byte> reduced_;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

double over_ranks(const std::vector<double>& values, int average) {
  if (average == 0) return values[0];
  if (average == 2) return *std::min_element(values.begin(), values.end());
  if (average == 3) return *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

}  // namespace

void must(ncclResult_t result, const char* what, int rank, ncclComm_t comm) {
  if (result == ncclSuccess) return;
  std::fprintf(stderr, "railccl-bench: rank %d: %s: %s: %s\n", rank, what,
               ncclGetErrorString(result), ncclGetLastError(comm));
  std::fflush(stderr);
  std::_Exit(3);
}

Case case_of(const Options& options, size_t bytes, Datatype type, int ranks) {
  Case what;
  what.type = type;
  const size_t element = size_of(type), n = static_cast<size_t>(ranks);
  bool blocks = false;
  if (!options.kind.send_recv) {
    switch (options.kind.collective) {
      case Collective::all_gather:
      case Collective::reduce_scatter:
      case Collective::all_to_all:
      case Collective::gather:
      case Collective::scatter:
        blocks = true;
        break;
      default:
        break;
    }
  }
  what.count = blocks ? bytes / element / n : bytes / element;
  what.bytes = what.count * element * (blocks ? n : 1);
  return what;
}

bool has_in_place(const Kind& kind) {
  return !kind.send_recv && kind.collective != Collective::all_to_all;
}

double bus_factor(const Kind& kind, int ranks) {
  if (kind.send_recv) return 1;
  const double n = ranks;
  switch (kind.collective) {
    case Collective::all_reduce:
      return 2 * (n - 1) / n;
    case Collective::broadcast:
    case Collective::reduce:
      return 1;
    default:
      return (n - 1) / n;
  }
}

Bench::Bench(const Options& options, ncclComm_t comm, int rank, int ranks)
    : options_(options), comm_(comm), rank_(rank), ranks_(ranks) {
  if (options.cuda)
    stream_ = static_cast<cudaStream_t>(Cuda::make_stream());
  else if (!options.blocking_streams)
    must(railcclStreamCreate(&stream_), "railcclStreamCreate", rank, comm);
}

Bench::~Bench() {
  if (stream_ == nullptr) return;
  if (options_.cuda)
    Cuda::end_stream(stream_);
  else
    (void)railcclStreamDestroy(stream_);
}

void Bench::finish_stream() {
  if (stream_ == nullptr) return;
  if (options_.cuda)
    Cuda::synchronize(stream_);
  else
    must(railcclStreamSynchronize(stream_), "railcclStreamSynchronize", rank_, comm_);
}

void Bench::barrier() {
  float one = 1;
  must(ncclAllReduce(&one, &one, 1, ncclFloat, ncclSum, comm_, nullptr), "barrier", rank_, comm_);
}

std::vector<double> Bench::everyones(double mine) {
  std::vector<double> all(static_cast<size_t>(ranks_));
  must(ncclAllGather(&mine, all.data(), 1, ncclDouble, comm_, nullptr), "ncclAllGather of times",
       rank_, comm_);
  return all;
}

void Bench::call(const Case& what, ncclRedOp_t op, std::byte* send, std::byte* recv) {
  const auto type = static_cast<ncclDataType_t>(what.type);
  const size_t count = what.count;
  if (options_.kind.send_recv) {
    must(ncclGroupStart(), "ncclGroupStart", rank_, comm_);
    must(ncclSend(send, count, type, (rank_ + 1) % ranks_, comm_, stream_), "ncclSend", rank_,
         comm_);
    must(ncclRecv(recv, count, type, (rank_ + ranks_ - 1) % ranks_, comm_, stream_), "ncclRecv",
         rank_, comm_);
    must(ncclGroupEnd(), "ncclGroupEnd", rank_, comm_);
    return;
  }
  ncclResult_t result = ncclInternalError;
  switch (options_.kind.collective) {
    case Collective::all_reduce:
      result = ncclAllReduce(send, recv, count, type, op, comm_, stream_);
      break;
    case Collective::reduce_scatter:
      result = ncclReduceScatter(send, recv, count, type, op, comm_, stream_);
      break;
    case Collective::all_gather:
      result = ncclAllGather(send, recv, count, type, comm_, stream_);
      break;
    case Collective::broadcast:
      result = ncclBroadcast(send, recv, count, type, what.root, comm_, stream_);
      break;
    case Collective::reduce:
      result = ncclReduce(send, recv, count, type, op, what.root, comm_, stream_);
      break;
    case Collective::all_to_all:
      result = ncclAlltoAll(send, recv, count, type, comm_, stream_);
      break;
    case Collective::gather:
      result = ncclGather(send, recv, count, type, what.root, comm_, stream_);
      break;
    case Collective::scatter:
      result = ncclScatter(send, recv, count, type, what.root, comm_, stream_);
      break;
  }
  must(result, name_of(options_.kind.collective), rank_, comm_);
}

railcclProof_t Bench::prove(const Case& what, ncclRedOp_t op, railcclReach_t reach) {
  static_assert(static_cast<int>(Collective::scatter) == railcclScatter);
  railcclProof_t proof = RAILCCL_PROOF_INITIALIZER;
  must(railcclCommProve(static_cast<railcclCollective_t>(options_.kind.collective), what.count,
                        static_cast<ncclDataType_t>(what.type), op, what.root, what.in_place, reach,
                        comm_, &proof),
       "railcclCommProve", rank_, comm_);
  return proof;
}

Row Bench::measure(const Case& what) {
  const size_t element = size_of(what.type);
  const auto slots = static_cast<size_t>(options_.aggregate);
  const Layout layout = layout_of(options_.kind, what, rank_, ranks_);
  const Expectation expected(options_.kind, what, rank_, ranks_);
  const bool reads = has_input(options_.kind, what, rank_);
  const bool writes = has_output(options_.kind, what, rank_);

  // One slot per aggregated operation; in place both parts share one buffer.
  std::vector<std::unique_ptr<Area>> sends, recvs;
  for (size_t slot = 0; slot < slots; slot++) {
    const size_t send_bytes = layout.send_count * element, recv_bytes = layout.recv_count * element;
    if (what.in_place) {
      sends.push_back(std::make_unique<Area>(std::max(send_bytes, recv_bytes), options_.registered,
                                             options_.cuda));
    } else {
      sends.push_back(std::make_unique<Area>(send_bytes, options_.registered, options_.cuda));
      recvs.push_back(std::make_unique<Area>(recv_bytes, options_.registered, options_.cuda));
    }
  }
  auto send_of = [&](size_t slot) {
    return sends[slot]->data() + (what.in_place ? layout.send_at * element : 0);
  };
  auto recv_of = [&](size_t slot) {
    return what.in_place ? sends[slot]->data() + layout.recv_at * element : recvs[slot]->data();
  };

  ncclRedOp_t op = static_cast<ncclRedOp_t>(what.op);
  const bool own_op = what.op == Reduction::pre_mul_sum;
  if (own_op) {
    std::byte scalar[8];
    encode(factor_of(rank_), what.type, scalar);
    must(ncclRedOpCreatePreMulSum(&op, scalar, static_cast<ncclDataType_t>(what.type),
                                  ncclScalarHostImmediate, comm_),
         "ncclRedOpCreatePreMulSum", rank_, comm_);
  }

  size_t wrong = 0;
  const auto count_wrong = [&] {
    if (!options_.check) return;
    for (size_t slot = 0; slot < slots; slot++) {
      sends[slot]->pull();
      if (!what.in_place) recvs[slot]->pull();
      if (writes) wrong += expected.wrong_output(recv_of(slot));
      // Out of place the input is the caller's: it must be as it was.
      if (!what.in_place && reads) wrong += expected.wrong_input(send_of(slot), layout.send_count);
      if (!sends[slot]->guard_intact()) wrong++;
      if (!what.in_place && !recvs[slot]->guard_intact()) wrong++;
    }
  };

  std::vector<double> times, starts;
  times.reserve(static_cast<size_t>(options_.iterations));
  starts.reserve(times.capacity());
  railcclChoice_t choice = RAILCCL_CHOICE_INITIALIZER;
  for (int i = 0; i < options_.warmup + options_.iterations; i++) {
    // Rewritten before every iteration: reused buffers would sit in caches as no user's do.
    for (size_t slot = 0; slot < slots; slot++) {
      if (!what.in_place) std::memset(recv_of(slot), 0x5a, layout.recv_count * element);
      if (what.in_place) std::memset(sends[slot]->data(), 0x5a, sends[slot]->bytes());
      if (reads) expected.write_input(send_of(slot), layout.send_count);
      sends[slot]->push();
      if (!what.in_place) recvs[slot]->push();
    }
    barrier();
    const double start = now_us();
    if (slots > 1) must(ncclGroupStart(), "ncclGroupStart", rank_, comm_);
    for (size_t slot = 0; slot < slots; slot++) {
      Area& recv = what.in_place ? *sends[slot] : *recvs[slot];
      call(what, op, sends[slot]->given(send_of(slot)), recv.given(recv_of(slot)));
    }
    if (slots > 1) must(ncclGroupEnd(), "ncclGroupEnd", rank_, comm_);
    finish_stream();
    const double elapsed = (now_us() - start) / static_cast<double>(slots);
    if (i >= options_.warmup) {
      times.push_back(elapsed);
      starts.push_back(start);
    }
    if (options_.each || i + 1 == options_.warmup + options_.iterations) count_wrong();
  }
  must(railcclCommLastChoice(comm_, &choice), "railcclCommLastChoice", rank_, comm_);
  Row row;
  // The others wait in their next call.
  if (options_.prove && rank_ == 0)
    row.proof = prove(what, op,
                      std::strcmp(choice.algorithm, "open") == 0      ? railcclReachOpen
                      : std::strcmp(choice.algorithm, "fetched") == 0 ? railcclReachFetched
                                                                      : railcclReachNone);
  if (own_op) must(ncclRedOpDestroy(op, comm_), "ncclRedOpDestroy", rank_, comm_);

  row.what = what;
  row.time_us = over_ranks(everyones(median(times)), options_.average);
  row.time_min_us = everyones(*std::min_element(times.begin(), times.end()))[0];
  row.algbw_gbs = static_cast<double>(what.bytes) / row.time_us * 1e-3;
  row.busbw_gbs = row.algbw_gbs * bus_factor(options_.kind, ranks_);
  row.algorithm = choice.algorithm;
  row.transport = choice.transport;
  row.channels = choice.channels;
  row.predicted_us = choice.predictedUs;
  row.bound_us = choice.boundUs;
  if (options_.each) {
    row.times_us = std::move(times);
    row.starts_us = std::move(starts);
  }
  if (options_.check) {
    int64_t total = static_cast<int64_t>(wrong);
    must(ncclAllReduce(&total, &total, 1, ncclInt64, ncclSum, comm_, nullptr), "count of wrong",
         rank_, comm_);
    row.wrong = total;
  }
  return row;
}

}  // namespace railccl::bench
