// Benchmark of the kernels: datatype x operator x size, in Google Benchmark's tables.
//
// Bytes/s count what the operation must move: each source read once, the result written once. "of
// copy" is that rate over the rate of copy() on the same number of bytes moved, measured in this
// run, so it is the fraction of the cache's or memory's bandwidth that is reached.
//
// "memory/..." runs on all processors at once, each with its own buffers of 64 MiB, and reports the
// fraction of the rate at which they copy with streaming stores ("of_streaming_copy").
//
//   kernels_bench --benchmark_filter='reduce/sum/half'
//   kernels_bench --benchmark_filter='memory/' --benchmark_repetitions=5
#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "kernels/kernels.h"

namespace railccl::kernels {
namespace {

struct Free {
  void operator()(void* memory) const { free(memory); }
};
using Buffer = std::unique_ptr<uint8_t, Free>;

/// Page-aligned, shifted by `lines` cache lines so that operands do not meet in one cache set, and
/// filled with 0x30: a number of moderate size in every datatype.
class Operand {
 public:
  Operand(size_t bytes, size_t lines)
      : memory_(static_cast<uint8_t*>(aligned_alloc(4096, (bytes / 4096 + 2) * 4096))),
        data_(memory_.get() + lines * 64) {
    memset(memory_.get(), 0x30, (bytes / 4096 + 2) * 4096);
  }
  uint8_t* data() const { return data_; }

