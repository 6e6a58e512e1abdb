// Link: an ordered, reliable, credit-controlled byte stream to one peer on one channel.
//
// A Link moves bytes; framing (who sends what) is the executor's. Nothing here blocks: every call
// does what it can now and says how much. Bytes arrive in order, exactly once, or the Link fails
// once and for all with a Status whose scope is link (a peer may be reached another way) or
// communicator. One thread at a time drives a Link; different Links are independent, unless
// Transport::progress says otherwise.
//
// Sending: send() takes bytes from `data` and returns how many were accepted; the source may be
// reused once released() has passed them (media that copy release at once). Receiving: peek() shows
// bytes that have arrived, in place, and consume() gives them back; or receive() moves them
// straight to where they belong, without a stop where the medium can (sockets).
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/owners.h"
#include "base/status.h"

namespace railccl::transport {

struct Capabilities {
  bool load_store = false;     // peers share memory: Transport::shared_memory works
  bool zero_copy = false;      // send() does not copy: released() lags
  bool in_place_view = false;  // peek() is as cheap as receive(): reduce out of the view
};

class Lane;
class MemoryFile;

/// What has become of the offer of a memory file.
enum class Offer : uint8_t {
  known,       // every peer that needs it has it
  pending,     // not yet, or not all: offer again
  impossible,  // it cannot be sent, or nobody could map it
};

class Link {
 public:
  virtual ~Link() = default;

  /// Accepts a prefix of the concatenated ranges; returns the number of bytes, 0 when out of
  /// credit. At most 4 ranges.
  virtual Result<size_t> send(std::span<const iovec> ranges) = 0;
  /// Of all bytes ever accepted, how many source bytes may be reused.
  virtual uint64_t released() const = 0;
  /// Pushes out what send() accepted but still holds back; true when nothing is held back.
  virtual Result<bool> flush() = 0;

  /// Bytes that have arrived, at the front of the stream; empty when none. Valid until consume().
  /// Successive calls without consume() may show more. A view never shrinks. `want` is how many
  /// bytes the caller can use: a medium that has to fetch (socket) fetches about that much.
  /// Everything that arrived is shown in one piece, never cut at a ring's end. A lost peer's bytes
  /// are shown first; the failure comes when they are consumed, or when the caller looks again
  /// without having consumed any because it wants more.
  virtual Result<std::span<const std::byte>> peek(size_t want) = 0;
  virtual void consume(size_t bytes) = 0;
  /// Moves up to `bytes` from the front of the stream to dst; returns how many.
  virtual Result<size_t> receive(void* dst, size_t bytes) = 0;

  /// The link's lane for small messages, which travel beside the stream and are in order among
  /// themselves only; null where the medium has none. Both sides have one or neither has. A lane
  /// shows no failures: ask state() while nothing arrives.
  virtual Lane* lane() { return nullptr; }
  /// ok, or why nothing will arrive any more but what is here already. Any caller may ask often.
  virtual Status state() const { return ok(); }

