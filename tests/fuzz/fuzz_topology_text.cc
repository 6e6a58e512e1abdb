// fuzz-link: railccl_topology
// Fuzzes the topology file and facts parsers: whatever they take must be sound (indices lead
// somewhere) and read back equal from what the writers make of it.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "topology/draw.h"
#include "topology/facts.h"
#include "topology/merge.h"
#include "topology/text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::topology;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto read = from_text(text); read.is_ok()) {
    const auto again = from_text(to_text(*read));
    if (!again.is_ok() || !(*again == *read)) std::abort();
    for (int r = 0; r < read->size(); r++) {
      (void)read->path(0, r);
      (void)why_nic(*read, r);
    }
    (void)draw_svg(*read);
  }
  if (const auto read = decode(text); read.is_ok()) {
    const auto again = decode(encode(*read));
    if (!again.is_ok() || !(*again == *read)) std::abort();
    Facts other = *read;
    other.host.id++;
    (void)merge({*read, other, *read});
  }
  return 0;
}
