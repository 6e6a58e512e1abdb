// fuzz-link: railccl_topology
// Fuzzes synthetic descriptions, RAILCCL_RAILS and interface addresses: each is a sound topology
// that reads back from its text, or an error with a text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/interfaces.h"
#include "topology/rails.h"
#include "topology/synthetic.h"
#include "topology/text.h"

namespace {

/// Clusters of thousands of hosts are sound, but take seconds that are better spent on more inputs.
bool has_long_number(const std::string& text) {
  int digits = 0;
  for (const char c : text) {
    digits = c >= '0' && c <= '9' ? digits + 1 : 0;
    if (digits > 2) return true;
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::topology;
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto address = railccl::parse_address(text); address.is_ok()) {
    const auto again = railccl::parse_address(railccl::text_of(*address));
    if (!again.is_ok()) std::abort();
    if (!railccl::same_subnet(*address, again->address)) std::abort();
  }
  Host host;
  host.nics.resize(1);
  host.nics[0].name = "eth0";
  if (const auto status = set_rails_by_hand(text, host); !status.is_ok() && status.text().empty())
    std::abort();
  if (has_long_number(text)) return 0;
  const auto made = synthetic(text);
  if (!made.is_ok()) {
    if (made.status().text().empty()) std::abort();
    return 0;
  }
  const auto again = from_text(to_text(*made));
  if (!again.is_ok() || !(*again == *made)) std::abort();
  return 0;
}
