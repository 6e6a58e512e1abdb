// Accounts to sentences; see verdict.h.
#include "runtime/verdict.h"

#include <algorithm>
#include <map>

#include "runtime/control.h"
#include "runtime/pack.h"
#include "runtime/rank_list.h"
#include "runtime/rendezvous_wire.h"

namespace railccl::runtime {
namespace {

constexpr size_t kWhereMax = 4;  // ranks whose step is told
constexpr size_t kNamedMax = 8;  // ranks that are named with host and process

const char* what_became_of(Gone gone) {
  switch (gone) {
    case Gone::no:
    case Gone::died:
      return "died";
    case Gone::silent:
      return "does not answer (stopped, or cut off)";
    case Gone::left:
      return "has left the communicator";
    case Gone::absent:
      return "did not come to the roll call";
  }
  return "is gone";
}

void join(std::string* text, const std::string& more, const char* by = "; ") {
  if (!text->empty() && !more.empty()) *text += by;
  *text += more;
}

std::string list(const std::vector<int>& ranks, const char* one, const char* many) {
  if (ranks.empty()) return {};
  return fmt::format("{} {}", rank_list(ranks), ranks.size() == 1 ? one : many);
}

/// The account whose failure is told; null: ranks say no more than that another called the roll, or
/// are well. A rank that first heard of a failure by another one repeats all that this one said of
/// it, who itself says in short what is not in the rest of his account: then that is to be told.
const Account* cause_among(const std::map<int, Account>& accounts) {
  const Account* cause = nullptr;
  for (const auto& [rank, account] : accounts) {
    if (account.code == 0 || account.failure.empty()) continue;
    if (cause == nullptr || (account.failure.size() < cause->failure.size() &&
                             cause->failure.find(account.failure) != std::string::npos))
      cause = &account;
  }
  return cause;
}

}  // namespace

std::string encode(const Account& account) {
  return std::move(Packer()
                       .add(account.entered)
                       .add(account.finished)
                       .add(account.call)
                       .add(account.where)
                       .add(account.code)
                       .add(account.failure))
      .take();
}

bool parse_account(std::string_view bytes, Account* account) {
  Unpacker unpacker(bytes);
  return unpacker.get(&account->entered) && unpacker.get(&account->finished) &&
         unpacker.get(&account->call) && unpacker.get(&account->where) &&
         unpacker.get(&account->code) && unpacker.get(&account->failure) && unpacker.at_end();
}

Verdict verdict_of(const RollResult& roll, const std::vector<std::string>& who) {
  std::vector<Suspect> suspects;
  std::map<int, Account> accounts;
  std::map<Gone, std::vector<int>> gone;
  for (size_t rank = 0; rank < roll.texts.size(); rank++) {
    Account account;
    if (!roll.texts[rank]) {
      gone[roll.gone[rank]].push_back(static_cast<int>(rank));
    } else if (parse_account(*roll.texts[rank], &account)) {
      accounts[static_cast<int>(rank)] = std::move(account);
    }
  }

  std::string text;
  size_t named = 0;
  for (const auto& [how, ranks] : gone) {
    std::string names;
    if (named + ranks.size() <= kNamedMax) {
      for (const int rank : ranks) join(&names, who[static_cast<size_t>(rank)], ", ");
      named += ranks.size();
    } else {
      names = rank_list(ranks);
    }
    join(&text, fmt::format("{} {}", names, what_became_of(how)));
    for (const int rank : ranks) suspects.push_back({rank, what_became_of(how)});
  }
  Code code = Code::remote;
  if (const Account* cause = cause_among(accounts)) {
    code = status_from(cause->code, 0, {}).code();
    // Who has died is said already.
    if (gone.empty() || !cause->failure.ends_with(kVanished)) join(&text, cause->failure);
  }

  // The operation that the ranks were in; of several the earliest, for which the others wait.
  const Account* first = nullptr;
  for (const auto& [rank, account] : accounts)
    if (!account.call.empty() && (first == nullptr || account.finished < first->finished))
      first = &account;
  if (first == nullptr) {
    uint64_t most = 0;
    for (const auto& [rank, account] : accounts) {
      most = std::max(most, account.finished);
      if (!account.where.empty()) join(&text, fmt::format("rank {}: {}", rank, account.where));
    }
    join(&text, fmt::format("no rank was in an operation ({} were finished)", most));
    return {Status(code, Scope::communicator, "{}", text), std::move(suspects)};
  }
  const uint64_t sequence = first->entered - 1;
  std::vector<int> inside, finished, missing;
  std::map<std::string, std::vector<int>> elsewhere;
  std::string wheres;
  size_t told = 0;
  for (const auto& [rank, account] : accounts) {
    if (account.finished > sequence) {
      finished.push_back(rank);
    } else if (account.entered <= sequence) {
      missing.push_back(rank);
    } else if (account.call != first->call && !account.call.empty()) {
      elsewhere[account.call].push_back(rank);
    } else {
      inside.push_back(rank);
      if (!account.where.empty() && told++ < kWhereMax)
        join(&wheres, fmt::format("rank {}: {}", rank, account.where), " | ");
    }
  }
  std::string state = list(inside, "is in it", "are in it");
  if (!wheres.empty()) state += fmt::format(" ({})", wheres);
  join(&state, list(finished, "has finished it", "have finished it"), ", ");
  join(&state, list(missing, "has not entered it", "have not entered it"), ", ");
  for (const auto& [call, ranks] : elsewhere)
    join(&state, list(ranks, "is", "are") + " in " + call + " instead", ", ");
  const std::string what = fmt::format("{} as operation {}", first->call, sequence);
  join(&text, fmt::format("{}: {}", what, state));
  for (const int rank : missing) suspects.push_back({rank, "has not entered " + what});
  for (const auto& [call, ranks] : elsewhere)
    for (const int rank : ranks)
      suspects.push_back({rank, "is in " + call + " instead of " + what});
  return {Status(code, Scope::communicator, "{}", text), std::move(suspects)};
}

}  // namespace railccl::runtime