 private:
  Buffer memory_;
  uint8_t* data_;
};

/// Bytes per second that copy() moves (read + written) when `moved` bytes are moved per call; the
/// best of several repetitions of about a millisecond.
double copy_rate(size_t moved) {
  static std::map<size_t, double> measured;
  double& rate = measured[moved];
  if (rate > 0) return rate;
  const Operand src(moved / 2, 0);
  const Operand dst(moved / 2, 5);
  const size_t calls = 1 + (size_t{16} << 20) / moved;
  for (int repetition = 0; repetition < 7; repetition++) {
    const int64_t begin = now_ns();
    for (size_t i = 0; i < calls; i++) {
      copy(dst.data(), src.data(), moved / 2);
      benchmark::ClobberMemory();
    }
    const double seconds = static_cast<double>(now_ns() - begin) * 1e-9;
    rate = std::max(rate, static_cast<double>(moved * calls) / seconds);
  }
  return rate;
}

void report(benchmark::State& state, size_t moved) {
  const double rate = copy_rate(moved);
  const auto total = static_cast<double>(moved) * static_cast<double>(state.iterations());
  state.SetBytesProcessed(static_cast<int64_t>(total));
  // A rate divided by a constant is a fraction of that constant.
  state.counters["of_copy"] = benchmark::Counter(total / rate, benchmark::Counter::kIsRate);
}

/// `bytes` is the size of each operand.
void bench_reduce(benchmark::State& state, Datatype type, Reduction op, int n_srcs, size_t bytes) {
  std::vector<Operand> operands;
  std::vector<const void*> srcs;
  for (int s = 0; s <= n_srcs; s++) operands.emplace_back(bytes, static_cast<size_t>(s) * 5);
  for (int s = 0; s < n_srcs; s++) srcs.push_back(operands[static_cast<size_t>(s)].data());
  const Scale factor{Scale::Kind::multiply, 0.5, 3};
  const Scaling scaling = scaling_of(op, type, 3, factor);
  for (auto _ : state) {
    reduce(operands.back().data(), srcs.data(), n_srcs, bytes / size_of(type), type, op,
           scaling.pre, scaling.post);
    benchmark::ClobberMemory();
  }
  report(state, bytes * (static_cast<size_t>(n_srcs) + 1));
}

void bench_copy(benchmark::State& state, size_t bytes, Store store) {
  const Operand src(bytes, 0);
  const Operand dst(bytes, 5);
  for (auto _ : state) {
    copy(dst.data(), src.data(), bytes, store);
    benchmark::ClobberMemory();
  }
  report(state, bytes * 2);
}

void bench_convert(benchmark::State& state, Datatype to, Datatype from, size_t count) {
  const Operand src(count * size_of(from), 0);
  const Operand dst(count * size_of(to), 5);
  for (auto _ : state) {
    convert(dst.data(), to, src.data(), from, count);
    benchmark::ClobberMemory();
  }
  report(state, count * (size_of(from) + size_of(to)));
}

/// Every processor reads n_srcs operands and writes n_dsts at the same time as the others.
void bench_memory(benchmark::State& state, Datatype type, int n_srcs, int n_dsts, Store store) {
  static double streaming_copy = 0;  // bytes per second; written by the first row's thread 0
  constexpr size_t kBytes = size_t{64} << 20;
  std::vector<Operand> operands;
  std::vector<const void*> srcs;
  std::vector<void*> dsts;
  for (int i = 0; i < n_srcs + n_dsts; i++) operands.emplace_back(kBytes, 0);
  for (int i = 0; i < n_srcs; i++) srcs.push_back(operands[static_cast<size_t>(i)].data());
  for (int i = 0; i < n_dsts; i++) dsts.push_back(operands[static_cast<size_t>(n_srcs + i)].data());
  int64_t begin = 0;
  for (auto _ : state) {
    if (begin == 0) begin = now_ns();
    reduce_to(dsts.data(), n_dsts, srcs.data(), n_srcs, kBytes / size_of(type), type,
              Reduction::sum, {}, {}, store);
    benchmark::ClobberMemory();
  }
  const double seconds = static_cast<double>(now_ns() - begin) * 1e-9;
  const double moved =
      static_cast<double>(kBytes) * (n_srcs + n_dsts) * static_cast<double>(state.iterations());
  state.SetBytesProcessed(static_cast<int64_t>(moved));
  if (state.thread_index() != 0) return;
  const double rate = moved * state.threads() / seconds;
  if (n_srcs == 1 && n_dsts == 1 && store == Store::streaming)
    streaming_copy = std::max(streaming_copy, rate);
  if (streaming_copy > 0) state.counters["of_streaming_copy"] = rate / streaming_copy;
}

void register_memory() {
  struct Shape {
    int n_srcs;
    int n_dsts;
  };
  const Shape shapes[] = {{1, 1}, {1, 2}, {2, 1}, {4, 1}, {2, 2}, {4, 4}};
  const auto processors = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  for (const Datatype type : {Datatype::float32, Datatype::float16, Datatype::bfloat16}) {
    for (const Store store : {Store::streaming, Store::cached}) {
      for (const auto& [n_srcs, n_dsts] : shapes) {
        if (n_srcs == 1 && type != Datatype::float32) continue;  // a copy
        const std::string name =
            std::string("memory/") + (store == Store::streaming ? "streaming/" : "cached/") +
            name_of(type) + "/" + std::to_string(n_srcs) + "to" + std::to_string(n_dsts);
        benchmark::RegisterBenchmark(name.c_str(), bench_memory, type, n_srcs, n_dsts, store)
            ->Threads(processors)
            ->UseRealTime();
      }
    }
  }
}

std::string size_text(size_t bytes) {
  return bytes >= size_t{1} << 20 ? std::to_string(bytes >> 20) + "M"
                                  : std::to_string(bytes >> 10) + "K";
}

void register_all() {
  register_memory();
  // In the first-level cache, the second-level cache, and memory.
  const size_t sizes[] = {size_t{8} << 10, size_t{128} << 10, size_t{64} << 20};
  for (int t = 0; t < kDatatypeCount; t++) {
    const auto type = static_cast<Datatype>(t);
    for (int o = 0; o < kReductionCount; o++) {
      const auto op = static_cast<Reduction>(o);
      for (const size_t bytes : sizes) {
        for (const int n_srcs : {2, 3, 4, 8}) {
          if (n_srcs > 2 && op != Reduction::sum) continue;
          const std::string name = std::string("reduce/") + name_of(op) + "/" + name_of(type) +
                                   "/" + std::to_string(n_srcs) + "x" + size_text(bytes);
          benchmark::RegisterBenchmark(name.c_str(), bench_reduce, type, op, n_srcs, bytes);
        }
      }
    }
  }
  for (size_t bytes = size_t{4} << 10; bytes <= size_t{64} << 20; bytes *= 4) {
    for (const Store store : {Store::by_size, Store::cached, Store::streaming}) {
      const char* kinds[] = {"by_size", "cached", "streaming"};
      const std::string name =
          std::string("copy/") + kinds[static_cast<int>(store)] + "/" + size_text(bytes);
      benchmark::RegisterBenchmark(name.c_str(), bench_copy, bytes, store);
    }
  }
  for (const Datatype type :
       {Datatype::float16, Datatype::bfloat16, Datatype::float8e4m3, Datatype::float8e5m2}) {
    for (const bool narrows : {false, true}) {
      const Datatype to = narrows ? type : Datatype::float32;
      const Datatype from = narrows ? Datatype::float32 : type;
      const std::string name = std::string("convert/") + name_of(from) + "/" + name_of(to) + "/32K";
      benchmark::RegisterBenchmark(name.c_str(), bench_convert, to, from, size_t{32} << 10);
    }
  }
}

}  // namespace
}  // namespace railccl::kernels

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("instruction set", railccl::kernels::target_name());
  railccl::kernels::register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
