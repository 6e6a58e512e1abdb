// Batch: the loop that runs operations, and what it does while it waits.
#include "runtime/batch.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/log.h"

namespace railccl::runtime {

namespace {

constexpr int kThoroughEvery = 64;  // fruitless rounds between looks at the clock
constexpr int kBusyRounds = 16;     // fruitful rounds between looks at the media
// The longest sleep: bounds how late a verdict or an abort can be noticed, should a wake-up fail.
constexpr int64_t kSleepUs = 50'000;
// How long a verdict may take to explain a broken link.
constexpr int64_t kVerdictMs = 300;
// While one thread looks after several ranks, none of the transports sees the others' events.
constexpr int64_t kSleepSharedUs = 100;

/// The call as all ranks must describe it.
std::string agreed_text(plan::Request request) {
  request.in_place = false;
  return plan::text_of(request);
}

}  // namespace

/// Binds the sends and receives.
void Share::begin() {
  begun_ = true;
  if (member_.troubled()) return end(member_.trouble());
  if (Profiler* const profiler = member_.profiler(); profiler != nullptr)
    profiled_ = std::make_unique<ProfiledShare>(profiler, &member_.wires());
  const Status status = add_transfers();
  if (!status.is_ok()) return end(status);
  transfers_open_ = transfers_.has_value();
  if (!transfers_open_) return;
  if (profiled_ != nullptr) profiled_->transfers_begin(calls_);
  transfers_entry_ = member_.recorder().begin_transfers(
      member_.recorder().remember(transfers(), Record::Kind::transfers));
}

/// What the recorder is told of the sends and receives.
Subject Share::transfers() const {
  Subject subject;
  for (const Call& call : calls_) {
    if (call.kind == Call::Kind::collective) continue;
    subject.request.count++;
    subject.bytes += plan::bytes_of(call.request);
  }
  return subject;
}

Status Share::add_transfers() {
  int to_self = 0;
  for (const Call& call : calls_) {
    if (call.kind == Call::Kind::collective || call.peer != member_.rank()) continue;
    to_self += call.kind == Call::Kind::send ? 1 : -1;
  }
  if (to_self != 0)
    return Status(Code::invalid_usage,
                  "rank {}: a send to itself needs its receive in the same group, and the reverse",
                  member_.rank());
  for (const Call& call : calls_) {
    if (call.kind == Call::Kind::collective) continue;
    if (!transfers_) transfers_.emplace(member_.wires());
    if (call.kind == Call::Kind::send) {
      RAILCCL_CHECK(
          transfers_->add_send(call.peer, call.input, call.request.count, call.request.datatype));
    } else {
      RAILCCL_CHECK(
          transfers_->add_recv(call.peer, call.output, call.request.count, call.request.datatype));
    }
  }
  return ok();
}

bool Share::step() {
  if (!begun_) {
    if (!member_.turns().reached(ticket_)) return false;
    begin();
    return true;
  }
  if (member_.failed_here()) {
    end(member_.trouble());
    return true;
  }
  auto first = step_transfers();
  if (!first.is_ok()) {
    end(first.status());
    return true;
  }
  auto second = step_collectives();
  member_.wires().ring();
  if (!second.is_ok()) {
    end(second.status());
    return true;
  }
  if (!transfers_open_ && running_ == nullptr && asking_ == nullptr && next_ == calls_.size())
    close();
  if (*first || *second || !open_) return true;
  // What others made of a later call is heeded only now: a rank that is behind may still find all
  // it needs for this one.
  if (!member_.troubled()) return false;
  end(member_.trouble());
  return true;
}

Result<bool> Share::step_transfers() {
  if (!transfers_open_) return false;
  const Outcome outcome = transfers_->step();
  if (!outcome.status.is_ok()) return outcome.status;
  transfers_open_ = !outcome.done;
  if (!outcome.done) return outcome.progressed;
  if (profiled_ != nullptr) profiled_->transfers_end();
  member_.recorder().end(std::exchange(transfers_entry_, nullptr), Record::State::done);
  return true;
}

Result<bool> Share::step_collectives() {
  if (running_ == nullptr && asking_ == nullptr) {
    RAILCCL_CHECK(start_next());
    if (running_ == nullptr && asking_ == nullptr) return false;
  }
  if (asking_ != nullptr) {
    OpenBuffers& buffers = member_.open_buffers();
    const Outcome outcome = buffers.step();
    if (!outcome.status.is_ok()) return failed(outcome.status, asking_->request);
    if (!outcome.done) return outcome.progressed;
    const Call& call = *asking_;
    asking_ = nullptr;
    RAILCCL_CHECK(launch(call, buffers.reach()));
  }
  const Outcome outcome = running_->execution->step();
  if (!outcome.status.is_ok())
    return failed(outcome.status, running_->execution->program().request);
  if (!outcome.done) return outcome.progressed;
  member_.control().note_done(sequence_);
  member_.recorder().end(std::exchange(entry_, nullptr), Record::State::done);
  const ReadyPlan& done = *std::exchange(running_, nullptr);
  if (weighing_for_ == nullptr) {
    if (!committing_) member_.recorder().note_last(done.subject.get());
    if (!committing_ && profiled_ != nullptr) profiled_->collective_ends();
    RAILCCL_CHECK(finish_collective());
    return true;
  }
  member_.weighed();
  RAILCCL_CHECK(start(*std::exchange(weighing_for_, nullptr)));
  return true;
}

Status Share::failed(const Status& why, const plan::Request& request) {
  brief_ = why.text();
  return why.context("{} as operation {}", plan::text_of(request), sequence_);
}

/// The plan has ended: of a collective, or of its commit.
Status Share::finish_collective() {
  if (!committing_ && member_.is_protected()) {
    sequence_ = member_.next_sequence();
    RAILCCL_TRY(running_, member_.begin_commit(sequence_));
    entry_ = member_.recorder().begin(sequence_, running_->subject.get(), Record::Kind::commit);
    committing_ = true;
    return ok();
  }
  member_.count_success();
  committing_ = launched_ = false;
  current_ = nullptr;
  return ok();
}

/// What will not be done, for recovery.
void Share::note_interrupted() {
  if (current_ != nullptr) member_.note_interrupted(*current_, ticket_, launched_);
  for (size_t next = next_; next < calls_.size(); next++)
    member_.note_interrupted(calls_[next], ticket_, false);
}

Status Share::start_next() {
  while (next_ < calls_.size()) {
    const Call& call = calls_[next_++];
    if (call.kind != Call::Kind::collective) continue;
    current_ = &call;
    RAILCCL_TRY(ReadyPlan* const weighing, member_.weighing_before(call.request));
    return weighing == nullptr ? start(call) : start_weighing(call, weighing);
  }
  return ok();
}

Status Share::start(const Call& call) {
  sequence_ = member_.next_sequence();
  if (member_.is_protected()) member_.save_input(call);
  launched_ = true;
  if (!member_.may_reach(call.request) || !member_.open_buffers().worth_asking(call.request))
    return launch(call, Reach::none);
  record_unplanned(call.request);
  RAILCCL_CHECK(member_.open_buffers().begin(
      {.request = call.request,
       .sequence = sequence_,
       .input = call.input,
       .output = call.output,
       .pre = kernels::scaling_of(call.request.op, call.request.datatype, member_.size(),
                                  factor_of(call))
                  .pre,
       .may_fetch = member_.may_fetch(call.request.collective)}));
  asking_ = &call;
  return ok();
}

/// The ranks agree on what their NICs carry before the collective that comes next.
Status Share::start_weighing(const Call& call, ReadyPlan* plan) {
  Weigh& weigh = member_.weigh();
  weigh.put(member_.wires().speeds(), *member_.topology(), member_.rank());
  sequence_ = member_.next_sequence();
  Execution::Operation operation;
  operation.sequence = sequence_;
  operation.input = weigh.input();
  operation.output = weigh.output();
  const plan::Request request = weigh.request();
  operation.scaling = kernels::scaling_of(request.op, request.datatype, member_.size(), {});
  entry_ = member_.recorder().begin(sequence_, plan->subject.get(), Record::Kind::weighing);
  RAILCCL_CHECK(plan->execution->begin(operation));
  running_ = plan;
  weighing_for_ = &call;
  return ok();
}

/// Starts a collective: by a plan for what the ranks have found they can reach of all buffers.
Status Share::launch(const Call& call, Reach reach) {
  auto plan = member_.plan_for(call.request, reach);
  if (!plan.is_ok()) {
    if (entry_ == nullptr) record_unplanned(call.request);
    return plan.status();
  }
  Execution::Operation operation;
  operation.sequence = sequence_;
  operation.input = call.input;
  operation.output = call.output;
  operation.scaling =
      kernels::scaling_of(call.request.op, call.request.datatype, member_.size(), factor_of(call));
  if (reach != Reach::none) operation.peers = member_.open_buffers().peers();
  if (profiled_ != nullptr) profiled_->collective_begins(call, sequence_, **plan);
  if (entry_ == nullptr) {
    entry_ = member_.recorder().begin(sequence_, (*plan)->subject.get(), Record::Kind::collective);
  } else {
    member_.recorder().name(entry_, (*plan)->subject.get());
  }
  RAILCCL_CHECK((*plan)->execution->begin(operation));
  running_ = *plan;
  return ok();
}

/// Settles the share. A failure that leaves the ranks in step (all get the same one before any
/// message moved) concerns this call alone; any other ends the communicator.
void Share::end(const Status& status) {
  status_ = status;
  const bool in_step = status.scope() == Scope::call &&
                       (status.code() == Code::invalid_argument ||
                        status.code() == Code::invalid_usage || status.code() == Code::unsupported);
  record_end(Record::State::failed);
  if (in_step && running_ == nullptr && asking_ == nullptr) return close();
  if (running_ != nullptr || asking_ != nullptr || transfers_open_) {
    const plan::Request* request = request_now();
    member_.describe(sequence_, request == nullptr ? "" : agreed_text(*request), where_now(),
                     brief_);
  }
  if (status.code() == Code::remote || status.code() == Code::system) {
    // A broken link is often the echo of something that the peer has told everyone about.
    const Deadline deadline = Deadline::after_ms(kVerdictMs);
    while (!member_.troubled() && !deadline.passed())
      std::this_thread::sleep_for(std::chrono::microseconds(kSleepSharedUs));
    if (member_.troubled()) status_ = member_.trouble();
  }
  const std::optional<Mismatch>* found = nullptr;
  if (running_ != nullptr) found = &running_->execution->mismatch();
  if (asking_ != nullptr) found = &member_.open_buffers().mismatch();
  if (found != nullptr && *found) {
    const Mismatch& mismatch = **found;
    member_.control().report_mismatch(sequence_, mismatch.mine, mismatch.peer, mismatch.theirs);
  }
  member_.fail(status_);
  note_interrupted();
  status_ = member_.settle(status_);
  close();
}

/// An operation whose plan is not known yet, or will never be.
void Share::record_unplanned(const plan::Request& request) {
  Recorder& recorder = member_.recorder();
  constexpr auto kind = Record::Kind::collective;
  entry_ = recorder.begin(sequence_, recorder.remember(member_.subject_of(request), kind), kind);
}

void Share::record_end(Record::State state) {
  member_.recorder().end(std::exchange(entry_, nullptr), state);
  member_.recorder().end(std::exchange(transfers_entry_, nullptr), state);
}

void Share::close() {
  open_ = false;
  member_.wires().ring();
  transfers_.reset();
  profiled_.reset();
  member_.turns().leave(ticket_);
}

void Share::look_after(int64_t now_ns) {
  if (!open_) return;
  if (waiting_since_ns_ == 0) {
    waiting_since_ns_ = now_ns;
    reports_ = 0;
    return;
  }
  Status odd = running_ != nullptr ? running_->execution->look_aside() : ok();
  if (asking_ != nullptr) odd = member_.open_buffers().look_aside();
  if (odd.is_ok() && transfers_open_) odd = transfers_->look_aside();
  if (!odd.is_ok()) return end(odd);
  const int64_t waited_ms = (now_ns - waiting_since_ns_) / 1'000'000;
  const Settings& settings = member_.settings();
  if (waited_ms >= settings.timeout_ms) {
    brief_ = fmt::format("{}: no progress for {} ms", member_.title(), waited_ms);
    std::string text = fmt::format("{}; waiting: {}", brief_, waiting_text());
    if (running_ != nullptr || asking_ != nullptr) {
      const std::string missing = member_.control().who_is_missing(sequence_);
      if (!missing.empty()) text += "; " + missing;
    }
    return end(Status(Code::timeout, Scope::communicator, "{}", text));
  }
  if (waited_ms < (reports_ + 1) * settings.stall_ms) return;
  reports_ = waited_ms / settings.stall_ms;
  const bool collective = running_ != nullptr || asking_ != nullptr;
  member_.recorder().stands(collective ? entry_ : transfers_entry_, where_now());
  // Sends and receives are no matter of all ranks: only collectives are compared.
  if (const plan::Request* request = request_now())
    member_.control().report_stall(sequence_, agreed_text(*request), waited_ms);
}

/// The collective that runs or asks; null: none.
const plan::Request* Share::request_now() const {
  if (running_ != nullptr) return &running_->execution->program().request;
  return asking_ != nullptr ? &asking_->request : nullptr;
}

/// Where it stands, and which transfers are open.
std::string Share::where_now() const {
  std::string text;
  if (running_ != nullptr) text = running_->execution->waiting_for();
  if (asking_ != nullptr) text = member_.open_buffers().waiting_for();
  if (transfers_open_) text += (text.empty() ? "" : "; ") + transfers_->waiting_for();
  return text;
}

std::string Share::waiting_text() const {
  const plan::Request* request = request_now();
  if (request == nullptr) return where_now();
  return fmt::format("{} as operation {} ({})", plan::text_of(*request), sequence_, where_now());
}

uint32_t Share::media_awaited() const {
  // Questions about buffers and single transfers go to many peers: whoever answers is welcome.
  const bool collective_only = running_ != nullptr && asking_ == nullptr && !transfers_open_;
  return collective_only ? running_->execution->media_awaited() : 0;
}

namespace {

/// One sleep, in the transport of the only open share, or briefly in each one's in turn.
void sleep_in(std::span<Share> shares, unsigned* turn) {
  size_t open = 0;
  for (Share& share : shares) open += share.open() ? 1 : 0;
  if (open == 0) return;  // the last one has just been given up
  size_t skip = open == 1 ? 0 : (*turn)++ % open;
  for (Share& share : shares) {
    if (!share.open() || skip-- > 0) continue;
    Member& member = share.member();
    if (!share.begun()) {
      // Rare: another thread still runs an earlier operation of one of several communicators.
      std::this_thread::sleep_for(std::chrono::microseconds(kSleepSharedUs));
      return;
    }
    int64_t limit_us = kSleepUs;
    limit_us = std::min(limit_us,
                        1000 * std::min(member.settings().stall_ms, member.settings().timeout_ms));
    member.wires().wait(open == 1 ? limit_us : kSleepSharedUs, share.media_awaited());
    return;
  }
}

void progress(std::span<Share> shares, bool all) {
  for (Share& share : shares) {
    if (!share.open() || !share.begun()) continue;
    // What fails here and matters shows on the links too; a peer that left after its part was
    // done is no failure of this call.
    if (const Status status = share.member().wires().progress(all); !status.is_ok())
      log::trace("{}: {}", share.member().title(), status.text());
  }
}

}  // namespace

Status run(std::span<Share> shares) {
  // A thread that looks after several ranks keeps none of them waiting for itself.
  Patience several(true);
  Wait wait(shares.size() == 1 ? shares[0].member().patience() : several);
  return run(shares, wait);
}

Status run(std::span<Share> shares, Wait& wait) {
  if (shares.size() == 1) shares[0].wait_for_turn();
  int busy = 0;
  unsigned turn = 0;
  while (true) {
    bool open = false, moved = false;
    for (Share& share : shares) {
      if (!share.open()) continue;
      if (share.step()) {
        share.moved();
        moved = true;
      }
      open |= share.open();
    }
    if (moved || !open) wait.over();
    if (!open) break;
    if (moved) {
      // While one medium keeps the thread busy another may have news.
      if (++busy % kBusyRounds == 0) progress(shares, false);
      continue;
    }
    const bool sleepy = !wait.stay_awake();
    const bool thorough = sleepy || wait.looks() % kThoroughEvery == 0;
    progress(shares, thorough);
    if (thorough) {
      const int64_t now = now_ns();
      for (Share& share : shares)
        if (share.open() && share.begun()) share.look_after(now);
    }
    if (sleepy) sleep_in(shares, &turn);
  }
  Status status;
  for (Share& share : shares)
    if (status.is_ok()) status = share.status();
  return status;
}

}  // namespace railccl::runtime
