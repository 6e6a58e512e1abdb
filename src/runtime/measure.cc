// Measure: the pinned threads and what they time.
#include "runtime/measure.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <system_error>
#include <thread>

#include "base/caches.h"
#include "base/clock.h"
#include "base/owners.h"
#include "kernels/kernels.h"
#include "runtime/measured_cores.h"
#include "transport/process_memory.h"

namespace railccl::runtime {

using topology::Speeds;

namespace {

// What fits the second-level cache of every processor of the last fifteen years twice.
constexpr size_t kCachedBytes = 64 << 10;
constexpr size_t kPeerSmallBytes = 64 << 10;
constexpr size_t kPeerLargeBytes = 1 << 20;
constexpr size_t kMemoryBytesMin = size_t{8} << 20;
constexpr size_t kMemoryBytesAllMax = size_t{512} << 20;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

void pin_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  // Where this is forbidden the figures are less sharp, and still this machine's.
  [[maybe_unused]] const int failed = sched_setaffinity(0, sizeof set, &set);
}

/// Runs `body(i)` on one thread per entry of `cpus`, pinned to it.
Status on_cpus(const std::vector<int>& cpus, const std::function<void(size_t)>& body) {
  std::vector<std::thread> threads;
  Status status;
  try {
    for (size_t i = 0; i < cpus.size(); i++)
      threads.emplace_back([&, i] {
        pin_to(cpus[i]);
        body(i);
      });
  } catch (const std::system_error& error) {
    status = Status(Code::system, "cannot start a thread to measure with: {}", error.what());
  }
  for (std::thread& thread : threads) thread.join();
  return status;
}

/// The sample that a quarter of all are better than; `samples` is not empty.
double good(std::vector<double> samples, bool small_is_good) {
  std::sort(samples.begin(), samples.end());
  if (!small_is_good) std::reverse(samples.begin(), samples.end());
  return samples[samples.size() / 4];
}
double good_time(const std::vector<double>& samples) { return good(samples, true); }
double good_rate(const std::vector<double>& samples) { return good(samples, false); }

double seconds_since(int64_t start_ns) {
  return static_cast<double>(std::max<int64_t>(1, now_ns() - start_ns)) * 1e-9;
}

/// What a flag becomes when the time for its measurement is over.
constexpr uint32_t kStop = ~uint32_t{0};

/// How a thread waits for a flag to have a value; false when it has become kStop instead, or the
/// deadline passed.
using FlagWait = bool (*)(std::atomic<uint32_t>& flag, uint32_t value, const Deadline& deadline);

// All loads of flags acquire; their partners are the release stores of whoever sets the flag.
bool spin_until(std::atomic<uint32_t>& flag, uint32_t value, const Deadline& deadline) {
  for (uint32_t i = 1;; i++) {
    const uint32_t seen = flag.load(std::memory_order_acquire);
    if (seen == value || seen == kStop) return seen == value;
    if (i % 1024 != 0) {
      relax();
      continue;
    }
    if (deadline.passed()) return false;
    // Somebody else may have the other core for a while.
    if (i > 1 << 16) sched_yield();
  }
}

bool yield_until(std::atomic<uint32_t>& flag, uint32_t value, const Deadline& deadline) {
  for (uint32_t i = 1;; i++) {
    const uint32_t seen = flag.load(std::memory_order_acquire);
    if (seen == value || seen == kStop) return seen == value;
    sched_yield();
    if (i % 64 == 0 && deadline.passed()) return false;
  }
}

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  static_assert(sizeof(std::atomic<uint32_t>) == sizeof(uint32_t));
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation | FUTEX_PRIVATE_FLAG,
                 value, timeout, nullptr, 0);
}

bool sleep_until(std::atomic<uint32_t>& flag, uint32_t value, const Deadline& deadline) {
  for (;;) {
    const uint32_t seen = flag.load(std::memory_order_acquire);
    if (seen == value || seen == kStop) return seen == value;
    if (deadline.passed()) return false;
    const timespec timeout = {0, 10'000'000};
    futex(flag, FUTEX_WAIT, seen, &timeout);
  }
}

