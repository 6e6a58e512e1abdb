// fuzz-link: railccl_transport
// Fuzzes what nccl_net hears from others: published addresses, cards and messages (the first byte
// of the input picks one). Accepted forms must read back equal.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "transport/net_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::transport;
  if (size == 0) return 0;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data) + 1, size - 1);
  if (data[0] % 3 == 0) {
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto address = decode_net_address(text);
    if (!address) return 0;
    const auto again = decode_net_address(encode(*address));
    if (!again || encode(*again) != encode(*address)) std::abort();
  } else if (data[0] % 3 == 1) {
    const auto card = decode_net_card(bytes);
    if (card && decode_net_card(encode(*card)) != card) std::abort();
  } else {
    const auto header = decode_net_header(bytes);
    if (!header) return 0;
    const NetHeaderBytes again = encode(*header);
    if (!std::equal(again.begin(), again.end(), bytes.begin())) std::abort();
  }
  return 0;
}
