// fuzz-link: railccl_runtime
// Headers of messages between ranks: whatever is taken for one means exactly the bytes it came
// from and can be told to people. The input is a row of headers.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "runtime/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace railccl::runtime;
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  for (; size >= kHeaderBytes; bytes += kHeaderBytes, size -= kHeaderBytes) {
    Header header;
    if (!decode(bytes, &header)) continue;
    const HeaderBytes again = encode(header);
    if (!std::equal(again.begin(), again.end(), bytes)) std::abort();
    if (header.bytes > kMessageBytesMax) std::abort();
    if (text_of(header, true).empty() || text_of(header, false).empty()) std::abort();
    Header read_back;
    if (!decode(again.data(), &read_back) || !(read_back == header)) std::abort();
  }
  return 0;
}
