// Report of railccl-sim: printing.
#include "report.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace railccl::simulator {

namespace {

/// What turns size over time into the bandwidth of the busiest port, as nccl-tests defines it.
double bus_factor(Collective collective, int ranks) {
  switch (collective) {
    case Collective::all_reduce:
      return 2.0 * (ranks - 1) / ranks;
    case Collective::broadcast:
    case Collective::reduce:
      return 1;
    default:
      return 1.0 * (ranks - 1) / ranks;
  }
}

struct Figures {
  double time_us, algbw_gbs, busbw_gbs, predicted_us, bound_us;
};

Figures figures_of(const SimOptions& options, const Row& row) {
  const double seconds = row.simulated.seconds;
  const double algbw = seconds > 0 ? static_cast<double>(row.bytes) / seconds / 1e9 : 0;
  return {seconds * 1e6, algbw, algbw * bus_factor(options.collective, options.topology.size()),
          row.predicted_s * 1e6, row.bound_s * 1e6};
}

int digits(double us) { return us >= 10000 ? 0 : us >= 1000 ? 1 : 2; }

void print_json(const SimOptions& options, const Row& row) {
  const Figures figures = figures_of(options, row);
  nlohmann::ordered_json line = {{"collective", name_of(options.collective)},
                                 {"bytes", row.bytes},
                                 {"count", row.request.count},
                                 {"type", name_of(options.type)},
                                 {"ranks", options.topology.size()},
                                 {"hosts", options.topology.used_hosts().size()},
                                 {"time_us", figures.time_us},
                                 {"algbw_gbs", figures.algbw_gbs},
                                 {"busbw_gbs", figures.busbw_gbs},
                                 {"predicted_us", figures.predicted_us},
                                 {"bound_us", figures.bound_us},
                                 {"algorithm", row.algorithm},
                                 {"channels", row.tuning.channels},
                                 {"chunk_elements", row.tuning.chunk_elements},
                                 {"bytes_between_hosts", row.simulated.inter_host_bytes},
                                 {"bytes_of_rails", row.simulated.bytes_of_rail},
                                 {"spine_bytes", row.simulated.spine_bytes},
                                 {"folds", row.simulated.folds},
                                 {"steps", row.simulated.steps},
                                 {"events", row.simulated.events},
                                 {"processor_s", row.processor_s}};
  if (const LinkLoad* most = row.simulated.most_loaded(); most != nullptr)
    line["most_loaded"] = {{"link", most->link.name}, {"bytes", most->bytes}, {"used", most->used}};
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace

void print_header(const SimOptions& options) {
  if (options.json) return;
  const topology::Topology& topology = options.topology;
  std::printf("# railccl-sim %s  %s  %d ranks on %zu hosts, %zu rails, spine 1:%g; out of place\n",
              RAILCCL_VERSION, name_of(options.collective), topology.size(),
              topology.used_hosts().size(), topology.rails().size(), topology.oversubscription());
  std::printf("#%11s %11s %9s %10s %7s %7s %10s %10s %6s %12s %12s  %s\n", "size", "count", "type",
              "time", "algbw", "busbw", "predicted", "bound", "of", "most on a", "on the",
              "algorithm, most loaded link");
  std::printf("#%11s %11s %9s %10s %7s %7s %10s %10s %6s %12s %12s\n", "(B)", "(elements)", "",
              "(us)", "(GB/s)", "(GB/s)", "(us)", "(us)", "bound", "rail (B)", "spine (B)");
}

void print_row(const SimOptions& options, const Row& row) {
  if (options.json) return print_json(options, row);
  const Figures figures = figures_of(options, row);
  uint64_t rail = 0;
  for (const uint64_t bytes : row.simulated.bytes_of_rail) rail = std::max(rail, bytes);
  std::printf(" %11llu %11llu %9s %10.*f %7.2f %7.2f %10.*f %10.*f",
              static_cast<unsigned long long>(row.bytes),
              static_cast<unsigned long long>(row.request.count), name_of(options.type),
              digits(figures.time_us), figures.time_us, figures.algbw_gbs, figures.busbw_gbs,
              digits(figures.predicted_us), figures.predicted_us, digits(figures.bound_us),
              figures.bound_us);
  std::printf(" %5.0f%% %12llu %12llu  %s",
              figures.time_us > 0 ? 100 * figures.bound_us / figures.time_us : 0.0,
              static_cast<unsigned long long>(rail),
              static_cast<unsigned long long>(row.simulated.spine_bytes), row.algorithm.c_str());
  if (const LinkLoad* most = row.simulated.most_loaded(); most != nullptr)
    std::printf(", %s %.0f%%", most->link.name.c_str(), 100 * most->used);
  if (row.simulated.folds > 1) std::printf(", %d ranks as one", row.simulated.folds);
  std::printf("\n");
  std::fflush(stdout);
}

void print_footer(const SimOptions& options, double processor_s) {
  if (options.json) return;
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  std::printf("# simulated in %.2f s of processor time, %ld MiB of memory\n", processor_s,
              usage.ru_maxrss / 1024);
}

}  // namespace railccl::simulator
