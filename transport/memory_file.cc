// Memory files: memfd, mapping on huge pages, and the registry.
#include "transport/memory_file.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>

#include <cerrno>
#include <map>
#include <mutex>

#include "base/log.h"

namespace railccl::transport {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

struct Registry {
  std::mutex mutex;
  std::map<uintptr_t, std::shared_ptr<MemoryFile>> files;  // by start
  std::atomic<uint64_t> generation{1};
  std::atomic<uint64_t> next_id{1};
};
Registry& registry() {
  static Registry* instance = new Registry;  // callers may free during static destruction
  return *instance;
}

/// A descriptor that cannot be had is no failure, but a memory that is not shared.
UniqueFd make_file(size_t bytes) {
  UniqueFd fd(memfd_create("railccl-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  // Sockets and files of the program need descriptors more than we do.
  rlimit limit{};
  if (fd && getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
      static_cast<rlim_t>(fd.get()) > limit.rlim_cur / 2) {
    log::info("memory of {} bytes is not shared: half of {} descriptors are in use", bytes,
              limit.rlim_cur);
    return {};
  }
  // A limit on file size would be a signal, not an error, at ftruncate.
  const bool fits = getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
                    (limit.rlim_cur == RLIM_INFINITY || bytes <= limit.rlim_cur);
  if (fd && fits && ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0 &&
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
    return fd;
  log::info("memory of {} bytes cannot be shared with other processes: {}", bytes,
            fits ? system_error(errno, "memfd").text() : "the limit on file size is lower");
  return {};
}

/// Memory that is committed when touched cannot fail then, so what can never fit fails now, as the
/// kernel does it for private memory.
Status check_fits(size_t bytes) {
  struct sysinfo info {};
  if (sysinfo(&info) != 0) return ok();
  const uint64_t all = (uint64_t{info.totalram} + info.totalswap) * info.mem_unit;
  if (bytes <= all) return ok();
  return Status(Code::system, "cannot allocate {} bytes: the machine has {}", bytes, all);
}

/// A mapping of `fd`, or of new private memory for -1. Huge pages want both the address and the
/// offset in the file aligned, so more address space is taken first, and what is too much given
/// back.
Result<Mapping> map_shared(int fd, size_t bytes) {
  const bool huge = bytes >= kHugePage;
  const int protection = PROT_READ | PROT_WRITE;
  const int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  std::byte* start = nullptr;
  if (huge) {
    const size_t reserved = bytes + kHugePage;
    void* room =
        mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return system_error(errno, fmt::format("cannot map {} bytes", bytes));
    std::byte* const from = static_cast<std::byte*>(room);
    const size_t skipped = (kHugePage - reinterpret_cast<uintptr_t>(from) % kHugePage) % kHugePage;
    start = from + skipped;
    if (skipped > 0) munmap(from, skipped);
    munmap(start + bytes, reserved - skipped - bytes);
  }
  void* address = mmap(start, bytes, protection, flags | (huge ? MAP_FIXED : 0), fd, 0);
  if (address == MAP_FAILED) {
    const Status status = system_error(errno, fmt::format("cannot map {} bytes", bytes));
    if (huge) munmap(start, bytes);
    return status;
  }
  // Advice only: without huge pages all works as well, if slower.
  if (huge) madvise(address, bytes, MADV_HUGEPAGE);
  return Mapping(address, bytes);
}

}  // namespace

Result<std::shared_ptr<MemoryFile>> MemoryFile::create(size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t whole = (bytes + page - 1) / page * page;
  RAILCCL_CHECK(check_fits(whole));
  std::shared_ptr<MemoryFile> file(new MemoryFile());
  file->file_ = make_file(whole);
  RAILCCL_TRY(file->mapping_, map_shared(file->fd(), whole));
  file->registered_ = RegisteredMemory::add(file->data(), file->size());
  file->id_ = registry().next_id.fetch_add(1, std::memory_order_relaxed);
  std::lock_guard lock(registry().mutex);
  registry().files[reinterpret_cast<uintptr_t>(file->data())] = file;
  // Release, partner: the acquire in generation().
  registry().generation.fetch_add(1, std::memory_order_release);
  return file;
}

bool MemoryFile::release(void* address) {
  std::shared_ptr<MemoryFile> file;  // ends outside of the lock
  std::lock_guard lock(registry().mutex);
  const auto found = registry().files.find(reinterpret_cast<uintptr_t>(address));
  if (found == registry().files.end()) return false;
  file = std::move(found->second);
  registry().files.erase(found);
  file->registered_.reset();
  registry().generation.fetch_add(1, std::memory_order_release);
  return true;
}

std::shared_ptr<MemoryFile> MemoryFile::find(const void* address, size_t bytes) {
  const uintptr_t start = reinterpret_cast<uintptr_t>(address);
  std::lock_guard lock(registry().mutex);
  auto found = registry().files.upper_bound(start);
  if (found == registry().files.begin()) return nullptr;
  --found;
  const MemoryFile& file = *found->second;
  const size_t offset = start - found->first;
  if (!file.shareable() || offset > file.size() || bytes > file.size() - offset) return nullptr;
  return found->second;
}

uint64_t MemoryFile::generation() { return registry().generation.load(std::memory_order_acquire); }

MemoryFile::~MemoryFile() {
  const size_t bytes = mapping_.size();
  mapping_.reset();
  // A peer that still maps the file keeps zeros, not the pages. A forked child that never was a
  // peer keeps what it has.
  if (file_ && shared_.load(std::memory_order_relaxed))
    (void)fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                    static_cast<off_t>(bytes));
}

Result<std::shared_ptr<const Mapping>> map_peer_file(int fd, uint64_t bytes) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
    return Status(Code::remote, "the memory that a peer shares is not sealed against shrinking");
  struct stat info {};
  if (fstat(fd, &info) != 0 || bytes == 0 || static_cast<uint64_t>(info.st_size) != bytes)
    return Status(Code::remote, "the memory that a peer shares is not of {} bytes, as it says",
                  bytes);
  RAILCCL_TRY(Mapping mapping, map_shared(fd, bytes));
  return std::make_shared<const Mapping>(std::move(mapping));
}

}  // namespace railccl::transport
