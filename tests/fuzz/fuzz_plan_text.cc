// fuzz-link: railccl_plan
// Fuzzes the plan parser and the checker behind it: any bytes are a valid program, which prints and
// reads back equal and can be checked, or are refused with a line.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "plan/checker.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::plan;
  const auto program = parse({reinterpret_cast<const char*>(data), size});
  if (!program.is_ok()) {
    if (program.status().code() != railccl::Code::invalid_argument) std::abort();
    return 0;
  }
  if (!validate(*program).is_ok()) std::abort();
  const auto again = parse(print(*program));
  if (!again.is_ok() || !(*again == *program)) std::abort();
  // All ranks run the same steps: rarely right, but nothing may go wrong in finding out.
  constexpr int kRanksMax = 64;
  if (program->ranks > kRanksMax) return 0;
  CheckOptions options;
  options.steps_max = 2000;
  options.load_store = [](int, int, Buffer) { return true; };
  const auto make = [&](int rank) -> railccl::Result<Program> {
    Program mine = *program;
    mine.rank = rank;
    return mine;
  };
  const auto report = check(program->request, program->ranks, make, options);
  if (!report.is_ok() && report.status().text().empty()) std::abort();
  return 0;
}
