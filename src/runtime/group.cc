// Groups: recording, and running what was recorded.
//
// At the end of a group its calls fall into parts: two calls belong together when they are on the
// same stream or on the same communicator. (Blocking calls without a stream are all on one: the
// caller.) Parts are independent, so each is run by the thread of its own stream, and a part that
// waits holds up no other. The rare part with several streams (one communicator used on two of
// them) is a joint item: it runs in the stream that reaches it last while the others wait there.
//
// Tickets and places in the streams are given out under one lock for the whole process, so that all
// queues agree on one order and no two parts can wait for each other.
#include "runtime/group.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "runtime/batch.h"

namespace railccl::runtime {

namespace {

struct Recording {
  int depth = 0;
  std::vector<Recorded> calls;
  Status refused;
};

thread_local Recording recording;

std::mutex& order_mutex() {
  static std::mutex* mutex = new std::mutex;
  return *mutex;
}

/// One communicator's calls in a part.
struct Portion {
  std::shared_ptr<Member> member;
  std::vector<Call> calls;
  uint64_t ticket = 0;
  bool on_gpu = false;  // has a call on a stream of CUDA's
};

/// A part of a group: runs once, in whichever thread comes last.
class Part {
 public:
  std::vector<Stream*> streams;  // null: the caller
  std::vector<Portion> portions;
  bool counted = false;  // as pending work of its (non-blocking) communicators

  Portion& portion(const std::shared_ptr<Member>& member) {
    for (Portion& known : portions)
      if (known.member == member) return known;
    portions.push_back({member, {}, 0, false});
    return portions.back();
  }
  void take_tickets() {
    for (Portion& portion : portions) portion.ticket = portion.member->turns().take();
  }