/// How long and how finely something is sampled. On a machine that others keep busy, fewer samples
/// than `samples` come together in the time there is; one does.
struct Sampling {
  int samples;
  int64_t budget_ms;
};

/// Seconds of one handover between a thread on `first` and one on `second`, both waiting by `wait`;
/// a sample is `rounds` there and back.
Result<double> ping_pong(int first, int second, FlagWait wait, int rounds, const Sampling& sampling,
                         const Deadline& deadline) {
  struct alignas(64) Line {
    std::atomic<uint32_t> turn{0};
  } line;
  const auto pass_on = [&](uint32_t value) { line.turn.store(value, std::memory_order_release); };
  std::vector<double> samples;
  const auto serve = [&] {
    const Deadline end = Deadline::after_ms(sampling.budget_ms);
    uint32_t turn = 0;
    // The first sample includes the start of the threads.
    for (int sample = -1; sample < sampling.samples; sample++) {
      const int64_t start = now_ns();
      for (int i = 0; i < rounds; i++, turn += 2) {
        pass_on(turn + 1);
        if (!wait(line.turn, turn + 2, deadline)) return;
      }
      if (sample >= 0) samples.push_back(seconds_since(start) / (2.0 * rounds));
      if (sample >= 0 && end.passed()) return;
    }
  };
  RAILCCL_CHECK(on_cpus({first, second}, [&](size_t me) {
    if (me == 0) {
      serve();
      pass_on(kStop);
      return;
    }
    for (uint32_t turn = 1; wait(line.turn, turn, deadline); turn += 2) pass_on(turn + 1);
  }));
  if (samples.empty()) return Status(Code::timeout, "a flag took too long to cross");
  return good_time(samples);
}

/// Seconds from waking a thread on `second` that sleeps to its running.
Result<double> wake_time(int first, int second, const Sampling& sampling,
                         const Deadline& deadline) {
  constexpr int64_t kFallAsleepNs = 50'000;
  std::atomic<uint32_t> turn{0};
  std::atomic<int64_t> rung_ns{0};
  std::vector<double> samples;
  const auto ring = [&](uint32_t value) {
    rung_ns.store(now_ns(), std::memory_order_relaxed);  // partner: seen with turn
    turn.store(value, std::memory_order_release);
    futex(turn, FUTEX_WAKE, 1, nullptr);
  };
  RAILCCL_CHECK(on_cpus({first, second}, [&](size_t me) {
    if (me == 1) {
      for (uint32_t i = 1; sleep_until(turn, i, deadline); i += 2) {
        samples.push_back(seconds_since(rung_ns.load(std::memory_order_relaxed)));
        turn.store(i + 1, std::memory_order_release);
      }
      return;
    }
    const Deadline end = Deadline::after_ms(sampling.budget_ms);
    for (uint32_t i = 0; i < 2 * static_cast<uint32_t>(sampling.samples); i += 2) {
      if (!yield_until(turn, i, deadline) || (i > 0 && end.passed())) break;
      // On one core the other thread needs it to fall asleep.
      for (const int64_t start = now_ns(); now_ns() - start < kFallAsleepNs;) sched_yield();
      ring(i + 1);
    }
    ring(kStop);
  }));
  if (samples.empty()) return Status(Code::timeout, "a sleeper took too long to wake");
  return good_time(samples);
}

/// Memory with each page touched by whoever calls.
class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return;
    mapping_ = Mapping(at, bytes);
    constexpr size_t kPage = 4096;
    // Zero pages that were only read would all be the same one; zeros are valid floats.
    for (size_t i = 0; i < bytes; i += kPage)
      const_cast<volatile std::byte*>(mapping_.bytes())[i] = std::byte{0};
  }
  std::byte* get() const { return mapping_.bytes(); }
  explicit operator bool() const { return static_cast<bool>(mapping_); }

 private:
  Mapping mapping_;
};

Status out_of_memory() { return Status(Code::system, "no memory to measure with"); }

