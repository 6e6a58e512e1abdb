// How shm's file descriptors get from one process to another: Unix sockets in the abstract
// namespace (no file to leave behind), one message each way.
//
// Trust: the socket's name is a 128-bit secret that only ranks of the job get from the rendezvous;
// the kernel vouches for the peer's user, who must be ours; the hello carries the job's nonce.
// Every function returns at once; nothing here keeps state. The socket stays open afterwards: its
// hang-up is how the death of the peer shows.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/owners.h"
#include "base/status.h"
#include "transport/shm_segment.h"

namespace railccl::transport {

struct ShmHello {
  uint64_t job = 0;
  int from = 0;
  int to = 0;
  UniqueFd segment;
  UniqueFd scratch;
};

/// "rsh1" + the key: what a rank publishes.
std::string encode_shm_address(const ShmKey& key);
/// Nothing when the bytes are not an shm address.
std::optional<ShmKey> decode_shm_address(const std::string& address);

Result<UniqueFd> shm_listen(const ShmKey& key);
/// A connected socket; an empty one when the listener's queue is full (ask again later).
Result<UniqueFd> shm_connect(const ShmKey& key);
/// The next connection, or an empty one.
Result<UniqueFd> shm_accept(int listener);

/// The process at the other end, provided that it belongs to our user.
Result<pid_t> shm_peer_process(int socket);

/// Sends a hello with (borrowed) copies of the descriptors in `segment`.
Status shm_send_hello(int socket, uint64_t job, int from, int to, const ShmSegment& segment);
/// Nothing when none has arrived; Code::remote when what arrived is none.
Result<std::optional<ShmHello>> shm_receive_hello(int socket);

}  // namespace railccl::transport
