// What the transport tests share: streams of known bytes as small state machines (so that the same
// test runs with a thread per rank or, in a simulated world, all ranks in one thread), the drivers
// that step them, and worlds of real transports.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/interfaces.h"
#include "base/random.h"
#include "build_kind.h"
#include "transport/registered_memory.h"
#include "transport/registry.h"

namespace railccl::transport {

/// Byte i of stream `seed`.
inline std::byte pattern(uint64_t seed, uint64_t i) {
  return static_cast<std::byte>((i * 167 + (i >> 8) * 13 + (i >> 16) * 7 + seed * 101) & 0xff);
}
inline void fill_pattern(std::byte* to, uint64_t seed, uint64_t offset, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) to[i] = pattern(seed, offset + i);
}
/// Index of the first wrong byte, or `bytes`.
inline size_t check_pattern(const std::byte* at, uint64_t seed, uint64_t offset, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (at[i] != pattern(seed, offset + i)) return i;
  return bytes;
}

/// Something with a beginning and an end, driven by step().
class Task {
 public:
  virtual ~Task() = default;
  /// True when it did something. Sets failure() when it cannot go on.
  virtual bool step() = 0;
  virtual bool done() const = 0;
  const Status& failure() const { return failure_; }

 protected:
  Status failure_;
};

/// Sends `total` bytes in messages of random sizes and up to 4 ranges, keeping each message's bytes
/// untouched until the link released them. They are in registered memory, which media may read in
/// place.
class SendTask final : public Task {
 public:
  SendTask(Link* link, uint64_t seed, uint64_t total, size_t message_max)
      : link_(link), random_(seed * 7 + 1), seed_(seed), total_(total), max_(message_max) {
    base_ = link->released();
    message_.reserve(max_);
    registered_ = RegisteredMemory::add(message_.data(), max_);
  }
  bool step() override {
    bool progressed = false;
    if (offset_ == message_.size() && sent_ < total_) {
      if (link_->released() < base_ + sent_) {
        flush();
        if (link_->released() < base_ + sent_) return progressed;
      }
      message_.resize(std::min<uint64_t>(total_ - sent_, 1 + random_.below(max_)));
      fill_pattern(message_.data(), seed_, sent_, message_.size());
      offset_ = 0;
    }
    if (offset_ < message_.size()) {
      std::vector<iovec> ranges;
      size_t at = offset_;
      const int pieces = 1 + static_cast<int>(random_.below(4));
      for (int i = 0; i < pieces && at < message_.size(); i++) {
        const size_t left = message_.size() - at;
        const size_t take = i + 1 == pieces ? left : 1 + random_.below(left);
        ranges.push_back({message_.data() + at, take});
        at += take;
      }
      Result<size_t> sent = link_->send(ranges);
      if (!sent.is_ok()) return fail(sent.status());
      EXPECT_LE(*sent, message_.size() - offset_);
      offset_ += *sent;
      sent_ += *sent;
      progressed = *sent > 0;
    }
    flush();
    return progressed;
  }
  bool done() const override { return sent_ == total_ && flushed_; }
  uint64_t sent() const { return sent_; }

 private:
  void flush() {
    Result<bool> flushed = link_->flush();
    if (!flushed.is_ok()) {
      failure_ = flushed.status();
      return;
    }
    flushed_ = *flushed && link_->released() == base_ + sent_;
  }
  bool fail(Status status) {
    failure_ = std::move(status);
    return false;
  }
  Link* link_;
  Random random_;
  uint64_t seed_, total_;
  size_t max_;
  uint64_t base_ = 0;
  uint64_t sent_ = 0;
  std::vector<std::byte> message_;
  std::shared_ptr<const RegisteredMemory> registered_;
  size_t offset_ = 0;
  bool flushed_ = true;
};