/// Bytes per second of `work`, which moves `bytes`, over several bursts of a millisecond or so.
template <typename Work>
double burst_rate(size_t bytes, int bursts, Work work) {
  constexpr double kBurstSeconds = 1e-3;
  std::vector<double> samples;
  int repeats = 1;
  const Deadline enough = Deadline::after_ms(50);
  for (int burst = 0; burst < bursts && (burst == 0 || !enough.passed());) {
    const int64_t start = now_ns();
    for (int i = 0; i < repeats; i++) work();
    const double seconds = seconds_since(start);
    if (seconds < kBurstSeconds / 2) {
      repeats *= 2;
      continue;
    }
    samples.push_back(static_cast<double>(bytes) * repeats / seconds);
    burst++;
  }
  return good_rate(samples);
}

Status measure_cached(int cpu, int bursts, Speeds& speeds) {
  bool failed = false;
  RAILCCL_CHECK(on_cpus({cpu}, [&](size_t) {
    const Buffer a(kCachedBytes), b(kCachedBytes), c(kCachedBytes);
    failed = !a || !b || !c;
    if (failed) return;
    speeds.copy_bytes_per_s = burst_rate(kCachedBytes, bursts, [&] {
      kernels::copy(a.get(), b.get(), kCachedBytes, kernels::Store::cached);
    });
    const void* sources[] = {b.get(), c.get()};
    speeds.reduce_bytes_per_s = burst_rate(kCachedBytes, bursts, [&] {
      kernels::reduce(a.get(), sources, 2, kCachedBytes / sizeof(float), Datatype::float32,
                      Reduction::sum, {}, {}, kernels::Store::cached);
    });
  }));
  return failed ? out_of_memory() : ok();
}

/// Bytes per second at which `reader` copies what `writer` has just written.
Result<double> peer_rate(int writer, int reader, size_t bytes, const Sampling& sampling,
                         const Deadline& deadline) {
  std::atomic<uint32_t> turn{0};
  const Buffer shared(bytes), source(bytes), target(bytes);
  if (!shared || !source || !target) return out_of_memory();
  std::vector<double> samples;
  const auto read = [&] {
    const Deadline end = Deadline::after_ms(sampling.budget_ms);
    for (uint32_t i = 0; spin_until(turn, 2 * i + 1, deadline); i++) {
      const int64_t start = now_ns();
      kernels::copy(target.get(), shared.get(), bytes, kernels::Store::cached);
      samples.push_back(static_cast<double>(bytes) / seconds_since(start));
      if (static_cast<int>(samples.size()) == sampling.samples || end.passed()) return;
      turn.store(2 * i + 2, std::memory_order_release);
    }
  };
  RAILCCL_CHECK(on_cpus({writer, reader}, [&](size_t me) {
    if (me == 1) {
      read();
      turn.store(kStop, std::memory_order_release);
      return;
    }
    for (uint32_t i = 0; spin_until(turn, 2 * i, deadline); i++) {
      kernels::copy(shared.get(), source.get(), bytes, kernels::Store::cached);
      turn.store(2 * i + 1, std::memory_order_release);
    }
  }));
  if (samples.empty()) return Status(Code::timeout, "a peer's data took too long to come");
  return good_rate(samples);
}

