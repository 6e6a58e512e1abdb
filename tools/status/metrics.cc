// Writes the families of metrics; see metrics.h.
#include "status/metrics.h"

#include <functional>

namespace railccl::status {
namespace {

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

std::string label(const char* name, const std::string& value) {
  return fmt::format("{}=\"{}\"", name, escaped(value));
}

std::string labels_of(const Communicator& communicator, const Process& process) {
  return label("communicator", communicator.id) + "," + label("name", communicator.name) + "," +
         label("rank", std::to_string(communicator.rank)) + "," +
         label("pid", std::to_string(process.process));
}

class Page {
 public:
  explicit Page(const Gathered& gathered) : gathered_(gathered) {}

  void begin(const char* name, const char* type, const char* help) {
    name_ = name;
    counter_ = std::string_view(type) == "counter";
    text_ += fmt::format("# TYPE {0} {1}\n# HELP {0} {2}\n", name, type, help);
  }
  void sample(const std::string& labels, double value) {
    text_ += fmt::format("{}{}{{{}}} {}\n", name_, counter_ ? "_total" : "", labels, value);
  }
  /// A family with one sample for each rank here.
  void family(const char* name, const char* type, const char* help,
              const std::function<double(const Communicator&)>& value) {
    begin(name, type, help);
    for (const Process& process : gathered_.processes)
      for (const Communicator& communicator : process.communicators)
        sample(labels_of(communicator, process), value(communicator));
  }
  std::string end() { return std::move(text_) + "# EOF\n"; }

 private:
  const Gathered& gathered_;
  std::string name_, text_;
  bool counter_ = false;
};

}  // namespace

std::string metrics_of(const Gathered& gathered) {
  Page page(gathered);
  page.begin("railccl_processes", "gauge", "Processes of this host with communicators.");
  page.sample("state=\"answers\"", static_cast<double>(gathered.processes.size()));
  page.sample("state=\"unread\"", static_cast<double>(gathered.unread.size()));
  page.family("railccl_operations", "counter", "Operations that were begun.",
              [](const Communicator& one) { return static_cast<double>(one.recorded); });
  page.family("railccl_bytes", "counter", "Bytes of their inputs or outputs, whichever are more.",
              [](const Communicator& one) { return static_cast<double>(one.bytes); });
  page.family("railccl_collectives", "counter", "Collectives that callers had success from.",
              [](const Communicator& one) { return static_cast<double>(one.collectives); });
  page.family("railccl_queued", "gauge", "Calls whose turn has not come.",
              [](const Communicator& one) { return static_cast<double>(one.queued); });
  page.family("railccl_in_flight_seconds", "gauge",
              "For how long the oldest operation has been in flight; 0: there is none.",
              [](const Communicator& one) {
                int64_t longest_ms = 0;
                for (const Operation& operation : one.in_flight)
                  longest_ms = std::max(longest_ms, operation.for_ms);
                return static_cast<double>(longest_ms) * 1e-3;
              });
  page.family("railccl_failed", "gauge", "1: the communicator has failed.",
              [](const Communicator& one) { return one.verdict.empty() ? 0.0 : 1.0; });
  page.begin("railccl_rail_bytes_per_second", "gauge",
             "What this host's part of a rail carries, as the ranks agreed last.");
  for (const Process& process : gathered.processes)
    for (const Communicator& one : process.communicators)
      for (const Rail& rail : one.rails)
        if (rail.bytes_per_s < 1e18)
          page.sample(labels_of(one, process) + "," + label("rail", std::to_string(rail.rail)) +
                          "," + label("nic", rail.nic),
                      rail.bytes_per_s);
  page.begin("railccl_paths", "gauge", "Paths to other hosts, by what has become of them.");
  for (const Process& process : gathered.processes)
    for (const Communicator& one : process.communicators) {
      std::map<std::pair<std::string, std::string>, int> counts;
      for (const Path& path : one.paths) counts[{path.nic, path.state}]++;
      for (const auto& [key, count] : counts)
        page.sample(labels_of(one, process) + "," + label("nic", key.first) + "," +
                        label("state", key.second),
                    count);
    }
  return page.end();
}

}  // namespace railccl::status
