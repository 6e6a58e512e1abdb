// fuzz-link: railccl_transport
// Fuzzes what verbs hears from others before a queue pair is connected: published addresses and
// cards (the first byte of the input picks one). Accepted forms must read back equal.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "transport/verbs_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::transport;
  if (size == 0) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto address = decode_verbs_address(text);
    if (!address) return 0;
    const auto again = decode_verbs_address(encode(*address));
    if (!again || encode(*again) != encode(*address)) std::abort();
  } else {
    const auto card = decode_verbs_card(bytes);
    if (card && decode_verbs_card(encode(*card)) != card) std::abort();
  }
  return 0;
}
