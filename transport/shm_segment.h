// ShmSegment: the memory that one rank shares with the ranks of its host.
//
// Two memfds, so that nothing has a name and nothing is left behind, however the process ends, and
// the size of /dev/shm does not matter:
//   segment  a page with the rank's Doorbell and bookkeeping, then a place for one receive ring
//            with its lane per (sending rank, channel), at an offset both sides compute. The file
//            is sparse and grows: a ring costs memory once someone asks for it. Zero-filled is an
//            empty ring and an empty lane, so neither side waits for the other to set it up.
//   scratch  grows on demand and stays at one address: each process maps more address space than
//            will be needed and the file grows under it. The published size says how much of it may
//            be touched.
// Both files are sealed against shrinking, so that a peer cannot take mapped pages away.
//
// The owner creates; peers in other processes adopt the file descriptors; peers in the same process
// share the object itself (find_in_process), so that all threads see it at one address. Mappings
// stay until the last shared_ptr goes. Thread-safe.
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "base/caches.h"
#include "base/owners.h"
#include "base/status.h"
#include "transport/doorbell.h"
#include "transport/lane.h"
#include "transport/mirrored.h"
#include "transport/ring.h"

namespace railccl::transport {

/// Bytes of each ring where `ranks` share a host: all that a rank writes into come around together.
inline constexpr size_t kShmRingBytesMax = kForgottenBytes;
constexpr size_t shm_ring_bytes(int ranks) {
  constexpr size_t kLeast = 256 << 10;
  const size_t peers = ranks > 1 ? static_cast<size_t>(ranks) - 1 : 1;
  return std::max(kLeast, std::bit_floor(kShmRingBytesMax / peers));
}
inline constexpr int kShmChannelsMax = 256;

/// Names a segment: secret, random; the name of its owner's socket and the key within a process.
struct ShmKey {
  uint64_t high = 0;
  uint64_t low = 0;
  friend auto operator<=>(const ShmKey&, const ShmKey&) = default;
};

struct ShmIdentity {
  uint64_t job = 0;
  int rank = 0;
  int ranks = 1;
};

class ShmSegment {
 public:
  struct Ring {
    RingHeader* header = nullptr;
    LaneMemory* lane = nullptr;
    std::byte* data = nullptr;
  };

  /// Makes the files. Code::system or unsupported, with the limit that is in the way, when memfd,
  /// file size or address space are not to be had.
  static Result<std::shared_ptr<ShmSegment>> create(const ShmIdentity& identity);
  /// Maps what a peer sent; fails with Code::remote when it is not a segment of `identity`.
  static Result<std::shared_ptr<ShmSegment>> adopt(UniqueFd segment, UniqueFd scratch,
                                                   const ShmIdentity& identity);
  /// The segment which a thread of this process created with that key, or null.
  static std::shared_ptr<ShmSegment> find_in_process(const ShmKey& key);

  ~ShmSegment();
  ShmSegment(const ShmSegment&) = delete;
  ShmSegment& operator=(const ShmSegment&) = delete;

  const ShmKey& key() const { return key_; }  // of a created segment
  Doorbell* bell() const { return &header()->bell; }
  int segment_fd() const { return segment_.get(); }
  int scratch_fd() const { return scratch_.get(); }

  /// The ring, of `bytes`, and the lane that carry `from`'s bytes to the owner, committed to memory
  /// and mapped on first use. All users of a segment name the same size.
  Result<Ring> ring(int from, int channel, size_t bytes);

  /// Owner: at least `bytes` of scratch, at the same address for ever.
  Result<std::byte*> grow_scratch(size_t bytes);
  /// Anyone: the scratch as mapped here, null while its owner has not grown it to `bytes`.
  Result<std::byte*> scratch(size_t bytes);

  /// Owner: says that it leaves. Peers see it in left().
  void leave() { header()->left.store(1, std::memory_order_release); }  // partner: left()
  bool left() const { return header()->left.load(std::memory_order_acquire) != 0; }

 private:
  struct Header {
    uint64_t magic;
    uint64_t job;
    uint32_t version;
    int32_t rank;
    int32_t ranks;
    uint32_t ring_bytes_max;
    Doorbell bell;
    alignas(64) std::atomic<uint64_t> scratch_bytes;
    std::atomic<uint32_t> left;
  };

  ShmSegment() = default;
  Header* header() const { return static_cast<Header*>(header_.get()); }
  Status map_header();
  Result<std::byte*> map_scratch(size_t bytes);
  Status reserve_scratch();  // under mutex_

  ShmIdentity identity_;
  ShmKey key_;
  bool owner_ = false;
  UniqueFd segment_;
  UniqueFd scratch_;
  Mapping header_;
  std::mutex mutex_;  // guards what follows
  std::map<std::pair<int, int>, Mirrored> rings_;
  Mapping scratch_map_;
  size_t populated_ = 0;  // bytes of it
};

}  // namespace railccl::transport
