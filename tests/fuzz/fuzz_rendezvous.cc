// fuzz-link: railccl_runtime
// Everything that rendezvous reads from strangers: ids, hellos, replies, knocks, contributions,
// addresses. The first byte picks the parser; what a parser accepts must survive a round trip.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "runtime/rendezvous_wire.h"
#include "runtime/sockets.h"

namespace {

using namespace railccl;
using namespace railccl::runtime;

void expect(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 6) {
    case 0: {
      UniqueId id{};
      std::memcpy(id.data(), bytes.data(), std::min(bytes.size(), id.size()));
      if (const auto parsed = parse_identity(id); parsed.is_ok()) expect(encode(*parsed) == id);
      break;
    }
    case 1:
      if (const auto parsed = parse_hello(bytes); parsed.is_ok()) expect(encode(*parsed) == bytes);
      break;
    case 2:
      if (const auto parsed = parse_reply(bytes); parsed.is_ok())
        expect(parse_reply(encode(*parsed)).is_ok());
      break;
    case 3:
      if (const auto parsed = parse_knock(bytes); parsed.is_ok()) expect(encode(*parsed) == bytes);
      break;
    case 4: {
      Contributions all(8), again(8);
      if (!parse_contributions(bytes, &all).is_ok()) break;
      expect(parse_contributions(encode(all), &again).is_ok());
      expect(all == again);
      break;
    }
    case 5:
      if (const auto parsed = parse_endpoints(bytes); parsed.is_ok())
        for (const Endpoint& endpoint : *parsed) expect(parse_endpoints(text_of(endpoint)).is_ok());
      break;
  }
  return 0;
}