/// Bytes per second at which each of two threads has the system copy what the other has just
/// written, both at the same time; 0 when the system does not. They are of one process, where
/// finding the memory is the same work.
Result<double> fetch_rate(int first, int second, size_t bytes, const Sampling& sampling,
                          const Deadline& deadline) {
  struct Side {
    alignas(64) std::atomic<uint32_t> meetings{0};
    std::atomic<bool> failed{false};
    Buffer input, source, output;
    explicit Side(size_t size) : input(size), source(size), output(size) {}
  };
  Side sides[2] = {Side(bytes), Side(bytes)};
  for (const Side& side : sides)
    if (!side.input || !side.source || !side.output) return out_of_memory();
  std::vector<double> samples;
  std::atomic<uint32_t> last{kStop - 1};
  RAILCCL_CHECK(on_cpus({first, second}, [&](size_t me) {
    Side &mine = sides[me], &theirs = sides[1 - me];
    const Deadline end = Deadline::after_ms(sampling.budget_ms);
    uint32_t meetings = 0;
    const auto meet = [&] {
      meetings++;
      // Release, partner: the acquire of the loop below.
      mine.meetings.store(meetings, std::memory_order_release);
      for (uint32_t i = 1; theirs.meetings.load(std::memory_order_acquire) < meetings; i++) {
        relax();
        if (i % 1024 == 0 && deadline.passed()) return false;
        if (i > 1 << 16) sched_yield();
      }
      return true;
    };
    for (uint32_t round = 0; round <= last.load(std::memory_order_relaxed); round++) {
      kernels::copy(mine.input.get(), mine.source.get(), bytes, kernels::Store::cached);
      if (!meet()) return;
      const int64_t start = now_ns();
      const bool fetched =
          transport::read_process_memory(transport::own_process(), mine.output.get(),
                                         reinterpret_cast<uintptr_t>(theirs.input.get()), bytes)
              .is_ok();
      if (!fetched) mine.failed.store(true, std::memory_order_relaxed);
      if (!meet()) return;
      if (mine.failed.load(std::memory_order_relaxed) ||
          theirs.failed.load(std::memory_order_relaxed))
        return;
      if (me != 0) continue;
      if (round > 0) samples.push_back(static_cast<double>(bytes) / seconds_since(start));
      // Ahead of the other, which is to see it in time.
      if (static_cast<int>(samples.size()) == sampling.samples ||
          (!samples.empty() && end.passed()))
        last.store(std::min(last.load(std::memory_order_relaxed), round + 1),
                   std::memory_order_relaxed);
    }
  }));
  if (sides[0].failed.load(std::memory_order_relaxed) ||
      sides[1].failed.load(std::memory_order_relaxed))
    return 0.0;
  if (samples.empty()) return Status(Code::timeout, "a peer's data took too long to fetch");
  return good_rate(samples);
}

/// Bytes per second of messages that two threads send each other at the same time, in pieces,
/// through memory that comes around as late as in transport/shm.
Result<double> message_rate(int first, int second, kernels::Store store, const Sampling& sampling,
                            const Deadline& deadline) {
  constexpr size_t kMessage = 128 << 10, kPiece = 16 << 10;
  struct Side {
    alignas(64) std::atomic<uint32_t> pieces{0};  // there, of all messages
    Buffer ring{kForgottenBytes}, input{kMessage}, output{kMessage};
  };
  Side sides[2];
  for (const Side& side : sides)
    if (!side.ring || !side.input || !side.output) return out_of_memory();
  std::vector<double> samples;
  std::atomic<uint32_t> last{kStop - 1};  // message
  RAILCCL_CHECK(on_cpus({first, second}, [&](size_t me) {
    Side &mine = sides[me], &theirs = sides[1 - me];
    const Deadline end = Deadline::after_ms(sampling.budget_ms);
    uint32_t pieces = 0;
    for (uint32_t message = 0; message <= last.load(std::memory_order_relaxed); message++) {
      const int64_t start = now_ns();
      const size_t base = message * kMessage % kForgottenBytes;
      for (size_t at = 0; at < kMessage; at += kPiece) {
        kernels::copy(mine.ring.get() + base + at, mine.input.get() + at, kPiece, store);
        pieces++;
        // Release, partner: the acquire of the loop below.
        mine.pieces.store(pieces, std::memory_order_release);
        uint32_t seen;
        for (uint32_t i = 1; (seen = theirs.pieces.load(std::memory_order_acquire)) < pieces; i++) {
          relax();
          if (i % 1024 == 0 && deadline.passed()) return;
          if (i > 1 << 16) sched_yield();
        }
        kernels::copy(mine.output.get() + at, theirs.ring.get() + base + at, kPiece,
                      kernels::Store::cached);
      }
      if (me != 0) continue;
      // The first time around all lines are new.
      if (message >= kForgottenBytes / kMessage)
        samples.push_back(static_cast<double>(kMessage) / seconds_since(start));
      // Ahead of the other, which is to see it in time.
      if (static_cast<int>(samples.size()) == sampling.samples ||
          (!samples.empty() && end.passed()))
        last.store(std::min(last.load(std::memory_order_relaxed), message + 1),
                   std::memory_order_relaxed);
    }
  }));
  if (samples.empty()) return Status(Code::timeout, "messages took too long to cross");
  return good_rate(samples);
}

