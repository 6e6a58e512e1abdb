// Texts of what was gathered; see show.h.
#include "status/show.h"

#include <algorithm>

#include "base/json_text.h"
#include "runtime/rank_list.h"

namespace railccl::status {
namespace {

constexpr size_t kRemoteMax = 16;  // ranks of other hosts that get lines of their own

std::string time_text(int64_t ms) {
  if (ms < 10'000) return fmt::format("{} ms", ms);
  if (ms < 600'000) return fmt::format("{} s", ms / 1000);
  return fmt::format("{} min", ms / 60'000);
}

void add(std::string* text, const std::string& line) {
  *text += line;
  *text += '\n';
}

std::string numbered(const Operation& operation) {
  return operation.operation
             ? fmt::format("{} as operation {}", operation.call, *operation.operation)
             : operation.call;
}

std::string doing(const Communicator& rank, int64_t unix_ns) {
  if (rank.state != "works") return rank.state;
  std::string text;
  for (const Operation& operation : rank.in_flight) {
    if (!text.empty()) text += "; ";
    text += fmt::format("in {} for {}", numbered(operation), time_text(operation.for_ms));
    if (!operation.where.empty()) text += fmt::format(" ({})", operation.where);
  }
  if (text.empty()) {
    text = "in no operation";
    if (!rank.operations.empty()) {
      const Operation& last = *std::max_element(
          rank.operations.begin(), rank.operations.end(),
          [](const Operation& a, const Operation& b) { return a.start_ns < b.start_ns; });
      text += fmt::format(" since {}{}; the last was {}", last.stamped ? "" : "at most ",
                          time_text((unix_ns - last.end_ns.value_or(last.start_ns)) / 1'000'000),
                          numbered(last));
    }
  }
  if (rank.queued > 0) text += fmt::format("; {} calls queued", rank.queued);
  return text;
}

std::string place_of(const Communicator& view, int rank) {
  const auto index = static_cast<size_t>(rank);
  if (index >= view.members.size()) return "?";
  return fmt::format("{}, pid {}", view.members[index].host, view.members[index].process);
}

/// Of a rank that is not in any process that answers.
std::string known_of(const Together& all, const Gathered& gathered, int rank) {
  std::string text = "nothing is known of it here";
  const Communicator& any = *all.here.begin()->second.second;
  const auto index = static_cast<size_t>(rank);
  if (index < any.members.size() && any.members[index].host == gathered.host)
    for (const Gathered::Unread& unread : gathered.unread)
      if (unread.process == any.members[index].process) text = unread.why;
  for (const auto& [here, view] : all.here)
    for (const News& news : view.second->news) {
      if (news.rank != rank) continue;
      if (news.left_after)
        text = fmt::format("has left after {} operations", *news.left_after);
      else if (news.waits_in)
        text = fmt::format("waits in {} as operation {}, as it said {} ago", news.call,
                           *news.waits_in, time_text(news.since_ms));
    }
  return text;
}

void show_paths(const Communicator& view, std::string* text) {
  for (const Rail& rail : view.rails)
    add(text,
        fmt::format("    rail {} ({}): {}{}", rail.rail, rail.nic.empty() ? "none here" : rail.nic,
                    rate_text(rail.bytes_per_s), rail.in_use ? "" : ", not in use"));
  std::map<std::string, int> states;
  for (const Path& path : view.paths) states[path.state]++;
  std::string counts;
  for (const auto& [state, count] : states)
    counts += fmt::format("{}{} {}", counts.empty() ? "" : ", ", count, state);
  if (!counts.empty()) add(text, fmt::format("    paths of rank {}: {}", view.rank, counts));
  for (const Path& path : view.paths)
    if (path.state != "works")
      add(text, fmt::format("      to rank {} ({}) by {}: {}", path.peer, path.peer_host, path.nic,
                            path.state));
}

void show(const Together& all, const Gathered& gathered, std::string* text) {
  const auto& [first_process, first] = all.here.begin()->second;
  std::vector<int> here;
  for (const auto& [rank, view] : all.here) here.push_back(rank);
  add(text, fmt::format("communicator {}{}: {} ranks; here: {}",
                        all.id.empty() ? "that is being made" : all.id,
                        all.name.empty() ? "" : fmt::format(" \"{}\"", all.name), all.ranks,
                        runtime::rank_list(here)));
  double operations = 0, bytes = 0;
  for (const auto& [rank, view] : all.here) {
    add(text, fmt::format("  rank {} (pid {}): {}", rank, view.first->process,
                          doing(*view.second, view.first->unix_ns)));
    operations = std::max(operations, view.second->operations_per_s);
    bytes = std::max(bytes, view.second->bytes_per_s);
  }
  // Of the others, those that something is known of, or that are missed.
  size_t told = 0;
  std::vector<int> untold;
  for (int rank = 0; rank < all.ranks; rank++) {
    if (all.here.contains(rank)) continue;
    const std::string known = known_of(all, gathered, rank);
    if (known.starts_with("nothing") || told >= kRemoteMax) {
      untold.push_back(rank);
    } else {
      told++;
      add(text, fmt::format("  rank {} ({}): {}", rank, place_of(*first, rank), known));
    }
  }
  if (!untold.empty())
    add(text,
        fmt::format("  {} elsewhere: nothing to be seen from here", runtime::rank_list(untold)));
  if (!all.stragglers.empty())
    add(text, fmt::format("  stragglers: {} not entered {} as operation {}, in which others wait",
                          runtime::rank_list(all.stragglers) +
                              (all.stragglers.size() == 1 ? " has" : " have"),
                          all.call, *all.operation));
  if (!all.unheard.empty() && all.here.contains(0))
    // Rank 0 hears of all that wait.
    add(text, fmt::format(
                  "  nobody has heard that {} in operation {}, in which others do: late, "
                  "stopped, or cut off",
                  runtime::rank_list(all.unheard) + (all.unheard.size() == 1 ? " waits" : " wait"),
                  *all.operation));
  add(text, fmt::format("  {:.1f} operations/s, {} per rank", operations, rate_text(bytes)));
  show_paths(*first, text);
  // Ranks may have failed with different sentences, when they did not agree on one.
  std::map<std::string, std::vector<int>> verdicts;
  for (const auto& [rank, view] : all.here)
    if (!view.second->verdict.empty()) verdicts[view.second->verdict].push_back(rank);
  for (const auto& [verdict, ranks] : verdicts)
    add(text, fmt::format("  failed, says {}: {}", runtime::rank_list(ranks), verdict));
  if (!first->events.empty())
    add(text, fmt::format("    last event: {}", first->events.back().text));
}

}  // namespace

std::string rate_text(double bytes_per_s) {
  if (!(bytes_per_s < 1e18)) return "of unknown speed";
  const char* const units[] = {"B/s", "KB/s", "MB/s", "GB/s", "TB/s", "PB/s"};
  size_t unit = 0;
  while (bytes_per_s >= 1000 && unit + 1 < std::size(units)) {
    bytes_per_s /= 1000;
    unit++;
  }
  return fmt::format("{:.3g} {}", bytes_per_s, units[unit]);
}

bool Gathered::well() const {
  if (!unread.empty()) return false;
  for (const Process& process : processes)
    for (const Communicator& communicator : process.communicators)
      if (!communicator.verdict.empty()) return false;
  return true;
}

Gathered read(const std::vector<Answer>& answers, std::string host) {
  Gathered gathered;
  gathered.host = std::move(host);
  for (const Answer& answer : answers) {
    if (answer.outcome == Answer::Outcome::answered) {
      auto process = parse_process(answer.text);
      if (process.is_ok()) {
        gathered.processes.push_back(std::move(process).value());
        gathered.texts.push_back(answer.text.substr(0, answer.text.find_last_of('}') + 1));
      } else {
        gathered.unread.push_back({answer.process, process.status().text()});
      }
    } else {
      gathered.unread.push_back(
          {answer.process,
           fmt::format("{} ({})",
                       answer.outcome == Answer::Outcome::silent ? "its process does not answer"
                                                                 : "its process hung up",
                       answer.state)});
    }
  }
  return gathered;
}

std::string text_of(const Gathered& gathered) {
  std::string text;
  add(&text, fmt::format("{}: {} processes with communicators", gathered.host,
                         gathered.processes.size() + gathered.unread.size()));
  for (const Gathered::Unread& unread : gathered.unread)
    add(&text, fmt::format("pid {}: {}", unread.process, unread.why));
  for (const Together& communicator : put_together(gathered.processes))
    show(communicator, gathered, &text);
  for (const Process& process : gathered.processes) {
    if (process.communicators.empty())
      add(&text, fmt::format("pid {}: no communicators now", process.process));
    if (process.left_out > 0)
      add(&text, fmt::format("pid {}: {} more communicators", process.process, process.left_out));
  }
  return text;
}

std::string json_of(const Gathered& gathered) {
  JsonText json;
  json.object().field("host", gathered.host).field("well", gathered.well());
  json.key("processes").array();
  for (const std::string& text : gathered.texts) json.raw(text);
  json.end().key("unread").array();
  for (const Gathered::Unread& unread : gathered.unread)
    json.object().field("pid", unread.process).field("why", unread.why).end();
  json.end().key("communicators").array();
  const auto list = [&json](const char* key, const std::vector<int>& ranks) {
    json.key(key).array();
    for (const int rank : ranks) json.value(rank);
    json.end();
  };
  for (const Together& all : put_together(gathered.processes)) {
    json.object().field("id", all.id).field("name", all.name).field("ranks", all.ranks);
    std::vector<int> here;
    for (const auto& [rank, view] : all.here) here.push_back(rank);
    list("here", here);
    json.key("waits_in");
    all.operation ? json.value(*all.operation) : json.null();
    list("stragglers", all.stragglers);
    list("unheard", all.unheard);
    json.end();
  }
  return json.end().end().take() + "\n";
}

}  // namespace railccl::status
