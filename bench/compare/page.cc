// Page: mapping, sleeping, and the barrier of the ranks.
#include "page.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <new>

namespace railccl::compare {
namespace {

constexpr const char* kOperationNames[kOperationCount] = {"all_reduce", "reduce_scatter",
                                                          "all_gather", "broadcast", "all_to_all"};
constexpr const char* kTypeNames[kTypeCount] = {"float32", "bfloat16", "float16"};

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

const char* name_of(Operation operation) { return kOperationNames[static_cast<int>(operation)]; }
const char* name_of(Type type) { return kTypeNames[static_cast<int>(type)]; }
size_t size_of(Type type) { return type == Type::float32 ? 4 : 2; }

double bus_factor(Operation operation, int ranks) {
  const double share = static_cast<double>(ranks - 1) / ranks;
  switch (operation) {
    case Operation::all_reduce:
      return 2 * share;
    case Operation::broadcast:
      return 1;
    default:
      return share;
  }
}

PageFile::~PageFile() {
  if (page_ != nullptr) munmap(page_, sizeof(Page));
}

bool PageFile::map(int file) {
  void* at = mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int cause = errno;
  close(file);
  if (at == MAP_FAILED) {
    errno = cause;
    return false;
  }
  page_ = static_cast<Page*>(at);
  return true;
}

bool PageFile::create(const std::string& path, int ranks, bool pin, bool crowded) {
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return false;
  if (ftruncate(file, sizeof(Page)) != 0) {
    const int cause = errno;
    close(file);
    errno = cause;
    return false;
  }
  if (!map(file)) return false;
  new (page_) Page{};
  page_->driver = getpid();
  page_->ranks = ranks;
  page_->pin = pin ? 1 : 0;
  page_->crowded = crowded ? 1 : 0;
  page_->magic = kPageMagic;
  return true;
}

bool PageFile::attach(const std::string& path) {
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (file < 0) return false;
  struct stat facts = {};
  if (fstat(file, &facts) != 0 || facts.st_size != static_cast<off_t>(sizeof(Page))) {
    close(file);
    return false;
  }
  return map(file) && page_->magic == kPageMagic;
}

void sleep_while(std::atomic<uint32_t>* word, uint32_t seen, int timeout_ms) {
  const timespec limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};
  syscall(SYS_futex, word, FUTEX_WAIT, seen, &limit, nullptr, 0);
}

void wake_all(std::atomic<uint32_t>* word) {
  syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, nullptr, nullptr, 0);
}

bool meet(Page& page) {
  constexpr int kSpins = 2000;  // about 40 us: longer than any skew on cores of one's own
  const uint32_t passed = page.passed.load(std::memory_order_relaxed);
  // acq_rel: everyone's work before the barrier is released by its own count and acquired by the
  // last one, who passes it on with the store to `passed`.
  if (page.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 ==
      static_cast<uint32_t>(page.ranks)) {
    page.arrived.store(0, std::memory_order_relaxed);
    page.passed.store(passed + 1, std::memory_order_release);
    return true;
  }
  const int spins = page.crowded != 0 ? 20 : kSpins;
  // acquire: partner of the last one's release store just above.
  for (int i = 0; page.passed.load(std::memory_order_acquire) == passed; ++i) {
    if (i < spins) {
      relax();
      continue;
    }
    sched_yield();
    if (i % 65536 == 0 && kill(page.driver, 0) != 0 && errno == ESRCH) return false;
  }
  return true;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double now_us() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

}  // namespace railccl::compare
