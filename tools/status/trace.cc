// Writes the JSON of a trace; see trace.h.
#include "status/trace.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace railccl::status {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kRailTrack = 1'000'000;  // behind those of the ranks

double us_of(int64_t ns) { return static_cast<double>(ns) * 1e-3; }

Json name_event(const char* what, int process, int track, const std::string& name) {
  return {
      {"ph", "M"}, {"name", what}, {"pid", process}, {"tid", track}, {"args", {{"name", name}}}};
}

/// The span of an operation; `next_ns`: when the next one of its rank began, or now.
Json span_of(const Operation& operation, int64_t next_ns, int process, int rank) {
  const bool over = operation.state == "done" || operation.state == "failed";
  const int64_t end_ns = operation.end_ns.value_or(next_ns);
  Json args = {{"call", operation.call},           {"state", operation.state},
               {"bytes", operation.bytes},         {"algorithm", operation.algorithm},
               {"transport", operation.transport}, {"channels", operation.channels}};
  if (operation.operation) args["operation"] = *operation.operation;
  if (!operation.where.empty()) args["where"] = operation.where;
  // Short ones leave no stamp behind the last message: what is drawn is the most it can be.
  if (over && !operation.end_ns) args["end"] = "not recorded: before the next one began";
  std::string name = operation.call.substr(0, operation.call.find('('));
  if (operation.kind == "weighing" || operation.kind == "commit") name = operation.kind;
  if (!over) name += " (not over)";
  return {{"ph", "X"},
          {"name", name},
          {"cat", operation.kind},
          {"pid", process},
          {"tid", rank},
          {"ts", us_of(operation.start_ns)},
          {"dur", us_of(std::max<int64_t>(end_ns - operation.start_ns, 0))},
          {"args", std::move(args)}};
}

}  // namespace

std::string trace_of(const std::vector<Process>& processes) {
  Json events = Json::array();
  int number = 0;
  for (const Together& all : put_together(processes)) {
    number++;
    events.push_back(
        name_event("process_name", number, 0,
                   fmt::format("communicator {}{}", all.id,
                               all.name.empty() ? "" : fmt::format(" \"{}\"", all.name))));
    for (const auto& [rank, view] : all.here) {
      const auto& [process, communicator] = view;
      events.push_back(name_event(
          "thread_name", number, rank,
          fmt::format("rank {} ({}, pid {})", rank, communicator->host, process->process)));
      const std::vector<Operation>& operations = communicator->operations;
      for (size_t i = 0; i < operations.size(); i++) {
        const int64_t next_ns =
            i + 1 < operations.size() ? operations[i + 1].start_ns : process->unix_ns;
        events.push_back(span_of(operations[i], next_ns, number, rank));
      }
      if (!communicator->rails.empty() || !communicator->events.empty())
        events.push_back(name_event("thread_name", number, kRailTrack + rank,
                                    fmt::format("rails of rank {}", rank)));
      for (const Event& event : communicator->events)
        events.push_back({{"ph", "i"},
                          {"s", "t"},
                          {"name", event.text},
                          {"pid", number},
                          {"tid", kRailTrack + rank},
                          {"ts", static_cast<double>(event.unix_ms) * 1e3}});
      for (const Rail& rail : communicator->rails)
        if (rail.bytes_per_s < 1e18)
          events.push_back({{"ph", "C"},
                            {"name", fmt::format("rail {} of {}", rail.rail, communicator->host)},
                            {"pid", number},
                            {"ts", us_of(process->unix_ns)},
                            {"args", {{"bytes_per_s", rail.bytes_per_s}}}});
    }
  }
  const Json trace = {{"displayTimeUnit", "ns"}, {"traceEvents", std::move(events)}};
  return trace.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace railccl::status
