// Conf files: finding, reading, and which one counts.
#include "base/conf_files.h"

#include <fstream>

namespace railccl {
namespace {

std::string_view trim_end(std::string_view text) {
  const size_t last = text.find_last_not_of(" \t\r");
  return text.substr(0, last == std::string_view::npos ? 0 : last + 1);
}

std::string_view trim_start(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(" \t"), text.size()));
}

void add_file(const std::string& path, ConfValues* values) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kConfBytesMax, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  for (auto& [name, value] : parse_conf(text)) values->try_emplace(name, ConfValue{value, path});
}

}  // namespace

std::map<std::string, std::string> parse_conf(std::string_view text) {
  std::map<std::string, std::string> values;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trim_start(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t equals = line.find('=');
    if (line.empty() || line.front() == '#' || equals == std::string_view::npos) continue;
    const std::string_view name = trim_end(line.substr(0, equals));
    const bool ours = name.starts_with("NCCL_") || name.starts_with("RAILCCL_");
    // A value with a zero byte would be read as a shorter one.
    if (!ours || line.find('\0') != std::string_view::npos) continue;
    values.try_emplace(std::string(name), trim_end(trim_start(line.substr(equals + 1))));
  }
  return values;
}

ConfValues conf_values(const std::function<const char*(const char*)>& get,
                       const std::string& system_file) {
  ConfValues values;
  const char* const named = get("NCCL_CONF_FILE");
  const char* const home = get("HOME");
  if (named != nullptr && *named != 0) {
    add_file(named, &values);
  } else if (home != nullptr && *home != 0) {
    add_file(std::string(home) + "/.nccl.conf", &values);
  }
  add_file(system_file, &values);
  return values;
}

}  // namespace railccl
