// Making, adopting and mapping the memory of shm.
#include "transport/shm_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>

#include "base/random.h"

namespace railccl::transport {
namespace {

constexpr uint64_t kMagic = 0x72616c63636c7368;  // "ralcclsh"
constexpr uint32_t kVersion = 3;
constexpr size_t kPage = 4096;
// A page with the ring's header, then the lane.
constexpr size_t kRingHeaderBytes = kPage + (sizeof(LaneMemory) + kPage - 1) / kPage * kPage;
constexpr size_t kScratchReserve = size_t{64} << 30;
constexpr size_t kScratchReserveLeast = size_t{64} << 20;
constexpr size_t kScratchStep = 64 << 10;

/// Where the ring of `from` on a channel is in the file. The last channel, that of sends and
/// receives, is as common as the first ones: it comes before them.
uint64_t ring_offset(int ranks, int from, int channel, size_t bytes) {
  const auto place = static_cast<uint64_t>((channel + 1) % kShmChannelsMax);
  return kPage + (place * static_cast<uint64_t>(ranks) + static_cast<uint64_t>(from)) *
                     (kRingHeaderBytes + bytes);
}

/// The size of a file with the rings of the channels that plans use.
uint64_t usual_bytes(int ranks) {
  constexpr int kUsualChannels = 8;
  return ring_offset(ranks, 0, kUsualChannels, shm_ring_bytes(ranks));
}

// Writing beyond RLIMIT_FSIZE raises a signal that ends the process: look before.
Status check_file_limit(uint64_t bytes) {
  rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      limit.rlim_cur < bytes) {
    return Status(Code::unsupported, "shm: files may grow to {} bytes only (ulimit -f), {} needed",
                  static_cast<uint64_t>(limit.rlim_cur), bytes);
  }
  return ok();
}

Result<UniqueFd> make_memfd(const char* name, uint64_t bytes) {
  RAILCCL_CHECK(check_file_limit(bytes));
  UniqueFd fd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return system_error(errno, "shm: memfd_create");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return system_error(errno, fmt::format("shm: cannot make a file of {} bytes", bytes));
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK) != 0) {
    return system_error(errno, "shm: cannot seal memory");
  }
  return fd;
}

// Gets the pages now: later, a lack of memory would be a signal instead of an error.
Status commit(int fd, uint64_t offset, uint64_t bytes) {
  int result;
  do {
    result = fallocate(fd, 0, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0) return system_error(errno, fmt::format("shm: no memory for {} bytes", bytes));
  return ok();
}

struct Registry {
  std::mutex mutex;
  std::map<ShmKey, std::weak_ptr<ShmSegment>> segments;
};
Registry& registry() {
  // Leaked on purpose: threads may give segments back while the process exits.
  static auto* instance = new Registry;
  return *instance;
}

}  // namespace

Status ShmSegment::map_header() {
  void* address = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, segment_.get(), 0);
  if (address == MAP_FAILED) return system_error(errno, "shm: cannot map the segment");
  static_assert(sizeof(Header) <= kPage);
  header_ = Mapping(address, kPage);
  return ok();
}

Result<std::shared_ptr<ShmSegment>> ShmSegment::create(const ShmIdentity& identity) {
  std::shared_ptr<ShmSegment> segment(new ShmSegment());
  segment->identity_ = identity;
  segment->owner_ = true;
  if (!secret_bytes(&segment->key_, sizeof(segment->key_))) {
    return system_error(errno, "shm: no random bytes");
  }
  // A limit that lets no ring be made shall show now, while another medium can be chosen.
  RAILCCL_CHECK(check_file_limit(usual_bytes(identity.ranks)));
  RAILCCL_TRY(segment->segment_, make_memfd("railccl-segment", kPage));
  RAILCCL_TRY(segment->scratch_, make_memfd("railccl-scratch", 0));
  RAILCCL_CHECK(commit(segment->segment_.get(), 0, kPage));
  RAILCCL_CHECK(segment->map_header());
  Header* header = segment->header();
  header->magic = kMagic;
  header->version = kVersion;
  header->job = identity.job;
  header->rank = identity.rank;
  header->ranks = identity.ranks;
  header->ring_bytes_max = kShmRingBytesMax;
  std::lock_guard lock(registry().mutex);
  registry().segments[segment->key_] = segment;
  return segment;
}

Result<std::shared_ptr<ShmSegment>> ShmSegment::adopt(UniqueFd segment_fd, UniqueFd scratch_fd,
                                                      const ShmIdentity& identity) {
  std::shared_ptr<ShmSegment> segment(new ShmSegment());
  segment->identity_ = identity;
  segment->segment_ = std::move(segment_fd);
  segment->scratch_ = std::move(scratch_fd);
  struct stat info;
  if (fstat(segment->segment_.get(), &info) != 0 || info.st_size < static_cast<off_t>(kPage)) {
    return Status(Code::remote, "shm: the segment is too small");
  }
  for (const int fd : {segment->segment_.get(), segment->scratch_.get()}) {
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
      return Status(Code::remote, "shm: the peer's memory is not sealed against shrinking");
    }
  }
  RAILCCL_CHECK(segment->map_header());
  const Header* header = segment->header();
  if (header->magic != kMagic || header->version != kVersion || header->job != identity.job ||
      header->rank != identity.rank || header->ranks != identity.ranks ||
      header->ring_bytes_max != kShmRingBytesMax) {
    return Status(Code::remote, "shm: the segment is not rank {}'s", identity.rank);
  }
  return segment;
}

