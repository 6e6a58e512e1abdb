// Machine: cache-line ping-pong, streaming copy, reduction in the L2 cache.
#include "machine.h"

#include <sched.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "page.h"

namespace railccl::compare {
namespace {

std::vector<int> cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  std::vector<int> list;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) list.push_back(cpu);
  }
  return list;
}

void bind_to(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  sched_setaffinity(0, sizeof one, &one);
}

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
using Area = std::unique_ptr<std::byte, Free>;

Area area(size_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, bytes));
  if (memory != nullptr) std::memset(memory, 1, bytes);
  return Area(memory);
}

// The widest stores that the processor has: GCC makes a version for each target from one body.
#if defined(__x86_64__)
__attribute__((target("avx512f"))) void stream_512(std::byte* out, const std::byte* in, size_t n) {
  for (size_t i = 0; i < n; i += 64) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_loadu_si512(in + i));
  }
}
void stream_128(std::byte* out, const std::byte* in, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(out + i),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i)));
  }
}
#endif

void stream_copy(std::byte* out, const std::byte* in, size_t n) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) {
    stream_512(out, in, n);
  } else {
    stream_128(out, in, n);
  }
  _mm_sfence();
#else
  std::memcpy(out, in, n);
#endif
}

#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
void add(float* __restrict out, const float* __restrict a, const float* __restrict b, size_t n) {
  for (size_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

}  // namespace

int allowed_cores() { return static_cast<int>(cores().size()); }

double line_round_trip_ns() {
  const std::vector<int> at = cores();
  if (at.size() < 2) return 0;
  // The median of short batches: a thread that loses its core meanwhile spoils one batch only.
  constexpr uint64_t kBatches = 64;
  constexpr uint64_t kBatchRounds = 300;
  struct alignas(128) Line {
    std::atomic<uint64_t> word{0};
  };
  Line line;
  std::vector<double> times;
  const auto play = [&](uint64_t side) {
    bind_to(at[side]);
    for (uint64_t i = 0; i <= kBatches * kBatchRounds; ++i) {
      if (i % kBatchRounds == 0 && side == 0) times.push_back(now_us());
      // acquire and release: each side's store is the other's load.
      while (line.word.load(std::memory_order_acquire) != 2 * i + side) {
      }
      line.word.store(2 * i + side + 1, std::memory_order_release);
    }
  };
  std::thread other(play, 1);
  std::thread first(play, 0);
  first.join();
  other.join();
  std::vector<double> batches;
  for (size_t i = 1; i < times.size(); ++i) batches.push_back(times[i] - times[i - 1]);
  return median(batches) * 1e3 / kBatchRounds;
}

double stream_copy_bytes_per_s() {
  constexpr size_t kBytes = 64 << 20;
  constexpr int kPasses = 2;
  const std::vector<int> at = cores();
  static std::vector<std::pair<Area, Area>> areas;
  while (areas.size() < at.size()) areas.emplace_back(area(kBytes), area(kBytes));
  std::atomic<int> waiting{static_cast<int>(at.size())};
  std::vector<double> starts(at.size());
  std::vector<double> ends(at.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < at.size(); ++i) {
    threads.emplace_back([&, i] {
      bind_to(at[i]);
      // acq_rel and acquire: only the count itself matters; all start together.
      waiting.fetch_sub(1, std::memory_order_acq_rel);
      while (waiting.load(std::memory_order_acquire) != 0) {
      }
      starts[i] = now_us();
      for (int pass = 0; pass < kPasses; ++pass) {
        stream_copy(areas[i].first.get(), areas[i].second.get(), kBytes);
      }
      ends[i] = now_us();
    });
  }
  for (std::thread& thread : threads) thread.join();
  double first = starts[0];
  double last = ends[0];
  for (size_t i = 1; i < at.size(); ++i) {
    first = std::min(first, starts[i]);
    last = std::max(last, ends[i]);
  }
  return 2.0 * kBytes * kPasses * static_cast<double>(at.size()) / (last - first) * 1e6;
}

double cached_reduce_bytes_per_s() {
  constexpr size_t kCount = 32 * 1024 / sizeof(float);
  constexpr int kPasses = 300;
  double rate = 0;
  std::thread worker([&rate, core = cores().front()] {
    bind_to(core);
    std::vector<float> a(kCount, 1.0F);
    std::vector<float> b(kCount, 2.0F);
    std::vector<float> out(kCount);
    add(out.data(), a.data(), b.data(), kCount);
    const double start = now_us();
    for (int pass = 0; pass < kPasses; ++pass) {
      add(out.data(), a.data(), b.data(), kCount);
      asm volatile("" : : "r"(out.data()) : "memory");  // the sums are wanted
    }
    rate = 3.0 * kCount * sizeof(float) * kPasses / (now_us() - start) * 1e6;
  });
  worker.join();
  return rate;
}

std::string machine_name() {
  std::string name = "unknown processor";
  std::ifstream facts("/proc/cpuinfo");
  for (std::string line; std::getline(facts, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) name = line.substr(colon + 2);
    break;
  }
  name += ", " + std::to_string(allowed_cores()) + " cores";
  // The kernel's account: sysconf() multiplies by the cores of the host in some virtual machines.
  std::ifstream cache("/sys/devices/system/cpu/cpu0/cache/index3/size");
  int kib = 0;
  if (cache >> kib) name += ", " + std::to_string(kib / 1024) + " MiB L3";
  return name;
}

}  // namespace railccl::compare
