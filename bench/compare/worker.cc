// Worker: turns, buffers, timing and verification.
#include "worker.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace railccl::compare {
namespace {

// Inputs are small whole numbers: with kRanksMax ranks every partial sum is at most 16 * 17 / 2 +
// 16 * 7 = 248, exact in bfloat16 too, so that any order of adding gives the same bits. The pattern
// repeats after a prime number of elements, so that a block in the wrong place shows.
constexpr size_t kPeriod = 4093;
constexpr size_t kKeepBytes = 4 << 20;  // larger buffers are returned after each turn

int value_of(int rank, size_t index) {
  const size_t scrambled = (index % kPeriod) * 2654435761u;
  return rank + 1 + static_cast<int>((scrambled >> 13) % 8);
}

void encode(int value, Type type, std::byte* out) {
  const float number = static_cast<float>(value);
  uint32_t bits = 0;
  std::memcpy(&bits, &number, 4);
  if (type == Type::float32) {
    std::memcpy(out, &bits, 4);
    return;
  }
  uint16_t half = 0;
  if (type == Type::bfloat16) {
    half = static_cast<uint16_t>(bits >> 16);
  } else if (value != 0) {
    // Whole numbers up to 2047 are normal halves: re-bias the exponent, keep ten bits.
    const uint32_t exponent = ((bits >> 23) & 0xff) - 127 + 15;
    half = static_cast<uint16_t>(exponent << 10 | ((bits >> 13) & 0x3ff));
  }
  std::memcpy(out, &half, 2);
}

/// One period of what `rank` contributes, or of the sum over all ranks (rank < 0).
std::vector<std::byte> tile_of(Type type, int rank, int ranks) {
  const size_t width = size_of(type);
  std::vector<std::byte> tile(kPeriod * width);
  for (size_t i = 0; i < kPeriod; ++i) {
    int value = 0;
    if (rank >= 0) value = value_of(rank, i);
    for (int r = 0; rank < 0 && r < ranks; ++r) value += value_of(r, i);
    encode(value, type, tile.data() + i * width);
  }
  return tile;
}

/// Calls visit(offset in the buffer, tile bytes, how many) for elements [from, from + count).
template <typename Visit>
void walk(const std::vector<std::byte>& tile, size_t width, size_t from, size_t count,
          Visit visit) {
  size_t at = 0;
  size_t phase = from % kPeriod;
  while (at < count) {
    const size_t piece = std::min(count - at, kPeriod - phase);
    visit(at * width, tile.data() + phase * width, piece * width);
    at += piece;
    phase = 0;
  }
}

void write_pattern(void* out, const std::vector<std::byte>& tile, size_t width, size_t from,
                   size_t count) {
  walk(tile, width, from, count, [&](size_t offset, const std::byte* bytes, size_t size) {
    std::memcpy(static_cast<std::byte*>(out) + offset, bytes, size);
  });
}

uint64_t count_wrong(const void* got, const std::vector<std::byte>& tile, size_t width, size_t from,
                     size_t count) {
  uint64_t wrong = 0;
  const auto* bytes_got = static_cast<const std::byte*>(got);
  walk(tile, width, from, count, [&](size_t offset, const std::byte* bytes, size_t size) {
    if (std::memcmp(bytes_got + offset, bytes, size) == 0) return;
    for (size_t i = 0; i < size; i += width) {
      if (std::memcmp(bytes_got + offset + i, bytes + i, width) != 0) ++wrong;
    }
  });
  return wrong;
}

double processor_us() {
  rusage used = {};
  getrusage(RUSAGE_SELF, &used);
  return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6 +
         static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/// Two buffers of the library's memory, kept while turns of the same size follow each other.
class Buffers {
 public:
  explicit Buffers(Library& library) : library_(library) {}
  ~Buffers() { drop(); }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;

  bool fit(size_t bytes, bool registered) {
    if (in != nullptr && bytes == bytes_ && registered == registered_) return true;
    drop();
    bytes_ = bytes;
    registered_ = registered;
    in = library_.allocate(bytes, registered);
    out = library_.allocate(bytes, registered);
    return in != nullptr && out != nullptr;
  }
  void drop() {
    if (in != nullptr) library_.release(in, bytes_, registered_);
    if (out != nullptr) library_.release(out, bytes_, registered_);
    in = out = nullptr;
  }
  void trim() {
    if (bytes_ > kKeepBytes) drop();
  }

  void* in = nullptr;
  void* out = nullptr;

 private:
  Library& library_;
  size_t bytes_ = 0;
  bool registered_ = false;
};

/// One rank's side of one turn.
class Player {
 public:
  Player(Library& library, Page& page, int rank, Buffers& buffers)
      : library_(library), page_(page), rank_(rank), buffers_(buffers) {}

  /// False when the group cannot go on; a turn that the library does not offer is no failure of it.
  bool play(const Turn& turn, Answer& answer) {
    const double used = processor_us();
    answer.wrong = 0;
    answer.failed = 0;
    const size_t ranks = static_cast<size_t>(page_.ranks);
    width_ = size_of(turn.type);
    work_.operation = turn.operation;
    work_.type = turn.type;
    work_.count = turn.bytes / width_;
    work_.block = work_.count / ranks;
    if (turn.operation != Operation::all_reduce && turn.operation != Operation::broadcast) {
      work_.count = work_.block * ranks;
    }
    work_.variant = turn.variant;
    // Every rank notes its own failure; the barriers are met by all in any case.
    const bool fits = buffers_.fit(std::max<size_t>(turn.bytes, 64), turn.registered != 0);
    if (!fits) return fail(answer, "no memory for the buffers", false);
    work_.in_place = false;
    work_.in = buffers_.in;
    work_.out = buffers_.out;
    std::string error;
    if (!library_.bind(work_, &error)) return fail(answer, error, true);
    const bool good = meet(page_) && rounds(turn, answer) && meet(page_);
    library_.unbind();
    buffers_.trim();
    answer.processor_us = processor_us() - used;
    return good;
  }

 private:
  bool fail(Answer& answer, const std::string& why, bool go_on) {
    answer.failed = 1;
    const size_t length = why.copy(answer.text, sizeof answer.text - 1);
    answer.text[length] = 0;
    return go_on;
  }

  void rewrite() {
    const std::vector<std::byte>& tile = tiles_for(work_.type, rank_);
    const bool broadcast = work_.operation == Operation::broadcast;
    if (work_.in_place || (broadcast && rank_ == 0)) {
      write_pattern(work_.out, tile, width_, 0, work_.count);
      return;
    }
    const bool small_input = work_.operation == Operation::all_gather;
    const bool small_output = work_.operation == Operation::reduce_scatter;
    if (!broadcast) {
      write_pattern(work_.in, tile, width_, 0, small_input ? work_.block : work_.count);
    }
    std::memset(work_.out, 0xff, (small_output ? work_.block : work_.count) * width_);
  }

  bool rounds(const Turn& turn, Answer& answer) {
    const uint32_t samples = std::min<uint32_t>(turn.blocks, kSamplesMax);
    for (uint32_t i = 0; i < turn.warmup_blocks + samples; ++i) {
      rewrite();
      if (!meet(page_)) return false;
      bool good = true;
      const double start = now_us();
      for (uint32_t k = 0; k < turn.calls_per_block; ++k) good = library_.call() && good;
      const double end = now_us();
      if (!good) return fail(answer, library_.failure(), false);
      if (i >= turn.warmup_blocks) {
        answer.us[i - turn.warmup_blocks] =
            static_cast<float>((end - start) / turn.calls_per_block);
      }
    }
    if (work_.in_place && turn.calls_per_block > 1) {
      // Several sums on top of each other: only a single one has a known result.
      rewrite();
      if (!meet(page_)) return false;
      if (!library_.call()) return fail(answer, library_.failure(), false);
    }
    answer.wrong = verify();
    return true;
  }

  uint64_t verify() {
    switch (work_.operation) {
      case Operation::all_reduce:
        return count_wrong(work_.out, tiles_for(work_.type, -1), width_, 0, work_.count);
      case Operation::reduce_scatter:
        return count_wrong(work_.out, tiles_for(work_.type, -1), width_, rank_ * work_.block,
                           work_.block);
      case Operation::broadcast:
        return count_wrong(work_.out, tiles_for(work_.type, 0), width_, 0, work_.count);
      case Operation::all_gather:
      case Operation::all_to_all:
        break;
    }
    uint64_t wrong = 0;
    for (int r = 0; r < page_.ranks; ++r) {
      const size_t from = work_.operation == Operation::all_to_all ? rank_ * work_.block : 0;
      const auto* part = static_cast<const std::byte*>(work_.out) + r * work_.block * width_;
      wrong += count_wrong(part, tiles_for(work_.type, r), width_, from, work_.block);
    }
    return wrong;
  }

  const std::vector<std::byte>& tiles_for(Type type, int rank) {
    std::vector<std::byte>& tile = tiles_[static_cast<int>(type)][rank + 1];
    if (tile.empty()) tile = tile_of(type, rank, page_.ranks);
    return tile;
  }

  Library& library_;
  Page& page_;
  const int rank_;
  Buffers& buffers_;
  Work work_;
  size_t width_ = 4;
  std::vector<std::byte> tiles_[kTypeCount][kRanksMax + 1];
};

bool driver_lives(const Page& page) { return kill(page.driver, 0) == 0 || errno != ESRCH; }

}  // namespace

void* Library::allocate(size_t bytes, bool registered) {
  constexpr size_t kPage = 4096;
  return registered ? nullptr : std::aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
}

void Library::release(void* memory, size_t, bool) { std::free(memory); }

void pin_if_asked(const Page& page, int rank) {
  cpu_set_t allowed;
  if (page.pin == 0 || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int wanted = rank % CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || wanted-- > 0) continue;
    cpu_set_t mine;
    CPU_ZERO(&mine);
    CPU_SET(cpu, &mine);
    sched_setaffinity(0, sizeof mine, &mine);
    return;
  }
}

