// railccl-status: what the communicators of this host's processes do just now.
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>

#include "status/gather.h"
#include "status/http.h"
#include "status/metrics.h"
#include "status/show.h"
#include "status/trace.h"

namespace {

using namespace railccl;

std::string host_name() {
  char name[256] = "?";
  ::gethostname(name, sizeof name - 1);
  return name;
}

int report(const Status& status) {
  std::fprintf(stderr, "railccl-status: %s\n", status.text().c_str());
  return 2;
}

/// Until a signal to end.
int serve_metrics(const std::string& address, int64_t limit_ms) {
  sigset_t ends;
  ::sigemptyset(&ends);
  ::sigaddset(&ends, SIGINT);
  ::sigaddset(&ends, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &ends, nullptr);
  const UniqueFd stop(::signalfd(-1, &ends, SFD_CLOEXEC));
  const auto listener = status::listen_at(address);
  if (!listener.is_ok()) return report(listener.status());
  const auto where = status::address_of(*listener);
  if (!where.is_ok()) return report(where.status());
  std::printf("http://%s/metrics\n", where->c_str());
  std::fflush(stdout);
  const Status served = status::serve(*listener, stop.get(), [&] {
    const auto answers = status::ask_all(runtime::StatusQuestion::status, limit_ms);
    return status::metrics_of(
        status::read(answers.is_ok() ? *answers : std::vector<status::Answer>(), host_name()));
  });
  return served.is_ok() ? 0 : report(served);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Shows the communicators of this user's processes on this host: their ranks, what is in\n"
      "flight and for how long, stragglers, rails and paths, and what has failed. Works while "
      "calls\n"
      "hang. Ends with 1 where something has failed or does not answer, else with 0.");
  bool json = false;
  std::string trace, serve;
  int64_t limit_ms = 1000;
  app.add_flag("--json", json, "for programs (docs/operations.md)");
  app.add_option("--trace", trace,
                 "write what the processes remember to this file, for ui.perfetto.dev");
  app.add_option(
      "--serve", serve,
      "serve metrics (OpenMetrics) at this port of 127.0.0.1, or at ADDRESS:PORT; until\n"
      "it is ended");
  app.add_option("--limit-ms", limit_ms, "how long to wait for answers")
      ->check(CLI::Range(10, 600'000))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  if (!serve.empty()) return serve_metrics(serve, limit_ms);
  const auto question = trace.empty() && !json ? runtime::StatusQuestion::status
                                               : runtime::StatusQuestion::operations;
  const auto answers = status::ask_all(question, limit_ms);
  if (!answers.is_ok()) return report(answers.status());
  const status::Gathered gathered = status::read(*answers, host_name());
  if (!trace.empty()) {
    std::ofstream file(trace);
    file << status::trace_of(gathered.processes) << std::flush;
    if (!file) return report(system_error(errno, trace));
  }
  std::fputs((json ? status::json_of(gathered) : status::text_of(gathered)).c_str(), stdout);
  return gathered.well() ? 0 : 1;
}
