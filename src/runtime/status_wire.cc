// Names and questions; see status_wire.h.
#include "runtime/status_wire.h"

#include <fmt/format.h>

#include <charconv>

namespace railccl::runtime {
namespace {

constexpr std::string_view kPrefix = "railccl-status/";

/// Takes a number in its only spelling, up to `until` or the end.
bool take(std::string_view* text, int base, char until, uint64_t* number) {
  const auto [end, error] =
      std::from_chars(text->data(), text->data() + text->size(), *number, base);
  const auto used = static_cast<size_t>(end - text->data());
  if (error != std::errc()) return false;
  const std::string spelled =
      base == 16 ? fmt::format("{:x}", *number) : fmt::format("{}", *number);
  if (text->substr(0, used) != spelled) return false;
  text->remove_prefix(used);
  if (until == 0) return text->empty();
  if (text->empty() || text->front() != until) return false;
  text->remove_prefix(1);
  return true;
}

}  // namespace

std::string encode(const StatusName& name) {
  return fmt::format("{}{}/{}/{:x}", kPrefix, name.user, name.process, name.nonce);
}

std::optional<StatusName> parse_status_name(std::string_view text) {
  if (!text.starts_with(kPrefix)) return std::nullopt;
  text.remove_prefix(kPrefix.size());
  StatusName name;
  if (!take(&text, 10, '/', &name.user) || !take(&text, 10, '/', &name.process) ||
      !take(&text, 16, 0, &name.nonce))
    return std::nullopt;
  return name;
}

std::string encode(StatusQuestion question) {
  return question == StatusQuestion::operations ? "operations\n" : "status\n";
}

std::optional<StatusQuestion> parse_question(std::string_view line) {
  for (const auto question : {StatusQuestion::status, StatusQuestion::operations})
    if (line == encode(question)) return question;
  return std::nullopt;
}

}  // namespace railccl::runtime
