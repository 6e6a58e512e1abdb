// Settings: every environment variable the library reads, one row each in settings.def.
//
// A row names the variable, its kind, default, valid range and meaning; docs/environment.md and
// the help texts are generated from the same rows. A malformed value is an error that names the
// variable, the value and what was expected; it is never taken for a zero.
//
// Read once per communicator (load()), then passed down as a value: nothing else in the library
// calls getenv. What the environment leaves open configuration files may say (conf_files.h), which
// are read once per process. Immutable after load; safe to share between threads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace railccl {

struct Settings {
#define RAILCCL_SETTING_INT(member, variable, default_value, low, high, meaning) \
  int64_t member = default_value;
#define RAILCCL_SETTING_SIZE(member, variable, default_value, low, high, meaning) \
  uint64_t member = default_value;
#define RAILCCL_SETTING_BOOL(member, variable, default_value, meaning) bool member = default_value;
#define RAILCCL_SETTING_TEXT(member, variable, default_value, meaning) \
  std::string member = default_value;
#include "base/settings.def"
#undef RAILCCL_SETTING_INT
#undef RAILCCL_SETTING_SIZE
#undef RAILCCL_SETTING_BOOL
#undef RAILCCL_SETTING_TEXT

  /// From the process environment and configuration files.
  static Result<Settings> load();
  /// From any source; `get` returns null for an absent variable. For tests and configuration files.
  static Result<Settings> load(const std::function<const char*(const char*)>& get);
};

/// One row of the table, for generated documentation.
struct SettingRow {
  const char* variable;
  const char* kind;  // "integer", "size", "boolean", "text"
  std::string default_text;
  const char* meaning;
};
std::vector<SettingRow> setting_rows();

/// Where a variable's value comes from. Valid until the environment is changed.
struct SettingOrigin {
  const char* value = nullptr;  // null: nowhere, the default counts
  const char* file = nullptr;   // null: the environment
};
SettingOrigin origin_of(const char* variable);

/// The values of `settings`, as texts in the order of setting_rows(); numbers in decimal, sizes in
/// bytes, booleans as 0 or 1.
std::vector<std::string> setting_values(const Settings& settings);

}  // namespace railccl