  /// "shm to rank 3 channel 0": for errors.
  virtual std::string name() const = 0;
};

/// Who this rank is and how others reach it, as bytes that rendezvous carries to all ranks.
/// Opaque to everyone but the transport that wrote it; treat as hostile when reading.
using Address = std::string;

/// All ranks as rendezvous found them; index = rank.
struct Peers {
  std::vector<Address> addresses;
  std::vector<uint64_t> host_ids;   // equal for ranks that can share memory
  std::vector<uint64_t> processes;  // equal for ranks (threads) of one process
  std::vector<std::string> nics;    // names of those that ranks shall use; all empty: not known
  /// The rail of a rank's host's NIC by name, -1: none or not known. Called by set_peers() only.
  std::function<int(int rank, const std::string& nic)> rail_of = nullptr;
};

/// What was found out about one of this rank's NICs: what it carries to other hosts, and whom it
/// reaches by its own rail. A peer by whom nothing went since Transport::look_anew() is in neither
/// list: nobody knows.
struct NicSpeed {
  std::string nic;           // our interface's name
  double bytes_per_s = 0;    // while it had work; 0: not measured
  std::vector<int> working;  // ranks that acknowledged something sent by it since then
  std::vector<int> missing;  // ranks that it does not reach, and not only for a moment
};

/// A path of a link over several, as it was a moment ago.
struct PathState {
  enum class What : uint8_t { works, silent, lost };
  int peer = 0;
  int channel = 0;
  std::string nic;    // ours
  std::string far;    // "10.0.0.4:5123"; empty while lost
  bool home = false;  // used while all is well; else only when no home path works
  What what = What::works;
  double bytes_per_s = 0;  // measured; 0: not yet
  uint64_t bytes_sent = 0;
};
/// What transports tell about their paths.
struct PathReport {
  struct Event {
    int64_t unix_ms = 0;
    std::string text;
  };
  std::vector<PathState> paths;
  std::deque<Event> events;  // the last ones, oldest first
};

/// One medium as one rank sees it: makes links, moves what no caller waits for, lets a caller
/// sleep. Life cycle: create -> address() -> rendezvous -> set_peers() -> link()... -> destruction.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const = 0;  // "shm", "tcp", "self", ...
  virtual Capabilities capabilities() const = 0;
  /// What to publish. Valid from creation.
  virtual Address address() const = 0;
  /// Everyone's published addresses, once, after rendezvous and before link(). Malformed addresses
  /// are an error that names the rank.
  virtual Status set_peers(const Peers& peers) = 0;
  /// Can this peer be reached over this transport?
  virtual bool reaches(int peer) const = 0;

  /// The link to `peer` on `channel`, made at first use; owned by the transport. Connecting goes on
  /// in the background of send/peek/progress; until it is done they move 0 bytes. Both sides may
  /// ask in any order.
  virtual Result<Link*> link(int peer, int channel) = 0;

  /// Moves what is not tied to a caller: accepts, handshakes, resends, and the readiness of
  /// sockets: new bytes and credit may show on a Link only after progress() or wait(). Cheap when
  /// idle. In all our media one thread at a time drives a transport with its links; only wake()
  /// and abort() are for other threads. Failures of single links show on those links, not here.
  virtual Status progress() = 0;

  /// Blocks up to `timeout_us` until a link may have become ready or wake() is called. Spurious
  /// returns are fine (our media make use of it: the first call may only announce the sleep and
  /// return for one more look); a missed event is not: call only after progress and all links
  /// had nothing to do.
  virtual void wait(int64_t timeout_us) = 0;
  /// Ends a wait() of another thread. Async-signal-unsafe, any thread.
  virtual void wake() = 0;

  /// This rank's memory that load/store peers see: grows to at least `bytes`, stays mapped at the
  /// same address once given. Null without capability. Call only between operations.
  virtual Result<std::byte*> shared_memory(size_t bytes) = 0;
  /// `peer`'s shared memory as mapped here: at least `bytes` once the peer grew its own; the result
  /// is null while the peer has not got that far (ask again). Peers may meet only once both have
  /// use for each other: where one loads, the two must have a link, or both must load.
  virtual Result<std::byte*> peer_memory(int peer, size_t bytes) = 0;

  /// Gives a memory file of this process to all load/store peers of other processes. What is sent
  /// to a peer after Offer::known finds the file in its offered().
  virtual Offer offer(const std::shared_ptr<MemoryFile>&) { return Offer::impossible; }
  /// Where the file with that id of `peer`'s process is mapped here; null when it was not offered,
  /// was withdrawn or could not be mapped. Keep the pointer for as long as the memory is used.
  virtual Result<std::shared_ptr<const Mapping>> offered(int, uint64_t) {
    return std::shared_ptr<const Mapping>();
  }

  /// Has everything that links accepted come across, as far as can be known? Looks anew.
  virtual bool settled() { return true; }

  /// What was found out lately of the NICs that this rank's links use, for media that cross hosts.
  /// NICs of which there is nothing to tell are left out.
  virtual std::vector<NicSpeed> speeds() const { return {}; }
  /// From now on only what happens from now on shows that a NIC reaches a peer.
  virtual void look_anew() {}

  /// What paths do, and what happened to them, for media whose links have several. Any thread.
  virtual PathReport report() const { return {}; }

  /// Makes all calls fail with `why` from now on, promptly. Any thread.
  virtual void abort(const Status& why) = 0;
};

}  // namespace railccl::transport
