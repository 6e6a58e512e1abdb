// What the nodes of the control tree talk about: stalled calls and their comparison, who is
// missing, and all-gathers.
#include <algorithm>

#include "base/clock.h"
#include "runtime/control_tree.h"
#include "runtime/rank_list.h"

namespace railccl::runtime {
namespace {

// Ranks that wait for the same reason report within moments: with a little patience the verdict
// names all of them.
constexpr int64_t kJudgementNs = 50'000'000;
constexpr int64_t kQueryMs = 500;    // for all ranks to report
constexpr int64_t kAnswerMs = 1500;  // for rank 0 to answer
constexpr size_t kStallsMax = 8;     // remembered per rank
// A child gets ahead only by giving exchanges up after their timeout.
constexpr uint64_t kRoundsAheadMax = 16;

bool in_subtree(int rank, int top) {
  while (rank > top) rank = tree_parent(rank);
  return rank == top;
}

}  // namespace

void ControlTree::handle(Edge* from, const ControlMessage& message) {
  switch (message.kind) {
    case ControlKind::intro:
      from->who = fmt::format("rank {} ({}, pid {})", from->rank, message.text, message.number);
      return;
    case ControlKind::fail:
      return fail_from(status_from(message.number, message.extra, message.text), message.rank,
                       from);
    case ControlKind::leave:
      gone_[message.rank] = message.number;
      if (from != nullptr && message.rank == from->rank) {
        from->left = true;
        // An exchange that waits for this neighbour will never end.
        const bool missed = std::any_of(gathers_.begin(), gathers_.end(), [&](const auto& gather) {
          return gather.second.mine && !gather.second.result &&
                 (from->up || !gather.second.heard.contains(from->rank));
        });
        if (missed)
          fail_from(Status(Code::invalid_usage, Scope::communicator,
                           "{} has left the communicator, but rank {} waits to exchange with it",
                           from->who, rank_),
                    rank_, nullptr);
      }
      if (from != nullptr && !from->up)
        if (Edge* up = parent()) send(*up, message);
      return judge_soon();
    case ControlKind::stall:
      note_stall(message.rank, message.sequence, message.text);
      if (Edge* up = parent()) send(*up, message);
      return judge_soon();
    case ControlKind::gather_up: {
      if (message.sequence > rounds_ + kRoundsAheadMax)
        return fail_from(
            Status(Code::remote, Scope::communicator, "{} sent nonsense: exchange {} before {}",
                   from->who, message.sequence, rounds_),
            rank_, nullptr);
      Gather& gather = gathers_[message.sequence];
      if (gather.parts.empty()) gather.parts.resize(static_cast<size_t>(ranks_));
      const Status parsed = parse_contributions(message.text, &gather.parts);
      if (!parsed.is_ok())
        return fail_from(parsed.context("{} sent nonsense", from->who), rank_, nullptr);
      gather.heard.insert(from->rank);
      return advance(message.sequence);
    }
    case ControlKind::gather_down: {
      Contributions all(static_cast<size_t>(ranks_));
      Status parsed = parse_contributions(message.text, &all);
      std::vector<std::string> result;
      for (std::optional<std::string>& one : all) {
        if (!one) parsed = Status(Code::remote, Scope::communicator, "an exchange lacks a rank");
        result.push_back(one ? std::move(*one) : std::string());
      }
      if (!parsed.is_ok())
        return fail_from(parsed.context("{} sent nonsense", from->who), rank_, nullptr);
      send_down(message);
      const auto gather = gathers_.find(message.sequence);
      if (gather == gathers_.end()) return;
      if (gather->second.abandoned) {
        gathers_.erase(gather);
      } else {
        gather->second.result = std::move(result);
      }
      changed_.notify_all();
      return;
    }
    case ControlKind::ask:
      if (Edge* up = parent()) return send(*up, message);
      return begin_query(message);
    case ControlKind::probe:
      send_down(message);
      return send_up(own_report(message.number));
    case ControlKind::report: {
      if (Edge* up = parent()) return send(*up, message);
      const auto query = open_queries_.find(message.number);
      if (query != open_queries_.end()) query->second.entered[message.rank] = message.extra;
      return end_queries(now_ns());
    }
    case ControlKind::answer:
      if (message.rank != rank_) return send_down(message);
      if (const auto answer = answers_.find(message.number); answer != answers_.end())
        answer->second = message.text;
      changed_.notify_all();
      return;
  }
}

// ---- Stalls and their comparison ----------------------------------------------------------------

void ControlTree::report_stall(uint64_t sequence, const std::string& call, int64_t) {
  if (inherited()) return;
  std::lock_guard lock(mutex_);
  if (stalled_ && own_stall_.sequence == sequence && own_stall_.call == call) return;
  stalled_ = true;
  own_stall_ = {sequence, call, 0};
  ControlMessage message;
  message.kind = ControlKind::stall;
  message.rank = rank_;
  message.sequence = sequence;
  message.text = call;
  handle(nullptr, message);
}

void ControlTree::note_done(uint64_t sequence) {
  finished_.store(sequence + 1, std::memory_order_release);  // partner: finished()
}

void ControlTree::report_mismatch(uint64_t sequence, const std::string& mine, int peer,
                                  const std::string& theirs) {
  const std::string which =
      mine.find(" as ") == std::string::npos ? fmt::format(" as operation {}", sequence) : "";
  fail(Status(Code::mismatch, Scope::communicator, "rank {} called {} but rank {} called {}{}",
              rank_, mine, peer, theirs, which));
}

void ControlTree::note_stall(int rank, uint64_t sequence, const std::string& call) {
  std::deque<Stall>& stalls = stalls_[rank];
  for (const Stall& known : stalls)
    if (known.sequence == sequence) return;
  stalls.push_back({sequence, call, now_ns()});
  if (stalls.size() > kStallsMax) stalls.pop_front();
}

std::vector<RankNews> ControlTree::news() const {
  std::vector<RankNews> news;
  if (inherited()) return news;
  std::lock_guard lock(mutex_);
  for (const auto& [rank, finished] : gone_)
    if (rank != rank_) news.push_back({rank, true, finished, {}, 0});
  for (const auto& [rank, stalls] : stalls_) {
    const Stall& last = stalls.back();
    if (rank != rank_ && !gone_.contains(rank))
      news.push_back({rank, false, last.sequence, last.call, last.told_ns});
  }
  return news;
}

/// What is wrong with the calls that are known here; ok when they may still all come true.
Status ControlTree::judge() const {
  std::map<uint64_t, std::map<std::string, std::vector<int>>> calls;  // operation -> call -> ranks
  for (const auto& [rank, stalls] : stalls_)
    for (const Stall& stall : stalls) calls[stall.sequence][stall.call].push_back(rank);
  for (const auto& [sequence, by_call] : calls) {
    if (by_call.size() > 1) {
      std::vector<std::pair<std::vector<int>, std::string>> groups;
      for (const auto& [call, ranks] : by_call) groups.emplace_back(ranks, call);
      std::sort(groups.begin(), groups.end());
      std::string text;
      for (size_t i = 0; i < groups.size() && i < 4; i++)
        text += fmt::format("{}{} called {}",
                            i == 0   ? ""
                            : i == 1 ? " but "
                                     : ", ",
                            rank_list(groups[i].first), groups[i].second);
      return Status(Code::mismatch, Scope::communicator, "{} as operation {}", text, sequence);
    }
    for (const auto& [rank, finished] : gone_) {
      const auto& [call, ranks] = *by_call.begin();
      if (finished <= sequence && !std::count(ranks.begin(), ranks.end(), rank))
        return Status(Code::mismatch, Scope::communicator,
                      "{} called {} as operation {}, but rank {} has left the communicator after "
                      "{} operations",
                      rank_list(ranks), call, sequence, rank, finished);
    }
  }
  return ok();
}

void ControlTree::judge_soon() {
  if (parent() != nullptr || judgement_ns_ != 0 || !failure_.is_ok() || judge().is_ok()) return;
  judgement_ns_ = now_ns() + kJudgementNs;
  reactor_->wake_at(id_, judgement_ns_);
}

// ---- Who is missing -----------------------------------------------------------------------------

ControlMessage ControlTree::own_report(uint64_t query) const {
  ControlMessage report;
  report.kind = ControlKind::report;
  report.rank = rank_;
  report.number = query;
  report.extra =
      std::max(finished_.load(std::memory_order_relaxed), stalled_ ? own_stall_.sequence + 1 : 0);
  return report;
}

void ControlTree::begin_query(const ControlMessage& question) {
  const uint64_t number = queries_++;
  Query& query = open_queries_[number];
  query.asker = question.rank;
  query.asker_query = question.number;
  query.sequence = question.sequence;
  query.due_ns = now_ns() + kQueryMs * 1'000'000;
  query.entered[rank_] = own_report(0).extra;
  ControlMessage probe;
  probe.kind = ControlKind::probe;
  probe.rank = rank_;
  probe.sequence = question.sequence;
  probe.number = number;
  send_down(probe);
  reactor_->wake_at(id_, query.due_ns);
  end_queries(now_ns());
}

void ControlTree::end_queries(int64_t now) {
  for (auto entry = open_queries_.begin(); entry != open_queries_.end();) {
    const Query& query = entry->second;
    std::vector<int> missing, silent;
    for (int rank = rank_; rank < ranks_; rank++) {
      if (!in_subtree(rank, rank_)) continue;
      const auto entered = query.entered.find(rank);
      const auto left = gone_.find(rank);
      if (entered == query.entered.end() && left == gone_.end()) {
        silent.push_back(rank);
      } else if ((entered != query.entered.end() ? entered->second : left->second) <=
                 query.sequence) {
        missing.push_back(rank);
      }
    }
    if (!silent.empty() && now < query.due_ns) {
      reactor_->wake_at(id_, query.due_ns);
      ++entry;
      continue;
    }
    ControlMessage answer;
    answer.kind = ControlKind::answer;
    answer.rank = query.asker;
    answer.number = query.asker_query;
    if (!missing.empty())
      answer.text = fmt::format("{} of {} {} not entered operation {}", rank_list(missing), ranks_,
                                missing.size() == 1 ? "has" : "have", query.sequence);
    if (!silent.empty())
      answer.text += fmt::format("{}{} {} not answer", answer.text.empty() ? "" : "; ",
                                 rank_list(silent), silent.size() == 1 ? "does" : "do");
    entry = open_queries_.erase(entry);
    handle(nullptr, answer);
  }
}

std::string ControlTree::who_is_missing(uint64_t sequence) {
  if (inherited()) return {};
  std::unique_lock lock(mutex_);
  if (!failure_.is_ok()) return {};
  const uint64_t number = queries_++;
  answers_[number] = std::nullopt;
  ControlMessage question;
  question.kind = ControlKind::ask;
  question.rank = rank_;
  question.sequence = sequence;
  question.number = number;
  handle(nullptr, question);
  changed_.wait_for(lock, std::chrono::milliseconds(kAnswerMs),
                    [&] { return answers_[number].has_value() || !failure_.is_ok(); });
  std::string text = answers_[number].value_or(
      failure_.is_ok() ? "rank 0 does not answer who is missing" : std::string());
  answers_.erase(number);
  return text;
}

// ---- All-gather ---------------------------------------------------------------------------------

void ControlTree::advance(uint64_t round) {
  Gather& gather = gathers_[round];
  if (!gather.mine || gather.sent) return;
  const std::vector<int> children = tree_children(rank_, ranks_);
  for (const int child : children) {
    if (gather.heard.contains(child)) continue;
    const auto gone = gone_.find(child);
    if (gone == gone_.end()) return;
    return fail_from(Status(Code::invalid_usage, Scope::communicator,
                            "rank {} has left the communicator, but rank {} waits to exchange with "
                            "it",
                            child, rank_),
                     rank_, nullptr);
  }
  gather.sent = true;
  ControlMessage message;
  message.rank = rank_;
  message.sequence = round;
  message.text = encode(gather.parts);
  if (Edge* up = parent(); up != nullptr && !up->left) {
    message.kind = ControlKind::gather_up;
    gather.parts.clear();
    return send(*up, message);
  }
  if (rank_ != 0)
    return fail_from(Status(Code::invalid_usage, Scope::communicator,
                            "rank {} has left the communicator, but rank {} waits to exchange with "
                            "it",
                            tree_parent(rank_), rank_),
                     rank_, nullptr);
  message.kind = ControlKind::gather_down;
  std::vector<std::string> result;
  for (std::optional<std::string>& one : gather.parts)
    result.push_back(std::move(one).value_or(""));
  gather.parts.clear();
  gather.result = std::move(result);
  changed_.notify_all();
  send_down(message);
}

Result<std::vector<std::string>> ControlTree::all_gather(const std::string& mine,
                                                         int64_t timeout_ms) {
  if (inherited())
    return Status(Code::invalid_usage, Scope::communicator,
                  "this communicator belongs to the process that forked");
  if (mine.size() > kContributionBytesMax)
    return Status(Code::invalid_argument, "{} bytes to exchange; at most {} are allowed",
                  mine.size(), kContributionBytesMax);
  std::unique_lock lock(mutex_);
  if (!failure_.is_ok()) return failure_;
  if (left_) return Status(Code::invalid_usage, "rank {} has left the communicator", rank_);
  const uint64_t round = rounds_++;
  {
    Gather& gather = gathers_[round];
    if (gather.parts.empty()) gather.parts.resize(static_cast<size_t>(ranks_));
    gather.parts[static_cast<size_t>(rank_)] = mine;
    gather.mine = true;
  }
  advance(round);
  const bool woken = changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] {
    return gathers_[round].result.has_value() || !failure_.is_ok();
  });
  Gather& gather = gathers_[round];
  if (gather.result) {
    std::vector<std::string> result = std::move(*gather.result);
    gathers_.erase(round);
    return result;
  }
  if (woken) return failure_;
  std::vector<int> missing;
  for (int rank = rank_; rank < ranks_ && !gather.sent; rank++)
    if (in_subtree(rank, rank_) && !gather.parts[static_cast<size_t>(rank)])
      missing.push_back(rank);
  gather.abandoned = true;
  return Status(Code::timeout, Scope::communicator, "after {} ms {} not joined the exchange",
                timeout_ms,
                missing.empty() ? "some ranks have"
                                : rank_list(missing) + (missing.size() == 1 ? " has" : " have"));
}

}  // namespace railccl::runtime
