// OneSided: writes into other ranks' windows, and the signals that tell them.
//
// A window is a range of memory of every rank, registered together. A peer's part can be written
// when its owner is a thread of this process, or when it lies wholly in one memory file
// (transport/memory_file.h) of a process of this host. Then a put is a copy by the caller, a signal
// one increment of a counter in the target's memory, and the target's thread has no part in either.
// Parts of other ranks are out of reach: writing to them is Code::unsupported.
//
// Counters are kept by the rank that is told, one for each source, context and signal, in a memory
// file of their own that is made with the first window. Whoever waits claims the next so many
// signals of a counter, in the order of the calls.
//
// Memory order: the release in a signal's increment is the partner of the acquire in wait(). What
// the source wrote before, by puts or otherwise, is visible after the wait.
//
// register_window() belongs to the thread whose turn it is; the rest may be called by any thread.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "base/clock.h"
#include "runtime/communicator.h"
#include "transport/memory_file.h"

namespace railccl::runtime {

class Member;

/// A registered window, as one rank sees it. Filled by OneSided::register_window(), then constant.
class Window {
 public:
  Window(void* buffer, uint64_t bytes, uint64_t window_flags)
      : own(static_cast<std::byte*>(buffer)), size(bytes), flags(window_flags) {}
  std::byte* const own;
  const uint64_t size;
  const uint64_t flags;
  const std::shared_ptr<const transport::RegisteredMemory> registered =
      transport::RegisteredMemory::add(own, size);
  std::vector<std::byte*> parts;  // by rank; null: out of reach
  std::vector<std::shared_ptr<const Mapping>> kept;
  std::atomic<bool> ready{false};
};

class OneSided {
 public:
  OneSided(Member& member, int contexts, int signals)
      : member_(member), contexts_(contexts), signals_(signals) {}
  ~OneSided();

  /// Collective. Code::mismatch when the ranks' windows differ.
  Status register_window(Window* window);

  /// What one rank can see to be wrong, before anything is queued.
  Status check(const Put& put) const;
  Status check(const SignalWait& wait) const;
  /// Copies and signals. `put` was checked.
  Status perform(const Put& put) const;
  /// Returns when all the signals have come; fails when the communicator does, or when none comes
  /// for settings.timeout_ms. `waits` were checked.
  Status wait(const std::vector<SignalWait>& waits);

 private:
  /// A range of this rank's memory, as it is described to the peers.
  struct Place {
    uint64_t address = 0;
    uint64_t file = 0;  // 0: none that can be shared
    uint64_t offset = 0;
  };
  struct alignas(64) Cell {
    std::atomic<uint64_t> signals{0};
  };

  Status check_counter(int peer, int context, int signal) const;
  size_t index_of(int source, int context, int signal) const {
    return (static_cast<size_t>(source) * static_cast<size_t>(contexts_) +
            static_cast<size_t>(context)) *
               static_cast<size_t>(signals_) +
           static_cast<size_t>(signal);
  }
  size_t cells() const;
  Result<Place> offer(const void* start, uint64_t bytes, const Deadline& deadline) const;
  Result<std::byte*> reach(int rank, const Place& place, uint64_t bytes,
                           std::vector<std::shared_ptr<const Mapping>>* kept) const;

  Member& member_;
  const int contexts_;
  const int signals_;
  std::shared_ptr<transport::MemoryFile> counters_;  // this rank's
  std::vector<std::byte*> peer_counters_;            // by rank; null: out of reach
  std::vector<std::shared_ptr<const Mapping>> kept_;
  std::atomic<bool> ready_{false};  // the three above may be read
  std::mutex claims_mutex_;
  std::vector<uint64_t> claimed_;  // by counter: signals that waits have taken for themselves
};

}  // namespace railccl::runtime
