// fuzz-link: railccl_runtime
// The file of measured speeds, which anything may have written over: plausible speeds that read
// back equal, or a refusal.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "runtime/host_speeds.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto speeds = runtime::parse_speeds(text, "m");
  if (!speeds.is_ok()) {
    if (speeds.status().code() != Code::invalid_argument) std::abort();
    return 0;
  }
  for (const topology::SpeedRow& row : topology::kSpeedRows)
    if (!topology::plausible(row, (*speeds).*row.member)) std::abort();
  const auto again = runtime::parse_speeds(runtime::speeds_file_text(*speeds, "m"), "m");
  if (!again.is_ok() || !(*again == *speeds)) std::abort();
  return 0;
}