std::shared_ptr<ShmSegment> ShmSegment::find_in_process(const ShmKey& key) {
  std::lock_guard lock(registry().mutex);
  const auto found = registry().segments.find(key);
  return found == registry().segments.end() ? nullptr : found->second.lock();
}

ShmSegment::~ShmSegment() {
  if (!owner_) return;
  std::lock_guard lock(registry().mutex);
  registry().segments.erase(key_);
}

Result<ShmSegment::Ring> ShmSegment::ring(int from, int channel, size_t bytes) {
  if (from < 0 || from >= identity_.ranks || channel < 0 || channel >= kShmChannelsMax) {
    return Status(Code::invalid_argument, "shm: no ring for rank {} channel {}", from, channel);
  }
  std::lock_guard lock(mutex_);
  Mirrored& memory = rings_[{from, channel}];
  if (!memory) {
    const uint64_t offset = ring_offset(identity_.ranks, from, channel, bytes);
    const uint64_t stride = kRingHeaderBytes + bytes;
    RAILCCL_CHECK(check_file_limit(offset + stride));
    RAILCCL_CHECK(commit(segment_.get(), offset, stride));  // extends the file, too
    RAILCCL_TRY(memory, Mirrored::map(segment_.get(), offset, kRingHeaderBytes, bytes));
  }
  return Ring{reinterpret_cast<RingHeader*>(memory.header()),
              reinterpret_cast<LaneMemory*>(memory.header() + kPage), memory.data()};
}

/// The scratch as mapped here, with the page tables of the first `bytes` filled in.
Result<std::byte*> ShmSegment::map_scratch(size_t bytes) {
  std::lock_guard lock(mutex_);
  RAILCCL_CHECK(reserve_scratch());
  if (bytes > populated_ && bytes <= scratch_map_.size()) {
    // Before Linux 5.14 the pages come one by one, when they are touched first.
    [[maybe_unused]] const int failed =
        madvise(scratch_map_.bytes() + populated_, bytes - populated_, MADV_POPULATE_WRITE);
    populated_ = bytes;
  }
  return scratch_map_.bytes();
}

Status ShmSegment::reserve_scratch() {
  if (scratch_map_) return ok();
  // Less address space than hoped for (ulimit -v) still serves smaller requests.
  for (size_t bytes = kScratchReserve; bytes >= kScratchReserveLeast; bytes /= 2) {
    void* address =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, scratch_.get(), 0);
    if (address == MAP_FAILED) continue;
    scratch_map_ = Mapping(address, bytes);
    return ok();
  }
  return system_error(errno, "shm: cannot reserve address space for scratch memory");
}

Result<std::byte*> ShmSegment::grow_scratch(size_t bytes) {
  RAILCCL_TRY(std::byte* const base, map_scratch(0));
  const uint64_t have = header()->scratch_bytes.load(std::memory_order_relaxed);
  if (bytes <= have) return base;
  const uint64_t wanted = (bytes + kScratchStep - 1) / kScratchStep * kScratchStep;
  if (wanted > scratch_map_.size()) {
    return Status(Code::unsupported, "shm: {} bytes of scratch memory wanted, {} can be addressed",
                  bytes, scratch_map_.size());
  }
  RAILCCL_CHECK(check_file_limit(wanted));
  RAILCCL_CHECK(commit(scratch_.get(), have, wanted - have));  // extends the file, too
  // Release, partner: the acquire in scratch(): who sees the size may touch the pages.
  header()->scratch_bytes.store(wanted, std::memory_order_release);
  return map_scratch(wanted);
}

Result<std::byte*> ShmSegment::scratch(size_t bytes) {
  const uint64_t have = header()->scratch_bytes.load(std::memory_order_acquire);
  if (have < bytes) return nullptr;
  struct stat info;
  // A size that the file does not have would be a signal at first touch.
  if (fstat(scratch_.get(), &info) != 0 || static_cast<uint64_t>(info.st_size) < bytes) {
    return Status(Code::remote, "shm: rank {} claims more memory than it has", identity_.rank);
  }
  RAILCCL_TRY(std::byte* const base,
              map_scratch(std::min<uint64_t>(have, static_cast<uint64_t>(info.st_size))));
  if (bytes > scratch_map_.size()) {
    return Status(Code::unsupported, "shm: {} bytes of rank {}'s memory cannot be addressed", bytes,
                  identity_.rank);
  }
  return base;
}

}  // namespace railccl::transport