/// Sends a range as it lies there, and overwrites what is released, as its owner may.
class SendRange final : public Task {
 public:
  SendRange(Link* link, std::byte* data, size_t bytes)
      : link_(link), data_(data), bytes_(bytes), end_(link->released() + bytes) {}
  bool step() override {
    const iovec range{data_ + sent_, bytes_ - sent_};
    const Result<size_t> sent = sent_ < bytes_ ? link_->send({&range, 1}) : Result<size_t>(0);
    const Result<bool> flushed = link_->flush();
    if (!sent.is_ok() || !flushed.is_ok()) {
      failure_ = sent.is_ok() ? flushed.status() : sent.status();
      return false;
    }
    sent_ += *sent;
    const size_t released = link_->released() - (end_ - bytes_);
    std::fill(data_ + overwritten_, data_ + released, std::byte{0xee});
    overwritten_ = released;
    done_ = sent_ == bytes_ && *flushed && link_->released() == end_;
    return *sent > 0 || done_;
  }
  bool done() const override { return done_; }

 private:
  Link* const link_;
  std::byte* const data_;
  const size_t bytes_;
  const uint64_t end_;
  size_t sent_ = 0, overwritten_ = 0;
  bool done_ = false;
};

/// Receives and verifies, by receive() and by peek()/consume() in random alternation.
class ReceiveTask final : public Task {
 public:
  ReceiveTask(Link* link, uint64_t seed, uint64_t total, size_t piece_max)
      : link_(link), random_(seed * 13 + 5), seed_(seed), total_(total), max_(piece_max) {}
  bool step() override {
    if (got_ == total_) return false;
    const size_t want = std::min<uint64_t>(total_ - got_, 1 + random_.below(max_));
    if (viewing_ || random_.chance(0.5)) return look(want);
    buffer_.resize(want);
    Result<size_t> received = link_->receive(buffer_.data(), want);
    if (!received.is_ok()) return fail(received.status());
    EXPECT_LE(*received, want);
    verify(buffer_.data(), *received);
    return *received > 0;
  }
  bool done() const override { return got_ == total_; }
  uint64_t got() const { return got_; }

 private:
  bool look(size_t want) {
    Result<std::span<const std::byte>> view = link_->peek(want);
    if (!view.is_ok()) return fail(view.status());
    if (view->empty()) return false;
    EXPECT_GE(view->size(), seen_) << "a view shrank";
    const size_t size = std::min<uint64_t>(view->size(), total_ - got_);
    EXPECT_EQ(size, view->size()) << "more bytes than were sent";
    // Now and then leave the view alone for a while, and take less than it shows.
    viewing_ = random_.chance(0.2);
    seen_ = viewing_ ? view->size() : 0;
    if (viewing_) return true;
    const size_t take = 1 + random_.below(std::min(size, max_));
    verify(view->data(), take);
    link_->consume(take);
    return true;
  }
  void verify(const std::byte* at, size_t bytes) {
    const size_t wrong = check_pattern(at, seed_, got_, bytes);
    if (wrong != bytes) {
      failure_ =
          Status(Code::internal, "{}: byte {} of the stream is wrong", link_->name(), got_ + wrong);
    }
    got_ += bytes;
  }
  bool fail(Status status) {
    failure_ = std::move(status);
    return false;
  }
  Link* link_;
  Random random_;
  uint64_t seed_, total_;
  size_t max_;
  uint64_t got_ = 0;
  bool viewing_ = false;
  size_t seen_ = 0;
  std::vector<std::byte> buffer_;
};

using Tasks = std::vector<std::unique_ptr<Task>>;

