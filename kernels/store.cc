// When to write past the caches: what the machine's last-level caches hold.
#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>

#include "kernels/kernels.h"

namespace railccl::kernels {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

/// Number of processors in a kernel list such as "0-3,8,10-11"; 0 when it is malformed.
int processors_in(const std::string& list) {
  int processors = 0;
  const char* at = list.data();
  const char* const end = at + list.size();
  while (at < end) {
    int low = 0;
    auto parsed = std::from_chars(at, end, low);
    if (parsed.ec != std::errc()) return 0;
    int high = low;
    if (parsed.ptr < end && *parsed.ptr == '-') {
      parsed = std::from_chars(parsed.ptr + 1, end, high);
      if (parsed.ec != std::errc()) return 0;
    }
    processors += high - low + 1;
    at = parsed.ptr < end ? parsed.ptr + 1 : end;
  }
  return processors;
}

/// The machine's last-level caches, taken to be alike.
struct Caches {
  size_t bytes = 0;  // of each
  int sharing = 1;   // processors that share one
  int number = 1;
};

/// Read from the kernel: sysconf multiplies the size by the number of cache groups on some AMD
/// machines.
Caches find_caches() {
  Caches caches;
  for (int index = 0; index < 8; index++) {
    const std::string cache = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    const std::string size = first_line(cache + "/size");
    size_t kib = 0;
    if (std::from_chars(size.data(), size.data() + size.size(), kib).ec != std::errc()) continue;
    if (kib * 1024 < caches.bytes) continue;
    caches.bytes = kib * 1024;
    caches.sharing = std::max(1, processors_in(first_line(cache + "/shared_cpu_list")));
  }
  if (caches.bytes == 0) caches.bytes = size_t{2} << 20;  // unknown: a modest one per processor
  const int online = processors_in(first_line("/sys/devices/system/cpu/online"));
  caches.number = std::max(1, online / caches.sharing);
  return caches;
}

const Caches& caches() {
  static const Caches found = find_caches();
  return found;
}

}  // namespace

size_t streaming_bytes() { return caches().bytes / static_cast<size_t>(caches().sharing) / 2; }

Store store_for(size_t bytes_per_rank, int ranks) {
  const auto used = static_cast<size_t>(std::clamp(ranks, 1, caches().number));
  const size_t room = caches().bytes / 4 * 3 * used;
  return bytes_per_rank >= room / static_cast<size_t>(std::max(ranks, 1)) ? Store::streaming
                                                                          : Store::cached;
}

}  // namespace railccl::kernels
