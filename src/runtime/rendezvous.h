// Rendezvous: how the ranks of a new communicator find each other from a unique id.
//
// A unique id is 128 bytes: magic, version, a secret nonce, the address where its maker's root
// listens, and a checksum-free rest of zeros. The root (a thread in the process that made the id)
// takes one hello per rank, refuses strangers (wrong nonce) and duplicates, fails everyone at once
// when ranks disagree on how many they are, and tells each rank its neighbours in a binary tree;
// and whether it is the first of its host, which so needs to be looked at only once. The ranks then
// connect to each other, and gather and broadcast along the tree: 2 log2(n) rounds, a handful of
// messages for each rank whatever their number (the root alone has n), whatever the root's place.
// Every wait ends at the deadline with a Status that names the ranks that are missing.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/owners.h"
#include "base/settings.h"
#include "base/status.h"

namespace railccl::runtime {

inline constexpr size_t kUniqueIdBytes = 128;  // NCCL_UNIQUE_ID_BYTES
using UniqueId = std::array<std::byte, kUniqueIdBytes>;

/// Makes an id and starts its root in this process. With settings.comm_id ("host:port") the id is
/// the same in every process and the root is started by rank 0 when it joins. The root ends by
/// itself once all ranks came, or at the deadline. Any thread.
Result<UniqueId> make_unique_id(const Settings& settings);

/// An id for a meeting point that all ranks know (MASTER_ADDR and a port): no exchange needed; the
/// rank that joins as 0 serves the root. `secret` keeps strangers and other jobs out (may be
/// empty).
Result<UniqueId> unique_id_at(const std::string& host, uint16_t port, const std::string& secret);

/// One edge of the control tree, open after the meeting.
struct Neighbour {
  int rank = -1;
  UniqueFd socket;  // connected TCP, blocking state unspecified: the user sets it
};

/// A rank's messages out of band.
struct Traffic {
  uint64_t sent = 0;
  uint64_t received = 0;
};

/// What the meeting leaves: the open tree, and the means to exchange once more.
class Meeting {
 public:
  /// Blocks until all ranks came. `cancel` (may be null) is watched and ends the wait with aborted.
  static Result<std::unique_ptr<Meeting>> join(const UniqueId& id, int rank, int ranks,
                                               const Settings& settings,
                                               const std::atomic<bool>* cancel);

  int rank() const { return rank_; }
  int ranks() const { return ranks_; }
  /// The communicator's nonce: secret, equal on all ranks, different for each communicator.
  uint64_t job() const { return job_; }
  /// Is this the lowest rank of its host? So said the root; unknown, and false, after join_known().
  bool first_of_host() const { return first_of_host_; }
  /// Messages that this rank has sent to others and the root, and has received from them.
  Traffic traffic() const { return traffic_; }

  /// Everyone's bytes, index = rank. Collective; at most 16 MiB per rank; bounded by the deadline.
  Result<std::vector<std::string>> all_gather(const std::string& mine);

  /// Hands the tree's sockets over (to Control); the Meeting is finished afterwards.
  /// The parent comes first when there is one (rank 0 has none).
  std::vector<Neighbour> take_neighbours();

  /// A meeting for a subset of ranks that already have one (communicator split), without a root:
  /// `exchange` of the parent communicator gave everyone's listening address. See rendezvous.cc.
  static Result<std::unique_ptr<Meeting>> join_known(uint64_t job, int rank,
                                                     const std::vector<std::string>& addresses,
                                                     UniqueFd listener, const Settings& settings,
                                                     const std::atomic<bool>* cancel);
  /// A listening socket for join_known, and the address to publish.
  static Result<std::pair<UniqueFd, std::string>> open_listener(const Settings& settings);

 private:
  int rank_ = 0;
  int ranks_ = 1;
  uint64_t job_ = 0;
  bool first_of_host_ = false;
  Traffic traffic_;
  std::vector<Neighbour> neighbours_;
  int parent_ = -1;
  int64_t timeout_ms_ = 0;
  const std::atomic<bool>* cancel_ = nullptr;
};

}  // namespace railccl::runtime