/// With whichever kind of stores is faster.
Result<double> best_message_rate(int first, int second, const Sampling& sampling,
                                 const Deadline& deadline) {
  double best = 0;
  for (const kernels::Store store : {kernels::Store::cached, kernels::Store::streaming}) {
    RAILCCL_TRY(const double rate, message_rate(first, second, store, sampling, deadline));
    best = std::max(best, rate);
  }
  return best;
}

/// Bytes of each of the two buffers of each of `threads` threads: together well outside the last
/// level of cache, wherever the threads are, and within what memory there is.
size_t memory_bytes(size_t threads, uint64_t last_level_cache_bytes) {
  size_t all = kMemoryBytesAllMax;
  const long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0)
    all = std::min(all, static_cast<size_t>(pages) * static_cast<size_t>(page) / 8);
  const size_t wanted = std::max<size_t>(kMemoryBytesMin, last_level_cache_bytes);
  return std::max<size_t>(size_t{1} << 20, std::min(wanted, all / (2 * threads))) & ~size_t{4095};
}

/// Traffic in bytes per second (read plus written) of copies on `cpus` at once, with both kinds of
/// stores.
struct MemoryTraffic {
  double ordinary = 0, streaming = 0;
};

/// Each thread times pieces of its copies, so short that most of them pass without an interruption;
/// the middle one counts, since the best would come from when the other threads were interrupted.
Result<MemoryTraffic> memory_traffic(const std::vector<int>& cpus, size_t bytes,
                                     const Sampling& sampling, const Deadline& deadline) {
  constexpr size_t kPiece = 512 << 10;
  const auto all = static_cast<uint32_t>(cpus.size());
  const Deadline end = Deadline::after_ms(sampling.budget_ms);
  std::atomic<uint32_t> arrived{0}, failed{0}, last{~uint32_t{0}};
  std::vector<std::vector<double>> samples[2];
  for (auto& of_kind : samples) of_kind.resize(cpus.size());
  const auto meet = [&](uint32_t number) {
    arrived.fetch_add(1, std::memory_order_acq_rel);  // partner: the load of everyone else's
    while (arrived.load(std::memory_order_acquire) < number * all) {
      if (deadline.passed()) return false;
      sched_yield();
    }
    return true;
  };
  RAILCCL_CHECK(on_cpus(cpus, [&](size_t me) {
    const Buffer source(bytes), target(bytes);
    // Relaxed, here and for `last`: meet() orders them.
    if (!source || !target) failed.fetch_add(1, std::memory_order_relaxed);
    for (uint32_t round = 0; round < 2 * static_cast<uint32_t>(sampling.samples); round++) {
      if (!meet(round + 1) || failed.load(std::memory_order_relaxed) != 0) return;
      if (last.load(std::memory_order_relaxed) == round) return;
      const bool streaming = round % 2 != 0;
      for (size_t at = 0; at + kPiece <= bytes; at += kPiece) {
        const int64_t start = now_ns();
        kernels::copy(target.get() + at, source.get() + at, kPiece,
                      streaming ? kernels::Store::streaming : kernels::Store::cached);
        samples[streaming][me].push_back(2.0 * kPiece / seconds_since(start));
      }
      // After rounds of both kinds there is enough: everyone leaves before the next.
      if (streaming && end.passed()) last.store(round + 1, std::memory_order_relaxed);
    }
  }));
  if (failed.load(std::memory_order_relaxed) != 0) return out_of_memory();
  double sums[2] = {0, 0};
  for (size_t kind = 0; kind < 2; kind++)
    for (std::vector<double>& of_thread : samples[kind]) {
      if (of_thread.empty()) return Status(Code::timeout, "the cores did not meet in time");
      const auto middle = of_thread.begin() + static_cast<ptrdiff_t>(of_thread.size() / 2);
      std::nth_element(of_thread.begin(), middle, of_thread.end());
      sums[kind] += *middle;
    }
  return MemoryTraffic{sums[0], sums[1]};
}

}  // namespace

