// Writes the JSON of a trace; see trace.h.
#include "status/trace.h"

#include <algorithm>

#include "base/json_text.h"

namespace railccl::status {
namespace {

constexpr int kRailTrack = 1'000'000;  // behind those of the ranks

double us_of(int64_t ns) { return static_cast<double>(ns) * 1e-3; }

/// The members that all events have, of one that the caller opens and ends.
JsonText& begin(JsonText& json, const char* kind, const std::string& name, int process, int track) {
  return json.object()
      .field("ph", kind)
      .field("name", name)
      .field("pid", process)
      .field("tid", track);
}

void add_name(JsonText& json, const char* what, int process, int track, const std::string& name) {
  begin(json, "M", what, process, track).key("args").object().field("name", name).end().end();
}

/// The span of an operation; `next_ns`: when the next one of its rank began, or now.
void add_span(JsonText& json, const Operation& operation, int64_t next_ns, int process, int rank) {
  const bool over = operation.state == "done" || operation.state == "failed";
  std::string name = operation.call.substr(0, operation.call.find('('));
  if (operation.kind == "weighing" || operation.kind == "commit") name = operation.kind;
  if (!over) name += " (not over)";
  const int64_t end_ns = operation.end_ns.value_or(next_ns);
  begin(json, "X", name, process, rank)
      .field("cat", operation.kind)
      .field("ts", us_of(operation.start_ns))
      .field("dur", us_of(std::max<int64_t>(end_ns - operation.start_ns, 0)))
      .key("args")
      .object()
      .field("call", operation.call)
      .field("state", operation.state)
      .field("bytes", operation.bytes)
      .field("algorithm", operation.algorithm)
      .field("transport", operation.transport)
      .field("channels", operation.channels);
  if (operation.operation) json.field("operation", *operation.operation);
  if (!operation.where.empty()) json.field("where", operation.where);
  if (!operation.stamped) json.field("start", "not recorded: between its neighbours");
  // Short ones leave no stamp behind the last message: what is drawn is the most it can be.
  if (over && !operation.end_ns) json.field("end", "not recorded: before the next one began");
  json.end().end();
}

void add_rank(JsonText& json, const Process& process, const Communicator& one, int number) {
  const int rank = one.rank, rails = kRailTrack + one.rank;
  add_name(json, "thread_name", number, rank,
           fmt::format("rank {} ({}, pid {})", rank, one.host, process.process));
  // Sends and receives come behind the others, but happen between them.
  std::vector<const Operation*> operations;
  for (const Operation& operation : one.operations) operations.push_back(&operation);
  std::stable_sort(operations.begin(), operations.end(),
                   [](const auto* a, const auto* b) { return a->start_ns < b->start_ns; });
  for (size_t i = 0; i < operations.size(); i++)
    add_span(json, *operations[i],
             i + 1 < operations.size() ? operations[i + 1]->start_ns : process.unix_ns, number,
             rank);
  if (!one.rails.empty() || !one.events.empty())
    add_name(json, "thread_name", number, rails, fmt::format("rails of rank {}", rank));
  for (const Event& event : one.events)
    begin(json, "i", event.text, number, rails)
        .field("s", "t")
        .field("ts", static_cast<double>(event.unix_ms) * 1e3)
        .end();
  for (const Rail& rail : one.rails)
    if (rail.bytes_per_s < 1e18)
      begin(json, "C", fmt::format("rail {} of {}", rail.rail, one.host), number, rails)
          .field("ts", us_of(process.unix_ns))
          .key("args")
          .object()
          .field("bytes_per_s", rail.bytes_per_s)
          .end()
          .end();
}

}  // namespace

std::string trace_of(const std::vector<Process>& processes) {
  JsonText json;
  json.object().field("displayTimeUnit", "ns").key("traceEvents").array();
  int number = 0;
  for (const Together& all : put_together(processes)) {
    number++;
    add_name(json, "process_name", number, 0,
             fmt::format("communicator {}{}", all.id,
                         all.name.empty() ? "" : fmt::format(" \"{}\"", all.name)));
    for (const auto& [rank, view] : all.here) add_rank(json, *view.first, *view.second, number);
  }
  return json.end().end().take() + "\n";
}

}  // namespace railccl::status
