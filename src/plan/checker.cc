// Checker: gathers all ranks' programs and hands them to a CheckRun.
#include "plan/checker.h"

#include "plan/check_run.h"

namespace railccl::plan {

uint64_t CheckReport::sent_by(int rank) const {
  uint64_t sum = 0;
  for (const auto& [edge, count] : bytes)
    if (edge.first == rank) sum += count;
  return sum;
}

uint64_t CheckReport::received_by(int rank) const {
  uint64_t sum = 0;
  for (const auto& [edge, count] : bytes)
    if (edge.second == rank) sum += count;
  return sum;
}

Result<CheckReport> check(const Request& request, int ranks,
                          const std::function<Result<Program>(int rank)>& make,
                          const CheckOptions& options) {
  if (ranks < 1) return Status(Code::invalid_argument, "{} ranks", ranks);
  const size_t n = static_cast<size_t>(ranks);
  for (const std::vector<int>* placement : {&options.host_of, &options.rail_of})
    if (!placement->empty() && placement->size() != n)
      return Status(Code::invalid_argument, "a placement of {} ranks for a plan of {}",
                    placement->size(), ranks);
  if (options.send_window < 1)
    return Status(Code::invalid_argument, "a send window of {}", options.send_window);
  std::vector<Program> programs;
  programs.reserve(n);
  for (int rank = 0; rank < ranks; rank++) {
    Result<Program> made = make(rank);
    if (!made) return made.status().context("rank {}: no program", rank);
    const Program& program = programs.emplace_back(std::move(made).value());
    if (program.rank != rank || program.ranks != ranks)
      return Status(Code::internal, "rank {} of {}: the program is for rank {} of {}", rank, ranks,
                    program.rank, program.ranks);
    if (program.request != request)
      return Status(Code::internal, "rank {}: the program is for {}, not for {}", rank,
                    text_of(program.request), text_of(request));
    RAILCCL_CHECK(validate(program));
  }
  return CheckRun(request, programs, options).run();
}

}  // namespace railccl::plan