Result<Speeds> measure(const std::vector<int>& cpus, uint64_t last_level_cache_bytes,
                       Effort effort) {
  if (cpus.empty()) return Status(Code::system, "no processor to measure on");
  const Deadline deadline = Deadline::after_ms(kMeasureMsMax);
  const int times = effort == Effort::full ? 4 : 1;
  const auto sampling = [&](int samples) { return Sampling{times * samples, times * 10}; };
  // Spread over the machine, so that all its caches and memory channels take part.
  std::vector<int> spread;
  const size_t most = std::min(cpus.size(), static_cast<size_t>(kMeasuredCoresMax));
  for (size_t i = 0; i < most; i++) spread.push_back(cpus[i * cpus.size() / most]);
  const int first = cpus[0];
  const auto [second, far] = neighbours_of_first(cpus);

  Speeds speeds;
  RAILCCL_CHECK(measure_cached(first, 4 * times, speeds));
  RAILCCL_TRY(speeds.yield_s, ping_pong(first, first, yield_until, 4, sampling(500), deadline));
  RAILCCL_TRY(speeds.wake_s, wake_time(first, second, sampling(50), deadline));
  if (first != second) {
    RAILCCL_TRY(speeds.signal_s,
                ping_pong(first, second, spin_until, 100, sampling(200), deadline));
    RAILCCL_TRY(speeds.peer_small_bytes_per_s,
                peer_rate(first, second, kPeerSmallBytes, sampling(40), deadline));
    RAILCCL_TRY(speeds.peer_large_bytes_per_s,
                peer_rate(first, second, kPeerLargeBytes, sampling(8), deadline));
    RAILCCL_TRY(speeds.message_bytes_per_s,
                best_message_rate(first, second, sampling(60), deadline));
    speeds.cross_bytes_per_s = speeds.message_bytes_per_s;
    if (far != second) {
      RAILCCL_TRY(speeds.cross_bytes_per_s, best_message_rate(first, far, sampling(60), deadline));
    }
  } else {
    // One core: what another rank wrote is in its own cache, and a flag waits for a turn.
    speeds.signal_s = speeds.yield_s;
    speeds.peer_small_bytes_per_s = speeds.peer_large_bytes_per_s = speeds.copy_bytes_per_s;
    speeds.message_bytes_per_s = speeds.cross_bytes_per_s = speeds.copy_bytes_per_s / 2;
  }
  RAILCCL_TRY(speeds.fetch_small_bytes_per_s,
              fetch_rate(first, second, kPeerSmallBytes, sampling(40), deadline));
  RAILCCL_TRY(speeds.fetch_large_bytes_per_s,
              fetch_rate(first, second, kPeerLargeBytes, sampling(8), deadline));
  // Forbidden here, so nobody will do it: figures are wanted all the same.
  for (double* rate : {&speeds.fetch_small_bytes_per_s, &speeds.fetch_large_bytes_per_s})
    if (*rate == 0) *rate = speeds.message_bytes_per_s / 2;
  const size_t bytes = memory_bytes(spread.size(), last_level_cache_bytes);
  const Sampling memory = {1 + times, times * 40};
  RAILCCL_TRY(const MemoryTraffic one, memory_traffic({first}, bytes, memory, deadline));
  speeds.core_traffic_bytes_per_s = one.ordinary;
  speeds.core_streaming_bytes_per_s = one.streaming;
  MemoryTraffic all = one;
  if (spread.size() > 1) {
    RAILCCL_TRY(all, memory_traffic(spread, bytes, memory, deadline));
  }
  speeds.host_traffic_bytes_per_s = all.ordinary;
  speeds.host_streaming_bytes_per_s = all.streaming;
  return speeds;
}

}  // namespace railccl::runtime