int run_worker(Library& library, const std::string& page_path, int rank) {
  PageFile file;
  if (!file.attach(page_path)) return 2;
  Page& page = *file;
  Answer& answer = page.answer[rank];
  answer.process.store(getpid(), std::memory_order_relaxed);
  std::string error;
  const bool connected = library.connect(page, rank, &error);
  if (!connected) {
    answer.failed = 1;
    const size_t length = error.copy(answer.text, sizeof answer.text - 1);
    answer.text[length] = 0;
  }
  // release: partner of the driver's acquire load; the text above is complete before it.
  answer.ready.store(1, std::memory_order_release);
  if (!connected) return 1;
  Buffers buffers(library);
  Player player(library, page, rank, buffers);
  uint32_t seen = 0;
  while (true) {
    // acquire: partner of the driver's release when it has written the turn.
    const uint32_t number = page.turn_number.load(std::memory_order_acquire);
    if (number == seen) {
      sleep_while(&page.turn_number, seen, 1000);
      if (!driver_lives(page)) _exit(3);
      continue;
    }
    seen = number;
    const Turn turn = page.turn;
    if (turn.finish != 0) return 0;
    const bool good = player.play(turn, answer);
    // release: the answer is complete; partner of the driver's acquire load.
    page.answers.fetch_add(1, std::memory_order_release);
    wake_all(&page.answers);
    // A failed call leaves the library in an unknown state, and the other ranks maybe inside it.
    if (!good) _exit(1);
  }
}

}  // namespace railccl::compare
