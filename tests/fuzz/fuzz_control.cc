// fuzz-link: railccl_runtime
// Messages of the control tree: what the parser accepts must mean the same after a round trip.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "runtime/control_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::runtime;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto parsed = parse_control(bytes, 64);
  if (!parsed.is_ok()) return 0;
  const auto again = parse_control(encode(*parsed), 64);
  if (!again.is_ok() || !(*again == *parsed)) std::abort();
  return 0;
}
