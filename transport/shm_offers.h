// How memory files (memory_file.h) get from one rank of a host to another: over the sockets that
// shm's handshake leaves open between each pair of processes.
//
// Two kinds of notice: an offer carries a file's descriptor, id and size; a withdrawal says that
// its owner has released it. Notices keep their order and are there, for the receiver, before
// anything that their sender does afterwards: a message that names a file finds its offer arrived.
// What comes in is checked; a peer that sends anything else is to be given up.
//
// Not thread-safe: one thread at a time drives a transport.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/owners.h"
#include "base/status.h"
#include "transport/link.h"
#include "transport/memory_file.h"

namespace railccl::transport {

/// The files of one peer.
class ShmIncoming {
 public:
  /// Takes in all notices that have arrived. False: the peer has hung up. Code::remote for what is
  /// no notice. A file that cannot be mapped for want of memory counts as not offered.
  Result<bool> hear(int socket);
  /// The mapping of file `id`, or null. Whoever keeps it is safe from a withdrawal.
  std::shared_ptr<const Mapping> find(uint64_t id) const {
    const auto found = files_.find(id);
    return found == files_.end() ? nullptr : found->second;
  }

 private:
  std::map<uint64_t, std::shared_ptr<const Mapping>> files_;
};

/// The files of this rank that peers have been offered.
class ShmOutgoing {
 public:
  /// `sockets`: of all peers in other processes, -1 where there is none yet. Always the same peers
  /// in the same order.
  Offer offer(const std::shared_ptr<MemoryFile>& file, const std::vector<int>& sockets);
  /// May there be released files that the peers do not know of?
  bool outdated() const { return !rows_.empty() && generation_ != MemoryFile::generation(); }
  /// Tells the peers of released files.
  void withdraw_released(const std::vector<int>& sockets);

 private:
  struct Row {
    std::weak_ptr<MemoryFile> file;
    std::vector<bool> sent;  // per peer
  };
  std::map<uint64_t, Row> rows_;
  uint64_t generation_ = 0;  // of the registry when withdraw_released() was last complete
};

}  // namespace railccl::transport
