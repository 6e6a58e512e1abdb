// Member: life and death of a communicator, and its single calls.
#include "runtime/member.h"

#include <algorithm>

#include "base/log.h"
#include "runtime/batch.h"
#include "runtime/cost.h"
#include "runtime/gpu_staging.h"
#include "runtime/group.h"
#include "runtime/pack.h"
#include "runtime/prove.h"
#include "runtime/status_socket.h"
#include "runtime/verdict.h"

namespace railccl::runtime {

/// The control thread may learn of a failure at any time, also while the Member is on its way out:
/// it holds this, not the Member.
struct Member::Alarm {
  std::mutex mutex;
  Wires* wires = nullptr;
  std::shared_ptr<Control> control;
  std::shared_ptr<RollCall> roll_call;

  void set(const Parts& parts, const std::shared_ptr<RollCall>& call) {
    std::lock_guard lock(mutex);
    wires = parts.wires.get();
    control = parts.control;
    roll_call = call;
  }
  void clear() {
    std::lock_guard lock(mutex);
    wires = nullptr;
    control.reset();
    roll_call.reset();
  }
  void ring() {
    std::lock_guard lock(mutex);
    if (wires == nullptr) return;
    wires->wake();
    if (roll_call != nullptr && calls_the_roll(control->verdict().code())) roll_call->begin();
  }
};

namespace {

constexpr int64_t kFarewellNs = 2'000'000'000;

/// Background streams whose last task destroyed their owner: no thread can join itself, so they
/// wait here for the next one that can.
struct Retired {
  std::mutex mutex;
  std::vector<std::unique_ptr<Stream>> streams;
};
Retired& retired() {
  // Leaked on purpose: at exit a stream may still be giving back what it owned, and needs statics
  // that would be gone before it.
  static auto* instance = new Retired;
  return *instance;
}
void retire(std::unique_ptr<Stream> stream) {
  std::lock_guard lock(retired().mutex);
  retired().streams.push_back(std::move(stream));
}
/// The destructor of a member may be the last thing that a stream of its own does.
void end_stream(std::unique_ptr<Stream> stream) {
  if (stream != nullptr && stream->on_own_thread()) retire(std::move(stream));
}
void bury_retired() {
  std::vector<std::unique_ptr<Stream>> dead;
  std::lock_guard lock(retired().mutex);
  auto& streams = retired().streams;
  const auto gone = std::partition(streams.begin(), streams.end(),
                                   [](const auto& stream) { return !stream->idle(); });
  std::move(gone, streams.end(), std::back_inserter(dead));
  streams.erase(gone, streams.end());
}

}  // namespace

Result<std::shared_ptr<Communicator>> Communicator::join(const UniqueId& id, int rank, int ranks,
                                                         const Config& config) {
  RAILCCL_TRY(Settings settings, Settings::load());
  return join(id, rank, ranks, config, std::move(settings));
}

Result<std::shared_ptr<Communicator>> Communicator::join(const UniqueId& id, int rank, int ranks,
                                                         const Config& config, Settings settings) {
  if (ranks < 1 || rank < 0 || rank >= ranks)
    return Status(Code::invalid_argument, "rank {} of {} ranks", rank, ranks);
  log::init();
  auto member = std::make_shared<Member>(rank, ranks, config, std::move(settings));
  if (!config.blocking) {
    member->background().enqueue([member, id] { return member->enter(id); });
    return std::shared_ptr<Communicator>(member);
  }
  RAILCCL_CHECK(member->enter(id));
  return std::shared_ptr<Communicator>(member);
}

Member::Member(int rank, int ranks, Config config, Settings settings)
    : rank_(rank),
      ranks_(ranks),
      config_(std::move(config)),
      settings_(std::move(settings)),
      alarm_(std::make_shared<Alarm>()),
      recorder_(static_cast<uint64_t>(settings_.record), sequence_) {
  observed_ = Observed::add([this](size_t operations) { return picture(operations); });
  open_status_socket();
}

Member::~Member() {
  observed_->end();
  end_stream(std::move(background_));
  if (staging_ != nullptr) end_stream(staging_->take_worker());
  // A failure has been logged by fail().
  if (phase_.load(std::memory_order_acquire) == Phase::ready && !failed_)
    (void)finalize_now(turns_.take());
  alarm_->clear();
  if (roll_call_ != nullptr) roll_call_->stop();
  if (caretaker_ != nullptr) caretaker_->leave();
  if (parts_.control != nullptr) parts_.control->leave();
}

std::string Member::title() const {
  return config_.name.empty() ? fmt::format("rank {} of {}", rank(), size())
                              : fmt::format("rank {} of {} of {}", rank(), size(), config_.name);
}

Status Member::enter(const UniqueId& id) {
  auto meeting = Meeting::join(id, rank(), size(), settings_, &cancel_);
  if (!meeting.is_ok()) {
    const Status status = meeting.status().context("{} cannot join", title());
    fail(status);
    return status;
  }
  return enter(std::move(meeting).value(), nullptr);
}

Status Member::enter(std::unique_ptr<Meeting> meeting, const topology::Topology* known) {
  auto made =
      establish(std::move(meeting), config_, settings_, known, [alarm = alarm_] { alarm->ring(); });
  if (!made.is_ok()) {
    const Status status = made.status().context("{} cannot join", title());
    fail(status);
    return status;
  }
  {
    std::lock_guard lock(life_);
    parts_ = std::move(made).value();
    topology_ = std::make_shared<const topology::Topology>(std::move(parts_.topology));
    const topology::Topology& topology = *topology_;
    const topology::Host& host = topology.host_of(rank());
    const bool crowded = topology.ranks_on_cores_of(topology.rank(rank()).host) > host.cores;
    patience_.begin(crowded);
    open_buffers_ = std::make_unique<OpenBuffers>(*parts_.wires, crowded);
    for (const Reach reach : {Reach::fetched, Reach::open})
      for (int c = 0; c < kCollectiveCount && size() > 1; c++)
        reaching_[static_cast<size_t>(reach)][static_cast<size_t>(c)] =
            parts_.chooser->has(reach, static_cast<Collective>(c), topology);
    weigh_ = std::make_unique<Weigh>(topology);
    one_sided_ = std::make_unique<OneSided>(*this, config_.contexts, config_.signals);
    prepare_gpu();
    joining_s_ = static_cast<double>(now_ns() - started_ns_) * 1e-9;
    open_profiler();
    if (size() > 1) RAILCCL_CHECK(open_roll_call());
    if (topology_->used_hosts().size() > 1) {
      RAILCCL_TRY(caretaker_, Caretaker::hire(turns_, *parts_.wires));
    }
    Phase expected = Phase::joining;  // abort() may have come first
    // Release, partner: the acquire loads of phase_. What parts_ holds is visible with it.
    phase_.compare_exchange_strong(expected, Phase::ready, std::memory_order_release);
  }
  if (failed_.load(std::memory_order_acquire)) {
    parts_.control->fail(trouble());
    parts_.wires->abort(trouble());
    return trouble();
  }
  // What failed before this rank listened to it.
  alarm_->set(parts_, roll_call_);
  if (parts_.control->failed()) alarm_->ring();
  const Traffic traffic = parts_.control->traffic();
  log::info("{}: joined in {:.3f} s by {} messages sent and {} received", title(), joining_s_,
            traffic.sent, traffic.received);
  return ok();
}

Status Member::usable() const {
  // Acquire, partners: the releases in enter() and fail().
  switch (phase_.load(std::memory_order_acquire)) {
    case Phase::joining:
      return Status(Code::invalid_usage, "{} is still being initialised", title());
    case Phase::finalized:
      return Status(Code::invalid_usage, "{} was finalized", title());
    case Phase::suspended:
      return Status(Code::invalid_usage, "{} is suspended: resume it first", title());
    case Phase::failed:
    case Phase::ready:
      break;
  }
  return async_error();
}

Status Member::check(const Call& call) const {
  const plan::Request& request = call.request;
  const auto type = static_cast<int>(request.datatype);
  if (type < 0 || type >= kDatatypeCount)
    return Status(Code::invalid_argument, "{} is no datatype", type);
  const uint64_t unit = size_of(request.datatype) * static_cast<uint64_t>(size());
  uint64_t all = 0;
  if (__builtin_mul_overflow(request.count, unit, &all) || all > kMessageBytesMax)
    return Status(Code::invalid_argument, "count {} is too large: at most {} {} on {} ranks",
                  request.count, kMessageBytesMax / unit, name_of(request.datatype), size());
  if (call.kind != Call::Kind::collective) {
    const void* buffer = call.kind == Call::Kind::send ? call.input : call.output;
    if (call.peer < 0 || call.peer >= size())
      return Status(Code::invalid_argument, "peer {} of {} ranks", call.peer, size());
    if (buffer == nullptr && request.count > 0)
      return Status(Code::invalid_argument, "the buffer is null");
    if (call.peer == rank() && group_depth() == 0)
      return Status(Code::invalid_usage, "a send or receive to itself needs a group");
    return ok();
  }
  if (static_cast<int>(request.collective) >= kCollectiveCount)
    return Status(Code::invalid_argument, "{} is no collective",
                  static_cast<int>(request.collective));
  if (reduces(request.collective) && static_cast<int>(request.op) >= kReductionCount)
    return Status(Code::invalid_argument, "{} is no reduction operator",
                  static_cast<int>(request.op));
  if (rooted(request.collective) && (request.root < 0 || request.root >= size()))
    return Status(Code::invalid_argument, "root {} of {} ranks", request.root, size());
  if (call.input == nullptr && plan::input_elements(request, size(), rank()) > 0)
    return Status(Code::invalid_argument, "the input buffer is null");
  if (call.output == nullptr && plan::output_elements(request, size(), rank()) > 0)
    return Status(Code::invalid_argument, "the output buffer is null");
  if (request.in_place && request.collective == Collective::all_to_all && request.count > 0)
    return Status(Code::invalid_argument, "all_to_all cannot work in place");
  return ok();
}

namespace {

/// What a collective ignores must not make two calls differ.
Call without_ignored(Call call) {
  if (call.kind != Call::Kind::collective) return call;
  if (!reduces(call.request.collective)) call.request.op = Reduction::none;
  if (!rooted(call.request.collective)) call.request.root = 0;
  return call;
}

}  // namespace

Status Member::start(const Call& call, Queue queue) {
  Status status = fine() ? ok() : settle(usable());
  if (status.is_ok()) status = check(call);
  if (!status.is_ok()) {
    if (status.scope() == Scope::communicator) note_refused(without_ignored(call), queue);
    refuse(status);
    return status;
  }
  return begin(without_ignored(call), queue);
}

Status Member::prepare(const Call& call) {
  RAILCCL_CHECK(usable());
  RAILCCL_CHECK(check(call));
  if (call.kind != Call::Kind::collective)
    return Status(Code::invalid_usage, "only collectives can be prepared");
  const uint64_t ticket = turns_.take();
  turns_.wait(ticket);
  const plan::Request request = without_ignored(call).request;
  Status planned = plan_for(request, Reach::none).status();
  for (const Reach reach : {Reach::fetched, Reach::open})
    if (planned.is_ok() && may_reach(request)) planned = plan_for(request, reach).status();
  turns_.leave(ticket);
  return planned;
}

Status Member::start_prepared(const Call& call, Queue queue) {
  const Status status = fine() ? ok() : settle(usable());
  if (!status.is_ok()) {
    if (status.scope() == Scope::communicator) note_refused(without_ignored(call), queue);
    refuse(status);
    return status;
  }
  return begin(without_ignored(call), queue);
}

/// Records, queues or runs a checked call.
Status Member::begin(const Call& call, Queue queue) {
  if (config_.gpu.driver || queue.cuda != nullptr) [[unlikely]] {
    bool taken = false;
    const Status status = begin_on_gpu(call, queue, &taken);
    if (!status.is_ok()) refuse(status);
    if (taken || !status.is_ok()) return status;
  }
  const auto self = [this] { return std::static_pointer_cast<Member>(shared_from_this()); };
  if (group_depth() > 0) {
    record(self(), call, queue.host);
    return ok();
  }
  if (queue.host != nullptr) {
    enqueue(self(), call, *queue.host, false);
    return ok();
  }
  if (!config_.blocking) {
    Stream& thread = background();
    enqueue(self(), call, thread, true);
    return ok();
  }
  const uint64_t ticket = turns_.take();
  if (call.kind == Call::Kind::collective && turns_.reached(ticket)) return run_small(call, ticket);
  Share share(*this, std::span<const Call>(&call, 1), ticket);
  return run(std::span<Share>(&share, 1));
}

/// A collective whose turn it is. Small ones that have been planned before mostly end here, without
/// the machinery that larger ones, failures and long waits need; the rest goes on as a Share.
Status Member::run_small(const Call& call, uint64_t ticket) {
  const bool simple = !troubled() && !watched_ && !may_reach(call.request);
  ReadyPlan* plan = simple ? plans_[0].find(call.request) : nullptr;
  if (plan == nullptr || !plan->execution->may_be_strip()) {
    Share share(*this, std::span<const Call>(&call, 1), ticket);
    return run(std::span<Share>(&share, 1));
  }
  const uint64_t sequence = next_sequence();
  Execution& execution = *plan->execution;
  const Status begun =
      execution.begin({.sequence = sequence,
                       .input = call.input,
                       .output = call.output,
                       .scaling = kernels::scaling_of(call.request.op, call.request.datatype,
                                                      size(), call.factor)});
  Wait wait(patience_);
  Recorder::Entry* entry = nullptr;
  if (begun.is_ok() && execution.is_strip()) {
    do {
      const Strip::State state = execution.step_strip();
      if (state == Strip::State::done) {
        const int looks = wait.looks();
        wait.over();
        wires().ring();
        recorder_.end_small(entry, sequence, plan->subject.get(), looks);
        control().note_done(sequence);
        count_success();
        turns_.leave(ticket);
        return ok();
      }
      if (state == Strip::State::differs || failed_here()) break;
      if (wait.looks() == kRingAfter || wait.will_yield()) {
        // Who has not answered by now may be asleep; and there is time to record that this waits.
        wires().ring();
        if (entry == nullptr) entry = recorder_.begin_small(sequence, plan->subject.get());
      }
    } while (wait.stay_awake());
  }
  if (entry == nullptr) entry = recorder_.begin_small(sequence, plan->subject.get());
  Share share(*this, call, ticket, plan, sequence, entry);
  if (!begun.is_ok()) share.fail(begun);
  return run(std::span<Share>(&share, 1), wait);
}

Result<ReadyPlan*> Member::plan_for(const plan::Request& request, Reach reach) {
  reach = best_reach(request.collective, reach);
  PlanCache& plans = plans_[static_cast<size_t>(reach)];
  if (ReadyPlan* ready = plans.find(request)) return ready;
  const topology::Topology& topology = *topology_;
  RAILCCL_TRY(const Chosen chosen, parts_.chooser->choose(request, topology, reach));
  if (settings_.check_plans) RAILCCL_CHECK(runtime::prove(chosen, request, topology).status());
  auto program = chosen.algorithm->build(request, topology, chosen.tuning, rank());
  if (!program.is_ok())
    // Not in step: another rank may have been able to.
    return program.status().widen(Scope::communicator).context("{}", chosen.algorithm->name);
  RAILCCL_TRY(auto execution, Execution::make(std::move(program).value(), *parts_.wires));
  log::trace("{}: {} by {}, {} channels, chunks of {}", title(), plan::text_of(request),
             chosen.algorithm->name, chosen.tuning.channels, chosen.tuning.chunk_elements);
  Subject subject = subject_of(request);
  subject.algorithm = chosen.algorithm;
  subject.media = execution->media();
  subject.channels = chosen.tuning.channels;
  subject.chunk_bytes = chosen.tuning.chunk_elements * size_of(request.datatype);
  subject.predicted_s = chosen.predicted_s;
  subject.bound_s = bound_seconds(request, topology);
  return plans.insert(request, {std::move(execution), chosen, recorder_.keep(subject)});
}

Result<ReadyPlan*> Member::weighing_due(const plan::Request& request) {
  const auto planned = plan_for(request, Reach::none);
  if (!planned.is_ok()) return nullptr;  // the call itself will say why
  const double call_s = (*planned)->chosen.predicted_s;
  auto weighing = plan_for(weigh_->request(), Reach::none);
  if (!weighing.is_ok() && weighing.status().scope() == Scope::call) {
    // As all ranks find: NCCL_ALGO may leave no algorithm for it.
    weigh_->give_up();
    return nullptr;
  }
  RAILCCL_CHECK(weighing.status());
  return weigh_->due(call_s, (*weighing)->chosen.predicted_s) ? *weighing : nullptr;
}

void Member::weighed() {
  const topology::Topology& before = *topology_;
  weigh_->take();
  // What passes from here on counts the next time: also what the weighing itself moved is old.
  parts_.wires->look_anew();
  const Weigh::News news = weigh_->news(before);
  if (news.changes.empty()) return;
  // All ranks have the same to say: one is enough.
  for (const Weigh::Change& change : news.changes) {
    if (rank() != 0) break;
    const std::string text = Weigh::text_of(change, before);
    change.used ? log::info("{}: {}", title(), text) : log::warn("{}: {}", title(), text);
  }
  auto now = std::make_shared<const topology::Topology>(before.with_nic_speeds(news.speeds));
  for (PlanCache& plans : plans_) plans.clear();
  std::lock_guard lock(life_);
  topology_ = std::move(now);
}

Status Member::suspend() {
  RAILCCL_CHECK(usable());
  const uint64_t ticket = turns_.take();
  turns_.wait(ticket);
  for (PlanCache& plans : plans_) plans.clear();
  parts_.wires->release_scratch();
  if (staging_ != nullptr) staging_->release_spool();
  Phase expected = Phase::ready;
  const bool suspended =
      phase_.compare_exchange_strong(expected, Phase::suspended, std::memory_order_acq_rel);
  turns_.leave(ticket);
  return suspended ? ok() : usable();
}

Status Member::resume() {
  Phase expected = Phase::suspended;
  if (phase_.compare_exchange_strong(expected, Phase::ready, std::memory_order_acq_rel))
    return ok();
  RAILCCL_CHECK(usable());
  return Status(Code::invalid_usage, "{} is not suspended", title());
}

/// Work that founds another communicator: in this call, or in the background, where it counts as
/// pending work of this one, too.
Status Member::found(const Config& config, const std::shared_ptr<Member>& child,
                     const std::function<Status()>& work) {
  const auto founding = [child, work] {
    const Status status = work();
    if (!status.is_ok()) child->fail(status);
    return status;
  };
  if (config.blocking) return founding();
  pending(1);
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  background().enqueue([self, founding] {
    const Status status = founding();
    self->pending(-1);
    return status;
  });
  return ok();
}

bool Member::in_progress() const {
  return phase_.load(std::memory_order_acquire) == Phase::joining ||
         pending_.load(std::memory_order_acquire) > 0;
}

Status Member::async_error() const {
  if (failed_.load(std::memory_order_acquire)) {
    std::lock_guard lock(failure_mutex_);
    return failure_;
  }
  const Phase phase = phase_.load(std::memory_order_acquire);
  if (phase == Phase::ready || phase == Phase::suspended) return parts_.control->verdict();
  return ok();
}

Status Member::trouble() {
  if (!failed_.load(std::memory_order_acquire)) fail(parts_.control->verdict());
  std::lock_guard lock(failure_mutex_);
  return failure_;
}

void Member::fail(const Status& why) {
  const Status wide = why.widen(Scope::communicator);
  {
    std::lock_guard lock(failure_mutex_);
    if (failed_.load(std::memory_order_relaxed)) return;
    failure_ = wide;
    failed_.store(true, std::memory_order_release);
  }
  give_in(wide);
}

/// Ends what runs, after failure_ is set.
void Member::give_in(const Status& why) {
  cancel_.store(true, std::memory_order_release);
  std::unique_lock lock(life_);
  // Where a verdict follows, that is what people want to read.
  const bool verdict_follows = roll_call_ != nullptr && calls_the_roll(why.code());
  if (why.code() == Code::aborted || verdict_follows) {
    log::info("{}: {}", title(), why.text());
  } else {
    log::warn("{}: {}", title(), why.text());
    why.note_told();
  }
  Phase phase = phase_.load(std::memory_order_acquire);
  if (phase == Phase::joining) phase_.store(Phase::failed, std::memory_order_release);
  if (parts_.control != nullptr) parts_.control->fail(why);
  if (parts_.wires != nullptr) {
    parts_.wires->abort(why);
    parts_.wires->wake();
  }
  if (verdict_follows) return roll_call_->begin();
  lock.unlock();
  // What was asked for leaves no dump.
  if (why.code() != Code::aborted && why.code() != Code::invalid_argument) dump();
}

void Member::abort(const std::string& why) {
  fail(Status(Code::aborted, Scope::communicator, "{}: aborted{}{}", title(),
              why.empty() ? "" : ": ", why));
}

Stream& Member::background() {
  bury_retired();
  std::lock_guard lock(life_);
  if (background_ == nullptr) background_ = std::make_unique<Stream>();
  return *background_;
}

Status Member::finalize() {
  if (phase_.load(std::memory_order_acquire) == Phase::finalized) return ok();
  Phase suspended = Phase::suspended;  // which holds nothing that would be missed now
  phase_.compare_exchange_strong(suspended, Phase::ready, std::memory_order_acq_rel);
  RAILCCL_CHECK(usable());
  const uint64_t ticket = turns_.take();
  if (config_.blocking) return finalize_now(ticket);
  pending(1);
  auto self = std::static_pointer_cast<Member>(shared_from_this());
  background().enqueue([self, ticket] {
    const Status status = self->finalize_now(ticket);
    self->pending(-1);
    return status;
  });
  return ok();
}

Status Member::finalize_now(uint64_t ticket) {
  turns_.wait(ticket);
  Status status = async_error();
  if (status.is_ok() && phase_.load(std::memory_order_acquire) == Phase::ready) {
    // A message that nobody asked for is the far end of a call that this rank never made.
    auto unread = parts_.wires->unread();
    if (!unread.is_ok()) {
      log::trace("{}: {}", title(), unread.status().text());
    } else if (Wire* wire = *unread; wire != nullptr) {
      status =
          Status(Code::mismatch, Scope::communicator, "{} finalizes, but rank {} called {}",
                 title(), wire->peer(),
                 wire->header_known() ? text_of(wire->header(), true) : std::string("something"));
    }
    if (status.is_ok()) {
      // Nobody sends again what is lost once this rank is gone.
      parts_.wires->settle(kFarewellNs);
      phase_.store(Phase::finalized, std::memory_order_release);
      parts_.control->leave();
      if (roll_call_ != nullptr) roll_call_->stop();
    }
  }
  if (!status.is_ok()) fail(status);
  turns_.leave(ticket);
  return status;
}

}  // namespace railccl::runtime
