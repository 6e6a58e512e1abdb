// Settings: parsing of the environment into the table's members.
#include "base/settings.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "base/conf_files.h"

namespace railccl {
namespace {

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.remove_suffix(1);
  return text;
}

Status parse_int(const char* variable, std::string_view text, int64_t low, int64_t high,
                 int64_t& out) {
  text = trim(text);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    return Status(Code::invalid_argument, "{}={}: expected an integer from {} to {}", variable,
                  text, low, high);
  if (value < low || value > high)
    return Status(Code::invalid_argument, "{}={}: must be from {} to {}", variable, text, low,
                  high);
  out = value;
  return ok();
}

Status parse_size(const char* variable, std::string_view text, uint64_t low, uint64_t high,
                  uint64_t& out) {
  text = trim(text);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string_view suffix(end, static_cast<size_t>(text.data() + text.size() - end));
  int shift = -1;
  if (suffix.empty()) shift = 0;
  if (suffix == "K" || suffix == "k") shift = 10;
  if (suffix == "M" || suffix == "m") shift = 20;
  if (suffix == "G" || suffix == "g") shift = 30;
  if (error != std::errc() || shift < 0 || value > (~uint64_t{0} >> shift))
    return Status(Code::invalid_argument,
                  "{}={}: expected a size in bytes, with K, M or G for powers of 1024", variable,
                  text);
  value <<= shift;
  if (value < low || value > high)
    return Status(Code::invalid_argument, "{}={}: must be from {} to {} bytes", variable, text, low,
                  high);
  out = value;
  return ok();
}

Status parse_bool(const char* variable, std::string_view text, bool& out) {
  std::string lower(trim(text));
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (lower == "1" || lower == "true" || lower == "yes" || lower == "on") {
    out = true;
  } else if (lower == "0" || lower == "false" || lower == "no" || lower == "off") {
    out = false;
  } else {
    return Status(Code::invalid_argument, "{}={}: expected 0 or 1", variable, text);
  }
  return ok();
}

}  // namespace

SettingOrigin origin_of(const char* variable) {
  if (const char* value = std::getenv(variable)) return {value, nullptr};
  static const ConfValues* const values = new ConfValues(conf_values(std::getenv));
  const auto found = values->find(variable);
  if (found == values->end()) return {};
  return {found->second.value.c_str(), found->second.file.c_str()};
}

Result<Settings> Settings::load() {
  return load([](const char* variable) { return origin_of(variable).value; });
}

Result<Settings> Settings::load(const std::function<const char*(const char*)>& get) {
  Settings settings;
#define RAILCCL_SETTING_INT(member, variable, default_value, low, high, meaning) \
  if (const char* text = get(variable); text != nullptr && *text != 0)           \
    RAILCCL_CHECK(parse_int(variable, text, low, high, settings.member));
#define RAILCCL_SETTING_SIZE(member, variable, default_value, low, high, meaning) \
  if (const char* text = get(variable); text != nullptr && *text != 0)            \
    RAILCCL_CHECK(parse_size(variable, text, low, high, settings.member));
#define RAILCCL_SETTING_BOOL(member, variable, default_value, meaning) \
  if (const char* text = get(variable); text != nullptr && *text != 0) \
    RAILCCL_CHECK(parse_bool(variable, text, settings.member));
#define RAILCCL_SETTING_TEXT(member, variable, default_value, meaning) \
  if (const char* text = get(variable); text != nullptr) settings.member = text;
#include "base/settings.def"
#undef RAILCCL_SETTING_INT
#undef RAILCCL_SETTING_SIZE
#undef RAILCCL_SETTING_BOOL
#undef RAILCCL_SETTING_TEXT
  return settings;
}

std::vector<SettingRow> setting_rows() {
  std::vector<SettingRow> rows;
#define RAILCCL_SETTING_INT(member, variable, default_value, low, high, meaning) \
  rows.push_back({variable, "integer", fmt::format("{}", int64_t{default_value}), meaning});
#define RAILCCL_SETTING_SIZE(member, variable, default_value, low, high, meaning) \
  rows.push_back({variable, "size", fmt::format("{}", uint64_t{default_value}), meaning});
#define RAILCCL_SETTING_BOOL(member, variable, default_value, meaning) \
  rows.push_back({variable, "boolean", default_value ? "1" : "0", meaning});
#define RAILCCL_SETTING_TEXT(member, variable, default_value, meaning) \
  rows.push_back({variable, "text", default_value, meaning});
#include "base/settings.def"
#undef RAILCCL_SETTING_INT
#undef RAILCCL_SETTING_SIZE
#undef RAILCCL_SETTING_BOOL
#undef RAILCCL_SETTING_TEXT
  return rows;
}

std::vector<std::string> setting_values(const Settings& settings) {
  std::vector<std::string> values;
#define RAILCCL_SETTING_INT(member, variable, default_value, low, high, meaning) \
  values.push_back(fmt::format("{}", settings.member));
#define RAILCCL_SETTING_SIZE(member, variable, default_value, low, high, meaning) \
  values.push_back(fmt::format("{}", settings.member));
#define RAILCCL_SETTING_BOOL(member, variable, default_value, meaning) \
  values.push_back(settings.member ? "1" : "0");
#define RAILCCL_SETTING_TEXT(member, variable, default_value, meaning) \
  values.push_back(settings.member);
#include "base/settings.def"
#undef RAILCCL_SETTING_INT
#undef RAILCCL_SETTING_SIZE
#undef RAILCCL_SETTING_BOOL
#undef RAILCCL_SETTING_TEXT
  return values;
}

}  // namespace railccl
