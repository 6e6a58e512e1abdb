// One-sided operations: registration, puts, signals and waits.
#include "runtime/one_sided.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

#include "runtime/member.h"
#include "runtime/pack.h"

namespace railccl::runtime {
namespace {

// Between looks at a counter that has not moved for long: nobody wakes a waiter.
constexpr std::chrono::microseconds kPause{50};

}  // namespace

OneSided::~OneSided() {
  if (counters_ != nullptr) transport::MemoryFile::release(counters_->data());
}

size_t OneSided::cells() const { return index_of(member_.size(), 0, 0); }

/// Gives the memory file that holds the range to the peers of this host, if there is one.
Result<OneSided::Place> OneSided::offer(const void* start, uint64_t bytes,
                                        const Deadline& deadline) const {
  Place place{reinterpret_cast<uintptr_t>(start), 0, 0};
  const auto file = transport::MemoryFile::find(start, bytes);
  if (file == nullptr) return place;
  while (true) {
    const transport::Offer offered = member_.wires().offer(file);
    if (offered == transport::Offer::impossible) return place;
    if (offered != transport::Offer::pending) break;
    if (member_.troubled()) return member_.trouble();
    if (deadline.passed())
      return Status(Code::timeout, Scope::communicator,
                    "rank {}: the ranks of this host do not take in a window's memory",
                    member_.rank());
    RAILCCL_CHECK(member_.wires().progress(true));
    std::this_thread::sleep_for(kPause);
  }
  place.file = file->id();
  place.offset = place.address - reinterpret_cast<uintptr_t>(file->data());
  return place;
}

/// Where a peer's range is here, or null.
Result<std::byte*> OneSided::reach(int rank, const Place& place, uint64_t bytes,
                                   std::vector<std::shared_ptr<const Mapping>>* kept) const {
  if (rank == member_.rank() || member_.wires().same_process(rank))
    return reinterpret_cast<std::byte*>(static_cast<uintptr_t>(place.address));
  if (place.file == 0) return static_cast<std::byte*>(nullptr);
  RAILCCL_TRY(auto mapping, member_.wires().offered(rank, place.file));
  if (mapping == nullptr) return static_cast<std::byte*>(nullptr);
  if (place.offset > mapping->size() || bytes > mapping->size() - place.offset)
    return Status(Code::remote, Scope::communicator,
                  "rank {} names {} bytes from {} on in a memory file of {}", rank, bytes,
                  place.offset, mapping->size());
  std::byte* const start = mapping->bytes() + place.offset;
  kept->push_back(std::move(mapping));
  return start;
}

Status OneSided::register_window(Window* window) {
  if (member_.troubled()) return member_.trouble();
  const Deadline deadline = Deadline::after_ms(member_.settings().init_timeout_ms);
  const uint64_t counter_bytes = cells() * sizeof(Cell);
  const bool first = !ready_.load(std::memory_order_relaxed);
  if (first && counters_ == nullptr) {
    RAILCCL_TRY(counters_, transport::MemoryFile::create(counter_bytes));
  }
  RAILCCL_TRY(const Place part, offer(window->own, window->size, deadline));
  RAILCCL_TRY(const Place told, offer(counters_->data(), counter_bytes, deadline));
  Packer packer;
  packer.add(window->size).add(window->flags).add(index_of(0, contexts_, 0));
  for (const Place& place : {part, told})
    packer.add(place.address).add(place.file).add(place.offset);
  RAILCCL_TRY(
      const std::vector<std::string> texts,
      member_.control().all_gather(std::move(packer).take(), member_.settings().init_timeout_ms));
  std::vector<std::byte*> parts, counters;
  uint64_t size_of_first = 0, flags_of_first = 0, signals_of_first = 0;
  std::vector<std::shared_ptr<const Mapping>> kept;
  for (int r = 0; r < member_.size(); r++) {
    Unpacker unpacker(texts[static_cast<size_t>(r)]);
    uint64_t size = 0, flags = 0, per_source = 0;
    Place theirs[2];
    bool whole = unpacker.get(&size) && unpacker.get(&flags) && unpacker.get(&per_source);
    for (Place& place : theirs)
      whole = whole && unpacker.get(&place.address) && unpacker.get(&place.file) &&
              unpacker.get(&place.offset);
    if (!whole || !unpacker.at_end())
      return Status(Code::remote, Scope::communicator, "window: rank {} sent nonsense", r);
    if (r == 0) {
      size_of_first = size;
      flags_of_first = flags;
      signals_of_first = per_source;
    }
    if (size != size_of_first || flags != flags_of_first)
      return Status(Code::mismatch,
                    "rank 0 registers a window of {} bytes with flags {:#x}, but rank {} one of {} "
                    "bytes with flags {:#x}",
                    size_of_first, flags_of_first, r, size, flags);
    if (per_source != signals_of_first)
      return Status(Code::mismatch,
                    "rank 0 has {} signals for each peer (config.numRmaCtx times numRmaSig), but "
                    "rank {} has {}",
                    signals_of_first, r, per_source);
    RAILCCL_TRY(std::byte* const mine, reach(r, theirs[0], size, &kept));
    RAILCCL_TRY(std::byte* const their_counters, reach(r, theirs[1], counter_bytes, &kept));
    parts.push_back(mine);
    counters.push_back(their_counters);
  }
  window->parts = std::move(parts);
  window->kept = kept;
  if (first) {
    peer_counters_ = std::move(counters);
    kept_ = std::move(kept);
    claimed_.assign(cells(), 0);
    ready_.store(true, std::memory_order_release);  // partner: check_counter()
  }
  window->ready.store(true, std::memory_order_release);  // partner: check()
  return ok();
}

Status OneSided::check_counter(int peer, int context, int signal) const {
  if (peer < 0 || peer >= member_.size())
    return Status(Code::invalid_argument, "peer {} of {} ranks", peer, member_.size());
  if (context < 0 || context >= contexts_)
    return Status(Code::invalid_argument,
                  "ctx is {}; the communicator has {} of them (config.numRmaCtx)", context,
                  contexts_);
  if (signal < 0 || signal >= signals_)
    return Status(Code::invalid_argument,
                  "sigIdx is {}; the communicator has {} of them (config.numRmaSig)", signal,
                  signals_);
  // Acquire, partner: the release in register_window().
  if (!ready_.load(std::memory_order_acquire))
    return Status(Code::invalid_usage,
                  "signals need a registered window: call ncclCommWindowRegister on all ranks");
  return ok();
}

Status OneSided::check(const Put& put) const {
  RAILCCL_CHECK(check_counter(put.peer, put.context, put.signal));
  const auto peer = static_cast<size_t>(put.peer);
  if (peer_counters_[peer] == nullptr)
    return Status(Code::unsupported,
                  "rank {} shares no memory with rank {}: one-sided operations reach the ranks of "
                  "the same host only",
                  put.peer, member_.rank());
  if (put.window == nullptr) return ok();
  const Window& window = *put.window;
  // Acquire, partner: the release in register_window().
  if (!window.ready.load(std::memory_order_acquire))
    return Status(Code::invalid_usage, "the window is still being registered");
  if (put.offset > window.size || put.bytes > window.size - put.offset)
    return Status(Code::invalid_argument,
                  "{} bytes from {} on lie outside of the window, which has {}", put.bytes,
                  put.offset, window.size);
  if (put.bytes > 0 && put.data == nullptr)
    return Status(Code::invalid_argument, "the buffer is null");
  if (window.parts[peer] == nullptr)
    return Status(Code::unsupported,
                  "rank {}'s part of the window is not memory from ncclMemAlloc, which other "
                  "processes could write to",
                  put.peer);
  return ok();
}

Status OneSided::check(const SignalWait& wait) const {
  RAILCCL_CHECK(check_counter(wait.peer, wait.context, wait.signal));
  if (wait.count < 0)
    return Status(Code::invalid_argument, "opCnt is {}; it must not be negative", wait.count);
  return ok();
}

Status OneSided::perform(const Put& put) const {
  if (member_.troubled()) return member_.trouble();
  const auto peer = static_cast<size_t>(put.peer);
  // The own part may overlap with the source.
  if (put.bytes > 0) std::memmove(put.window->parts[peer] + put.offset, put.data, put.bytes);
  Cell* const cells = reinterpret_cast<Cell*>(peer_counters_[peer]);
  cells[index_of(member_.rank(), put.context, put.signal)].signals.fetch_add(
      1, std::memory_order_release);
  return ok();
}

Status OneSided::wait(const std::vector<SignalWait>& waits) {
  struct Goal {
    const std::atomic<uint64_t>* counter;
    uint64_t value;
  };
  std::vector<Goal> goals;
  {
    std::lock_guard lock(claims_mutex_);
    const Cell* const cells = reinterpret_cast<const Cell*>(counters_->data());
    for (const SignalWait& wait : waits) {
      const size_t index = index_of(wait.peer, wait.context, wait.signal);
      claimed_[index] += static_cast<uint64_t>(wait.count);
      goals.push_back({&cells[index].signals, claimed_[index]});
    }
  }
  const int64_t timeout_ms = member_.settings().timeout_ms;
  const Deadline deadline = Deadline::after_ms(timeout_ms);
  Patience patience;
  patience.begin(true);
  Wait awake(patience);
  for (size_t i = 0; i < goals.size(); i++) {
    while (goals[i].counter->load(std::memory_order_acquire) < goals[i].value) {
      if (awake.stay_awake()) continue;
      if (member_.troubled()) return member_.trouble();
      if (deadline.passed()) {
        const Status late(Code::timeout, Scope::communicator,
                          "{}: rank {} has not sent the signals that are waited for, for {} ms",
                          member_.title(), waits[i].peer, timeout_ms);
        member_.fail(late);
        return late;
      }
      std::this_thread::sleep_for(kPause);
    }
    awake.over();
  }
  return ok();
}

namespace {

Status check_queue(const Queue& queue) {
  if (queue.cuda == nullptr) return ok();
  return Status(Code::unsupported, "one-sided operations do not run on streams of CUDA");
}

Status not_on_gpu(const GpuPlace& place, const void* pointer, const char* what) {
  RAILCCL_TRY(const bool there, place.holds(pointer));
  if (!there) return ok();
  return Status(Code::unsupported,
                "{} lies in memory of a GPU: one-sided operations are for memory "
                "of the host",
                what);
}

}  // namespace

// ---- What the communicator offers of it --------------------------------------------------------

Result<std::shared_ptr<Window>> Member::register_window(void* buffer, uint64_t bytes,
                                                        uint64_t flags) {
  RAILCCL_CHECK(usable());
  RAILCCL_CHECK(not_on_gpu(config_.gpu, buffer, "a window"));
  auto window = std::make_shared<Window>(buffer, bytes, flags);
  const uint64_t ticket = turns_.take();
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  const auto work = [self, window, ticket] {
    self->turns_.wait(ticket);
    const Status status = self->one_sided_->register_window(window.get());
    self->turns_.leave(ticket);
    return status;
  };
  if (config_.blocking) {
    RAILCCL_CHECK(work());
    return window;
  }
  pending(1);
  background().enqueue([self, work] {
    const Status status = work();
    // Nobody waits for the outcome: the communicator has to tell it.
    if (!status.is_ok()) self->fail(status);
    self->pending(-1);
    return status;
  });
  return window;
}

/// Runs what needs no turn: now, or behind what the stream, or the background, has to do first.
Status Member::in_order_of(Queue queue, const std::function<Status()>& work) {
  if (queue.host != nullptr) {
    queue.host->enqueue(work);
    return ok();
  }
  if (config_.blocking) return work();
  pending(1);
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  background().enqueue([self, work] {
    const Status status = work();
    self->pending(-1);
    return status;
  });
  return ok();
}

Status Member::put(const Put& put, Queue queue) {
  RAILCCL_CHECK(usable());
  RAILCCL_CHECK(check_queue(queue));
  RAILCCL_CHECK(one_sided_->check(put));
  RAILCCL_CHECK(not_on_gpu(config_.gpu, put.data, "the source of a put"));
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  return in_order_of(queue, [self, put] { return self->one_sided_->perform(put); });
}

Status Member::wait_signals(const std::vector<SignalWait>& waits, Queue queue) {
  RAILCCL_CHECK(usable());
  RAILCCL_CHECK(check_queue(queue));
  for (const SignalWait& wait : waits) RAILCCL_CHECK(one_sided_->check(wait));
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  return in_order_of(queue, [self, waits] { return self->one_sided_->wait(waits); });
}

}  // namespace railccl::runtime
