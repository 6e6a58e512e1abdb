// fuzz-link: railccl_runtime
// Rails that were found, from a file that anything may have written over or from rank 0, and what
// hosts tell of a probe: rails of this network that read back equal, or a refusal.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "runtime/find_rails.h"
#include "runtime/rails_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl;
  topology::FlatNetwork network;
  network.hosts = {
      {{0, true, ""}, {1, true, ""}}, {{0, true, ""}, {3, false, ""}}, {{2, true, ""}}};
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const auto& [flow, value] : runtime::decode_values(text))
    if (!std::isfinite(value) || value < 0) std::abort();
  const auto found = runtime::parse_rails(text, "f", network);
  if (!found.is_ok()) {
    if (found.status().code() != Code::invalid_argument) std::abort();
    return 0;
  }
  size_t nics = 0;
  for (const auto& rail : found->rails) nics += rail.size();
  if (nics != 5 || found->leaves.size() != found->rails.size()) std::abort();
  const auto again = runtime::parse_rails(runtime::rails_text(*found, "f"), "f", network);
  if (!again.is_ok() || !(*again == *found)) std::abort();
  return 0;
}
