// Recovery: a working communicator out of one that has failed.
//
// Regroup. The ranks that are left call the roll (roll_call.h) twice: first they tell where they
// can be met and agree on who takes part; these meet and make a communicator; then they tell
// whether that came about, so that all have it or none. Where a rank has died meanwhile, once more.
// What moves between the ranks for that are two rounds of the roll, and the meeting of a split.
//
// The calls that the failure interrupted are dealt with by replay.h's rule, which all ranks apply
// to the same tallies; those that can be are repeated on the new communicator. When that fails in
// turn, what is left of it is the next communicator's to repeat.
#include <algorithm>
#include <cstring>

#include "base/log.h"
#include "base/random.h"
#include "runtime/group.h"
#include "runtime/member.h"
#include "runtime/pack.h"
#include "runtime/rank_list.h"
#include "runtime/verdict.h"

namespace railccl::runtime {
namespace {

constexpr uint64_t kCommitCount = 1;

plan::Request commit_request() {
  plan::Request request;
  request.collective = Collective::all_reduce;
  request.datatype = Datatype::uint8;
  request.op = Reduction::max;
  request.count = kCommitCount;
  return request;
}

/// A rank's word in the first round of a regrouping.
struct Word {
  std::string wish;  // must be the same on all
  std::string address;
  std::string tally;
};

bool parse(const std::string& bytes, Word* word) {
  Unpacker unpacker(bytes);
  return unpacker.get(&word->wish) && unpacker.get(&word->address) && unpacker.get(&word->tally) &&
         unpacker.at_end();
}

}  // namespace

struct Member::Regrouped {
  std::vector<int> old_ranks;
  std::map<int, Tally> tallies;  // by old rank
};

// ---- What is interrupted ------------------------------------------------------------------------

Status Member::protect(uint64_t save_bytes_max) {
  RAILCCL_CHECK(usable());
  const uint64_t ticket = turns_.take();
  turns_.wait(ticket);
  protected_ = watched_ = true;
  save_bytes_max_ = save_bytes_max;
  turns_.leave(ticket);
  return ok();
}

void Member::save_input(const Call& call) {
  const uint64_t elements = plan::input_elements(call.request, size(), rank());
  const uint64_t bytes = elements * size_of(call.request.datatype);
  has_saved_ = spoils_input(call.request) && bytes <= save_bytes_max_;
  if (!has_saved_) return;
  if (saved_.size() < bytes) saved_.resize(bytes);
  if (bytes > 0) kernels::copy(saved_.data(), call.input, bytes, kernels::Store::cached);
}

Result<ReadyPlan*> Member::begin_commit(uint64_t sequence) {
  complete_.store(true, std::memory_order_relaxed);
  RAILCCL_TRY(ReadyPlan* const plan, plan_for(commit_request(), Reach::none));
  Execution::Operation operation;
  operation.sequence = sequence;
  operation.input = &commit_in_;
  operation.output = &commit_out_;
  RAILCCL_CHECK(plan->execution->begin(operation).widen(Scope::communicator));
  return plan;
}

void Member::note_interrupted(const Call& call, uint64_t order, bool begun) {
  std::lock_guard lock(interrupted_mutex_);
  if (call.kind != Call::Kind::collective || interrupted_.size() == kInterruptedMax) {
    forgotten_ = true;
    return;
  }
  Kept kept;
  kept.order = order;
  kept.call = call;
  kept.intact = !begun || !spoils_input(call.request) || has_saved_;
  // Of buffers of a GPU only copies were here, and those are not kept.
  if (call.staged || call.late_factor != nullptr) kept.intact = false;
  if (config_.gpu.driver && kept.intact) {
    const auto places = look_at(call, nullptr, config_.gpu, size(), rank());
    kept.intact = places.is_ok() && !places->any;
  }
  if (begun && has_saved_) {
    kept.saved = std::move(saved_);
    has_saved_ = false;
  }
  const auto later = std::find_if(interrupted_.begin(), interrupted_.end(),
                                  [&](const Kept& other) { return other.order > order; });
  interrupted_.insert(later, std::move(kept));
}

void Member::note_refused(const Call& call, Queue queue) {
  if (group_depth() > 0) {
    record(std::static_pointer_cast<Member>(shared_from_this()), call, queue.host);
  } else {
    note_interrupted(call, turns_.next(), false);
  }
}

std::string Member::own_tally() {
  std::lock_guard lock(interrupted_mutex_);
  Tally tally;
  tally.done = collectives_.load(std::memory_order_relaxed);
  tally.complete = complete_.load(std::memory_order_relaxed);
  for (const Kept& kept : interrupted_) {
    const plan::Request& request = kept.call.request;
    tally.calls.push_back({kept.intact && !forgotten_, is_shaped(request.collective),
                           rooted(request.collective) ? request.root : -1});
  }
  return encode(tally);
}

// ---- Regrouping ---------------------------------------------------------------------------------

std::vector<int> Member::lost() const {
  std::lock_guard lock(lost_mutex_);
  return {lost_.begin(), lost_.end()};
}

/// Whoever is making a communicator with it must not wait for it.
void Member::note_lost(int rank, Gone how) {
  std::shared_ptr<Member> child;
  {
    std::lock_guard lock(lost_mutex_);
    lost_.insert(rank);
    // Once all have it, a rank may be done with the old one before the others.
    if (founders_.contains(rank) && how != Gone::left && !roll_call_->decided(founding_round_))
      child = founding_.lock();
  }
  if (child != nullptr)
    child->fail(Status(Code::remote, Scope::communicator,
                       "{} is gone, with which a communicator was being made",
                       parts_.who[static_cast<size_t>(rank)]));
}

/// Makes `child` a working member of a communicator of `old_ranks`.
Status Member::found_among(const std::vector<int>& old_ranks,
                           const std::vector<std::string>& addresses, UniqueFd listener,
                           uint64_t round, Member& child) {
  const auto me = std::find(old_ranks.begin(), old_ranks.end(), rank());
  child.rank_.store(static_cast<int>(me - old_ranks.begin()));
  child.ranks_.store(static_cast<int>(old_ranks.size()));
  const uint64_t words[2] = {parts_.job, round};
  const uint64_t job = hash_bytes(words, sizeof words, parts_.job);
  RAILCCL_TRY(auto meeting, Meeting::join_known(job, child.rank(), addresses, std::move(listener),
                                                settings_, &child.cancel_));
  const topology::Topology topology = topology_->subset(old_ranks);
  return child.enter(std::move(meeting), &topology);
}

/// `only`: fails where the ranks that are left are others than these.
Result<Member::Regrouped> Member::regroup(const std::string& wish, const std::vector<int>* only,
                                          const Config& config, std::shared_ptr<Member>* child) {
  // Acquire, partner: the release in enter().
  const Phase phase = phase_.load(std::memory_order_acquire);
  if (phase != Phase::ready && phase != Phase::failed) RAILCCL_CHECK(usable());
  if (roll_call_ == nullptr)
    return Status(Code::invalid_usage, "{}: there is nobody to recover with", title());
  if (!troubled()) abort("its ranks are to regroup");
  // What this rank has called is over when its turn is: its buffers are at rest.
  const uint64_t ticket = turns_.take();
  turns_.wait(ticket);
  turns_.leave(ticket);
  const std::string tally = own_tally();
  while (true) {
    RAILCCL_TRY(auto own, Meeting::open_listener(settings_));
    const uint64_t round = next_round_;
    next_round_ += 2;
    RAILCCL_TRY(
        const RollResult roll,
        roll_call_->agree(round, std::move(Packer().add(wish).add(own.second).add(tally)).take(),
                          settings_.init_timeout_ms));
    if (!roll.majority())
      return Status(Code::remote, Scope::communicator,
                    "{}: more ranks are silent than are left, and might go on by themselves",
                    title());
    Regrouped regrouped;
    regrouped.old_ranks = roll.members();
    std::vector<std::string> addresses;
    for (const int r : regrouped.old_ranks) {
      Word word;
      if (!parse(*roll.texts[static_cast<size_t>(r)], &word) ||
          !parse_tally(word.tally, &regrouped.tallies[r]))
        return Status(Code::remote, Scope::communicator, "{} sent nonsense",
                      parts_.who[static_cast<size_t>(r)]);
      if (word.wish != wish)
        return Status(Code::mismatch, Scope::communicator,
                      "the ranks that are left want different things: {} calls {}, but rank {} {}",
                      title(), wish, r, word.wish);
      addresses.push_back(std::move(word.address));
    }
    std::vector<int> gone;
    if (only != nullptr)
      std::set_difference(only->begin(), only->end(), regrouped.old_ranks.begin(),
                          regrouped.old_ranks.end(), std::back_inserter(gone));
    if (!gone.empty())
      return Status(Code::remote, Scope::communicator,
                    "{}: {} {} gone, too: to be among those that ncclCommShrink excludes", title(),
                    rank_list(gone), gone.size() == 1 ? "is" : "are");
    auto fresh = std::make_shared<Member>(-1, 0, config, settings_);
    {
      std::lock_guard lock(lost_mutex_);
      founders_ = {regrouped.old_ranks.begin(), regrouped.old_ranks.end()};
      founding_ = fresh;
      founding_round_ = round + 1;
      std::set_intersection(founders_.begin(), founders_.end(), lost_.begin(), lost_.end(),
                            std::back_inserter(gone));
    }
    Status made = gone.empty() ? found_among(regrouped.old_ranks, addresses, std::move(own.first),
                                             round, *fresh)
                               : Status(Code::remote, "{} died", rank_list(gone));
    auto second = roll_call_->agree(round + 1, made.is_ok() ? "" : made.text(),
                                    settings_.init_timeout_ms + settings_.silent_ms);
    {
      std::lock_guard lock(lost_mutex_);
      founders_.clear();
      founding_.reset();
    }
    bool everywhere = second.is_ok() && made.is_ok();
    Status trouble;
    if (second.is_ok()) {
      everywhere = second->members() == regrouped.old_ranks;
      const bool died = !everywhere;
      for (const int r : second->members()) {
        const std::string& text = *second->texts[static_cast<size_t>(r)];
        if (text.empty()) continue;
        everywhere = false;
        // With nobody gone there is no reason why it should come about the next time.
        if (!died)
          trouble = Status(Code::remote, Scope::communicator,
                           "rank {} cannot make a communicator with the others: {}", r, text);
      }
    }
    if (everywhere) {
      *child = std::move(fresh);
      return regrouped;
    }
    fresh->abort("a rank is gone with which it was made");
    if (!second.is_ok()) return second.status();
    RAILCCL_CHECK(trouble);
  }
}

Result<std::shared_ptr<Communicator>> Member::shrink_failed(const std::vector<int>& survivors,
                                                            const Config& config) {
  std::shared_ptr<Member> child;
  const std::string wish = fmt::format("shrink to {}", fmt::join(survivors, ","));
  std::vector<int> excluded;
  for (int r = 0; r < size(); r++)
    if (!std::binary_search(survivors.begin(), survivors.end(), r)) excluded.push_back(r);
  if (roll_call_ != nullptr) roll_call_->leave_out(excluded);
  RAILCCL_CHECK(regroup(wish, &survivors, config, &child).status());
  return std::shared_ptr<Communicator>(child);
}

// ---- Finishing what was interrupted -------------------------------------------------------------

Result<Recovery> Member::recover(const Config& config, bool finish_calls) {
  Config blocking = config;
  blocking.blocking = true;
  std::shared_ptr<Member> child;
  RAILCCL_TRY(
      const Regrouped regrouped,
      regroup(finish_calls ? "recovery" : "recovery without calls", nullptr, blocking, &child));
  Recovery recovery;
  recovery.old_ranks = regrouped.old_ranks;
  recovery.communicator = child;
  // Nobody has called anything there yet. It may have failed again already: what is called will
  // say.
  child->protected_ = protected_;
  child->watched_ |= protected_;
  child->save_bytes_max_ = save_bytes_max_;
  if (finish_calls) RAILCCL_CHECK(finish(regrouped.tallies, &recovery));
  return recovery;
}

/// By the rule; on the communicators that come of it, should ranks die meanwhile.
Status Member::finish(const std::map<int, Tally>& tallies, Recovery* recovery) {
  const Ruling ruling = rule(tallies);
  recovery->fate = ruling.outcome;
  recovery->from = ruling.from;
  recovery->until = ruling.until;
  recovery->why = ruling.why;
  if (ruling.outcome != CallsFate::finished) return ok();
  std::vector<Kept> calls;
  {
    std::lock_guard lock(interrupted_mutex_);
    calls = std::exchange(interrupted_, {});
  }
  auto& child = static_cast<Member&>(*recovery->communicator);
  size_t first = 0;
  if (ruling.keeps(tallies.at(rank()))) {
    recovery->kept++;
    first = 1;
  }
  Status status;
  for (size_t i = first; i < calls.size(); i++) {
    Call call = calls[i].call;
    if (!calls[i].saved.empty())
      kernels::copy(call.output, calls[i].saved.data(), plan::bytes_of(call.request),
                    kernels::Store::cached);
    if (rooted(call.request.collective)) {
      const auto& ranks = recovery->old_ranks;
      const auto root = std::find(ranks.begin(), ranks.end(), call.request.root);
      call.request.root = static_cast<int>(root - ranks.begin());
    }
    // After a failure the rest is refused, and so noted.
    if (const Status done = child.start(call, nullptr); status.is_ok()) status = done;
    if (status.is_ok()) recovery->repeated++;
  }
  if (status.is_ok()) return ok();
  if (status.scope() != Scope::communicator) return status.context("repeating a collective");
  log::info("{}: {}; once more", child.title(), status.text());
  RAILCCL_TRY(Recovery next, child.recover(child.config_, true));
  for (int& old_rank : next.old_ranks)
    old_rank = recovery->old_ranks[static_cast<size_t>(old_rank)];
  next.kept += recovery->kept;
  next.repeated += recovery->repeated;
  *recovery = std::move(next);
  return ok();
}

}  // namespace railccl::runtime