  Status arrive() {
    std::unique_lock lock(mutex_);
    if (++arrived_ < streams.size()) {
      done_changed_.wait(lock, [&] { return done_; });
      return status_;
    }
    lock.unlock();
    std::vector<Share> shares;
    shares.reserve(portions.size());
    for (Portion& portion : portions)
      shares.emplace_back(*portion.member, portion.calls, portion.ticket);
    const Status status = run(shares);
    // Nobody asks a stream of CUDA's for the outcome: the communicator has to tell it.
    if (!status.is_ok())
      for (Portion& portion : portions)
        if (portion.on_gpu) portion.member->fail(status);
    if (counted)
      for (Portion& portion : portions) portion.member->pending(-1);
    lock.lock();
    status_ = status;
    done_ = true;
    done_changed_.notify_all();
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable done_changed_;
  size_t arrived_ = 0;
  bool done_ = false;
  Status status_;
};

/// Sorts calls into parts. Merging lists is quadratic at worst; groups have few streams.
std::vector<std::shared_ptr<Part>> parts_of(std::vector<Recorded> calls) {
  // Where the caller would have to wait for a non-blocking communicator, a thread does it instead.
  Stream* instead = nullptr;
  for (const Recorded& recorded : calls)
    if (recorded.stream == nullptr && !recorded.member->blocking() && instead == nullptr)
      instead = &recorded.member->background();
  std::vector<std::shared_ptr<Part>> parts;
  for (Recorded& recorded : calls) {
    const bool counted = recorded.stream == nullptr && instead != nullptr;
    if (counted) recorded.stream = instead;
    std::shared_ptr<Part> home;
    for (size_t i = 0; i < parts.size();) {
      const std::shared_ptr<Part> part = parts[i];
      const bool related =
          std::find(part->streams.begin(), part->streams.end(), recorded.stream) !=
              part->streams.end() ||
          std::any_of(part->portions.begin(), part->portions.end(),
                      [&](const Portion& portion) { return portion.member == recorded.member; });
      if (!related) {
        i++;
        continue;
      }
      if (home == nullptr) {
        home = part;
        i++;
        continue;
      }
      for (Portion& portion : part->portions) home->portions.push_back(std::move(portion));
      home->streams.insert(home->streams.end(), part->streams.begin(), part->streams.end());
      home->counted |= part->counted;
      parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (home == nullptr) parts.push_back(home = std::make_shared<Part>());
    if (std::find(home->streams.begin(), home->streams.end(), recorded.stream) ==
        home->streams.end())
      home->streams.push_back(recorded.stream);
    home->counted |= counted;
    Portion& portion = home->portion(recorded.member);
    portion.calls.push_back(recorded.call);
    portion.on_gpu |= recorded.places.any;
  }
  return parts;
}

/// Queues the parts; the one that the caller must run itself is returned (or null).
std::shared_ptr<Part> dispatch(const std::vector<std::shared_ptr<Part>>& parts) {
  std::shared_ptr<Part> mine;
  std::lock_guard lock(order_mutex());
  for (const std::shared_ptr<Part>& part : parts) {
    part->take_tickets();
    if (part->counted)
      for (Portion& portion : part->portions) portion.member->pending(1);
    for (Stream* stream : part->streams) {
      if (stream == nullptr) {
        mine = part;
      } else {
        stream->enqueue([part] { return part->arrive(); });
      }
    }
  }
  return mine;
}

Status launch(std::vector<Recorded> calls) {
  StagedGroup staged;
  RAILCCL_CHECK(staged.begin(calls));
  const std::shared_ptr<Part> mine = dispatch(parts_of(std::move(calls)));
  staged.end();
  return mine == nullptr ? ok() : mine->arrive();
}

}  // namespace

void record(std::shared_ptr<Member> member, const Call& call, Stream* stream) {
  recording.calls.push_back({std::move(member), call, stream, {}});
}

Status record_or_launch(std::shared_ptr<Member> member, const Call& call, const OnGpu& places) {
  Recorded recorded{std::move(member), call, nullptr, places};
  if (recording.depth == 0) return launch({std::move(recorded)});
  recording.calls.push_back(std::move(recorded));
  return ok();
}

void refuse(const Status& why) {
  if (recording.depth > 0 && recording.refused.is_ok()) recording.refused = why;
}

void enqueue(std::shared_ptr<Member> member, const Call& call, Stream& stream, bool counted) {
  auto part = std::make_shared<Part>();
  part->streams.push_back(&stream);
  part->counted = counted;
  part->portion(member).calls.push_back(call);
  dispatch({part});
}

void group_start() { recording.depth++; }

int group_depth() { return recording.depth; }

Status group_end() {
  if (recording.depth == 0)
    return Status(Code::invalid_usage, "the end of a group that was not started");
  if (--recording.depth > 0) return ok();
  std::vector<Recorded> calls = std::exchange(recording.calls, {});
  const Status refused = std::exchange(recording.refused, Status());
  if (!refused.is_ok()) {
    // What a failure of its communicator has prevented may be wanted after a recovery.
    for (const Recorded& recorded : calls)
      if (recorded.member->failed_here())
        recorded.member->note_refused(recorded.call, recorded.stream);
    return refused.context("the group did not run");
  }
  return launch(std::move(calls));
}

Result<double> group_simulate_end() {
  if (recording.depth == 0)
    return Status(Code::invalid_usage, "the end of a group that was not started");
  if (--recording.depth > 0) return 0.0;
  const std::vector<Recorded> calls = std::exchange(recording.calls, {});
  const Status refused = std::exchange(recording.refused, Status());
  if (!refused.is_ok()) return refused.context("the group cannot run");
  std::vector<std::pair<const Member*, double>> sums;
  for (const Recorded& recorded : calls) {
    if (recorded.call.kind != Call::Kind::collective) continue;
    RAILCCL_TRY(const double seconds, recorded.member->predict(recorded.call.request));
    auto sum = std::find_if(sums.begin(), sums.end(), [&](const auto& entry) {
      return entry.first == recorded.member.get();
    });
    if (sum == sums.end()) sum = sums.insert(sums.end(), {recorded.member.get(), 0.0});
    sum->second += seconds;
  }
  // Communicators work side by side: the slowest counts.
  double longest = 0;
  for (const auto& [member, seconds] : sums) longest = std::max(longest, seconds);
  return longest;
}

}  // namespace railccl::runtime
