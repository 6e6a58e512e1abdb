// railccl-sim: what collectives would take on clusters that need not exist.
#include <cstdio>
#include <ctime>

#include "options.h"
#include "report.h"
#include "runtime/chooser.h"
#include "runtime/cost.h"

namespace {

using namespace railccl;
using namespace railccl::simulator;

/// Collectives whose size is that of a block per rank, together.
bool has_blocks(Collective collective) {
  return collective != Collective::all_reduce && collective != Collective::broadcast &&
         collective != Collective::reduce;
}

/// The chooser as communicators have it, but deaf to the environment: the command line says it all.
Result<runtime::Chooser> make_chooser(const SimOptions& options) {
  Settings settings;
  if (options.algorithm != "auto") settings.algo = options.algorithm;
  settings.chunk_bytes = options.chunk_bytes;
  return runtime::Chooser::make(settings, options.channels, options.channels, true);
}

Result<Row> simulate_size(const SimOptions& options, const runtime::Chooser& chooser,
                          uint64_t bytes) {
  Row row;
  plan::Request& request = row.request;
  request.collective = options.collective;
  request.datatype = options.type;
  request.op = reduces(options.collective) ? options.op : Reduction::none;
  request.root = rooted(options.collective) ? options.root : 0;
  const uint64_t blocks =
      has_blocks(options.collective) ? static_cast<uint64_t>(options.topology.size()) : 1;
  request.count = bytes / size_of(options.type) / blocks;
  row.bytes = request.count * blocks * size_of(options.type);
  RAILCCL_TRY(const runtime::Chosen chosen, chooser.choose(request, options.topology));
  row.algorithm = chosen.algorithm->name;
  row.tuning = chosen.tuning;
  row.predicted_s = chosen.predicted_s;
  row.bound_s = runtime::bound_seconds(request, options.topology);
  const std::clock_t start = std::clock();
  RAILCCL_TRY(row.simulated, simulate(
                                 request, options.topology,
                                 [&](int rank) {
                                   return chosen.algorithm->build(request, options.topology,
                                                                  chosen.tuning, rank);
                                 },
                                 options.simulation));
  row.processor_s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  return row;
}

Status simulate_all(const SimOptions& options) {
  RAILCCL_TRY(const runtime::Chooser chooser, make_chooser(options));
  print_header(options);
  double processor_s = 0;
  for (const uint64_t bytes : options.sizes()) {
    RAILCCL_TRY(const Row row, simulate_size(options, chooser, bytes));
    print_row(options, row);
    processor_s += row.processor_s;
  }
  print_footer(options, processor_s);
  return ok();
}

}  // namespace

int main(int argc, char** argv) {
  SimOptions options;
  int exit_code = 0;
  if (!parse_options(argc, argv, &options, &exit_code)) return exit_code;
  const Status status = simulate_all(options);
  if (!status.is_ok()) {
    std::fprintf(stderr, "railccl-sim: %s\n", status.text().c_str());
    return 1;
  }
  return 0;
}
