// Strings and numbers as JSON has them; see json_text.h.
#include "base/json_text.h"

#include <fmt/format.h>

#include <cmath>

namespace railccl {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

/// The length of the character that `text` begins with; 0: it begins with none.
size_t character(std::string_view text) {
  const auto byte = [&](size_t index) {
    return index < text.size() ? static_cast<unsigned char>(text[index]) : 0u;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return 0;
  for (size_t i = 1; i < length; i++)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // Longer than they need to be, halves of pairs, and what is beyond the last one.
  const unsigned second = byte(1);
  if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
      (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f))
    return 0;
  return length;
}

}  // namespace

JsonText& JsonText::value(std::string_view text) {
  separate();
  text_ += '"';
  while (!text.empty()) {
    const size_t length = character(text);
    const char first = text.front();
    if (length == 0) {
      text_ += kReplacement;
    } else if (first == '"' || first == '\\') {
      text_ += {'\\', first};
    } else if (static_cast<unsigned char>(first) < 0x20) {
      text_ += fmt::format("\\u{:04x}", static_cast<unsigned>(first));
    } else {
      text_ += text.substr(0, length);
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  text_ += '"';
  return *this;
}

JsonText& JsonText::value(double number) {
  return std::isfinite(number) ? raw(fmt::format("{}", number)) : null();
}

}  // namespace railccl
