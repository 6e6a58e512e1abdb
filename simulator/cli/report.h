// Report of railccl-sim: rows as a table like railccl-bench's, or as JSON lines.
#pragma once

#include <string>

#include "options.h"
#include "plan/plan.h"
#include "simulator/simulation.h"

namespace railccl::simulator {

struct Row {
  plan::Request request;
  uint64_t bytes = 0;  // as nccl-tests counts them
  std::string algorithm;
  plan::Tuning tuning;
  double predicted_s = 0;  // by the cost model
  double bound_s = 0;
  Report simulated;
  double processor_s = 0;  // that the simulation took
};

void print_header(const SimOptions& options);
void print_row(const SimOptions& options, const Row& row);
/// What the simulations took: processor time, and the largest memory of this process so far.
void print_footer(const SimOptions& options, double processor_s);

}  // namespace railccl::simulator
