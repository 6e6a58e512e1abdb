// How a communicator that has failed comes to a verdict that all its ranks share.
#include "base/log.h"
#include "runtime/member.h"
#include "runtime/verdict.h"

namespace railccl::runtime {

Status Member::open_roll_call() {
  RollCall::Place place;
  place.rank = rank();
  place.job = parts_.job;
  place.addresses = std::move(parts_.doors);
  place.listener = std::move(parts_.door);
  place.silent_ms = settings_.silent_ms;
  // The roll call ends before this does: see ~Member().
  RollCall::Hooks hooks;
  hooks.account = [this](bool last) { return account(last); };
  hooks.called = [this] {
    parts_.control->fail(Status(Code::remote, Scope::communicator, "{}", kCalled));
  };
  hooks.told = [this](const RollResult& roll) { hear(roll); };
  hooks.excluded = [this](const std::string& why) {
    replace_failure({Status(Code::remote, Scope::communicator, "{}: {}", title(), why), {}});
  };
  hooks.lost = [this](int rank, Gone how) { note_lost(rank, how); };
  RAILCCL_TRY(roll_call_, RollCall::open(std::move(place), std::move(hooks)));
  return ok();
}

void Member::describe(uint64_t sequence, const std::string& call, const std::string& where,
                      const std::string& brief) {
  std::lock_guard lock(failure_mutex_);
  if (!standing_) standing_ = Standing{sequence, call, where, brief};
}

/// What this rank says when the roll is called for the verdict.
std::optional<std::string> Member::account(bool last) {
  Account account;
  account.entered = sequence_.load(std::memory_order_relaxed);
  account.finished = parts_.control->finished();
  Status failure = parts_.control->verdict();
  std::lock_guard lock(failure_mutex_);
  if (standing_) {
    if (!standing_->call.empty()) account.entered = standing_->sequence + 1;
    account.call = standing_->call;
    account.where = standing_->where;
  } else if (account.entered > account.finished && !last) {
    return std::nullopt;  // its thread is about to say where it stands
  }
  if (failed_.load(std::memory_order_relaxed)) failure = failure_;
  if (!failure.is_ok() && failure.text() != kCalled) {
    account.code = static_cast<uint64_t>(failure.code());
    account.failure = failure.text();
    // The verdict says of the call and the place what there is to say.
    if (standing_ && !standing_->brief.empty() &&
        account.failure.find(standing_->brief) != std::string::npos)
      account.failure = standing_->brief;
  }
  return encode(account);
}

void Member::hear(const RollResult& roll) { replace_failure(verdict_of(roll, parts_.who)); }

/// `verdict` in place of what this rank knew of the failure by itself; unless its ranks have ended
/// it on purpose, or have a verdict already.
void Member::replace_failure(const Verdict& verdict) {
  verdict.status.note_told();  // before anybody else can get it
  {
    std::lock_guard lock(failure_mutex_);
    const bool failed = failed_.load(std::memory_order_relaxed);
    if (failed && !calls_the_roll(failure_.code())) return;
    failure_ = verdict.status;
    suspects_ = verdict.suspects;
    failed_.store(true, std::memory_order_release);
  }
  log::warn("{}: {}", title(), verdict.status.text());
  give_in(verdict.status);
  dump();
}

Status Member::settle(const Status& why) {
  if (why.is_ok() || why.scope() != Scope::communicator) return why;
  Status settled = why;
  const auto roll_call = [&] {
    std::lock_guard lock(life_);
    return roll_call_;
  }();
  if (roll_call != nullptr && calls_the_roll(why.code())) {
    roll_call->begin();
    // A leader may be silent, and be replaced.
    roll_call->wait_for_verdict(std::min<int64_t>(2 * settings_.silent_ms + 500, kVerdictMsMax));
    dump();  // unless the verdict has brought that about
    settled = trouble();
  }
  const auto left_behind = [&] {
    std::lock_guard lock(failure_mutex_);
    return dump_;
  }();
  if (left_behind != nullptr) left_behind->wait();  // who gets this may end the process
  return settled;
}

/// Leaves a file with all that this process knows, once, where the user wants that.
void Member::dump() {
  if (settings_.dump_folder.empty()) return;
  std::lock_guard lock(failure_mutex_);
  if (dump_ == nullptr) dump_ = Dump::begin(settings_.dump_folder, title());
}

}  // namespace railccl::runtime