/// Steps one rank's tasks until all are done, one fails, or the time is over. Sleeps in wait() when
/// nothing moves. `transport` makes progress meanwhile.
inline Status drive(Transport& transport, Tasks& tasks, int64_t limit_ms) {
  const Deadline deadline = Deadline::after_ms(limit_ms);
  int idle = 0;
  while (true) {
    bool progressed = false;
    bool done = true;
    for (auto& task : tasks) {
      if (task->done()) continue;
      progressed |= task->step();
      if (!task->failure().is_ok()) return task->failure();
      done &= task->done();
    }
    if (done) return ok();
    RAILCCL_CHECK(transport.progress());
    idle = progressed ? 0 : idle + 1;
    if (idle >= 2) transport.wait(200'000);
    if (deadline.passed()) return Status(Code::timeout, "the tasks did not finish");
  }
}

/// A set of transports, one per rank, that know each other. `threaded`: each rank may be driven by
/// its own thread; otherwise one thread steps all and calls idle() when nothing moves.
class TestWorld {
 public:
  virtual ~TestWorld() = default;
  virtual int ranks() const = 0;
  virtual Transport& at(int rank) = 0;
  virtual bool threaded() const { return true; }
  /// Lets virtual time pass; false when nothing is left to happen.
  virtual bool idle() { return false; }
  /// Takes the last rank away; the others stay.
  virtual void lose_last() = 0;
};

/// Drives everyone's tasks (index = rank) to the end; the Status of each rank.
inline std::vector<Status> drive_all(TestWorld& world, std::vector<Tasks>& tasks,
                                     int64_t limit_ms = 60'000) {
  std::vector<Status> results(tasks.size());
  if (world.threaded()) {
    std::vector<std::thread> threads;
    for (size_t r = 0; r < tasks.size(); r++) {
      threads.emplace_back(
          [&, r] { results[r] = drive(world.at(static_cast<int>(r)), tasks[r], limit_ms); });
    }
    for (std::thread& thread : threads) thread.join();
    return results;
  }
  int stuck = 0;
  while (true) {
    bool progressed = false;
    bool done = true;
    for (size_t r = 0; r < tasks.size(); r++) {
      Status progress = world.at(static_cast<int>(r)).progress();
      for (auto& task : tasks[r]) {
        if (task->done() || !results[r].is_ok()) continue;
        progressed |= task->step();
        if (!task->failure().is_ok()) results[r] = task->failure();
        if (!progress.is_ok()) results[r] = progress;
        done &= task->done();
      }
    }
    if (done) return results;
    stuck = progressed || world.idle() ? 0 : stuck + 1;
    // A faulty transport may do nothing for a few looks in a row.
    if (stuck > 100) {
      for (size_t r = 0; r < tasks.size(); r++)
        for (auto& task : tasks[r])
          if (!task->done() && results[r].is_ok())
            results[r] = Status(Code::timeout, "nothing moves any more");
      return results;
    }
  }
}

inline const TransportKind& kind_of(const std::string& name) {
  for (const TransportKind* kind : all())
    if (kind->name == name) return *kind;
  ADD_FAILURE() << "no transport " << name;
  std::abort();
}

/// Has this machine no network interface but loopback? Then ranks do not meet as if they were on
/// different hosts.
inline bool on_loopback_only() {
  const Result<std::vector<Interface>> interfaces = usable_interfaces(Settings());
  return !interfaces.is_ok() || interfaces->front().loopback;
}

/// What rank `rank` of a test job is told.
inline Context context_of(int rank, int ranks, uint64_t job, uint64_t process,
                          const Settings& settings) {
  Context context;
  context.rank = rank;
  context.ranks = ranks;
  context.job = job;
  context.host_id = 77;
  context.process = process;
  context.local_ranks = ranks;
  context.settings = settings;
  return context;
}

/// Transports of one kind for threads of this process.
class RealWorld final : public TestWorld {
 public:
  using Wrap = std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>, int rank)>;
  /// What a rank is told beyond the usual.
  using Adapt = std::function<void(Context*)>;
  RealWorld(const std::string& kind, int ranks, const Settings& settings, Wrap wrap = nullptr,
            const Adapt& adapt = nullptr) {
    uint64_t job = 0;
    EXPECT_TRUE(secret_bytes(&job, sizeof(job)));
    Peers peers;
    for (int r = 0; r < ranks; r++) {
      Context context = context_of(r, ranks, job, 99, settings);
      if (adapt) adapt(&context);
      Result<std::unique_ptr<Transport>> made = kind_of(kind).create(context);
      EXPECT_TRUE(made.is_ok()) << made.status().text();
      transports_.push_back(std::move(made).value());
      peers.addresses.push_back(transports_.back()->address());
      peers.host_ids.push_back(context.host_id);
      peers.processes.push_back(context.process);
    }
    for (int r = 0; r < ranks; r++) {
      auto& transport = transports_[static_cast<size_t>(r)];
      if (wrap) transport = wrap(std::move(transport), r);
      const Status status = transport->set_peers(peers);
      EXPECT_TRUE(status.is_ok()) << status.text();
    }
  }
  int ranks() const override { return static_cast<int>(transports_.size()); }
  Transport& at(int rank) override { return *transports_[static_cast<size_t>(rank)]; }
  void lose_last() override { transports_.back().reset(); }

 private:
  std::vector<std::unique_ptr<Transport>> transports_;
};

}  // namespace railccl::transport
