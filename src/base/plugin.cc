// Finding and opening plugins, and their way to the log.
#include "base/plugin.h"

#include <dlfcn.h>
#include <link.h>
#include <strings.h>

#include <array>
#include <cstdarg>
#include <cstdio>

#include "base/log.h"

namespace railccl {
namespace {

constexpr std::array<const char*, 9> kResults = {
    "ncclSuccess",       "ncclUnhandledCudaError", "ncclSystemError",
    "ncclInternalError", "ncclInvalidArgument",    "ncclInvalidUsage",
    "ncclRemoteError",   "ncclInProgress",         "ncclTimeout"};

// NCCL's levels, as plugins know them.
constexpr int kWarn = 2, kInfo = 3;

[[gnu::format(printf, 5, 6)]] void write_log(int level, unsigned long, const char* file, int line,
                                             const char* format, ...) {
  const log::Level as = level <= kWarn   ? log::Level::warn
                        : level == kInfo ? log::Level::info
                                         : log::Level::trace;
  if (!log::enabled(as)) return;
  std::array<char, 1024> text{};
  va_list arguments;
  va_start(arguments, format);
  (void)std::vsnprintf(text.data(), text.size(), format, arguments);
  va_end(arguments);
  log::write(as, fmt::format("plugin: {}:{}: {}", file == nullptr ? "?" : file, line, text.data()));
}

}  // namespace

std::string plugin_result_text(PluginResult result) {
  const bool known = result >= 0 && static_cast<size_t>(result) < kResults.size();
  return fmt::format("{} ({})", result,
                     known ? kResults[static_cast<size_t>(result)] : "no code of NCCL's");
}

Code plugin_code(PluginResult result) {
  constexpr PluginResult kInvalidUsage = 5, kRemote = 6;
  if (result == kRemote) return Code::remote;
  return result == kInvalidUsage ? Code::invalid_usage : Code::system;
}

PluginLogger plugin_logger() { return write_log; }

std::vector<std::string> plugin_files(std::string_view name, std::string_view prefix) {
  if (name.empty()) return {fmt::format("{}.so", prefix)};
  const bool file = name.find('/') != std::string_view::npos ||
                    (name.starts_with("lib") && name.ends_with(".so"));
  if (file) return {std::string(name)};
  return {std::string(name), fmt::format("{}-{}.so", prefix, name)};
}

std::vector<std::string> plugin_names(std::string_view list) {
  std::vector<std::string> names;
  if (strcasecmp(std::string(list).c_str(), "none") == 0) return names;
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (comma != 0) names.emplace_back(list.substr(0, comma));
    list.remove_prefix(comma == std::string_view::npos ? list.size() : comma + 1);
  }
  return names;
}

Result<PluginLibrary> PluginLibrary::open(std::string_view name, std::string_view prefix) {
  std::string why;
  for (const std::string& file : plugin_files(name, prefix)) {
    PluginLibrary library;
    library.handle_ = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library.handle_ != nullptr) {
      link_map* map = nullptr;
      const bool known = ::dlinfo(library.handle_, RTLD_DI_LINKMAP, &map) == 0 && map != nullptr;
      library.file_ = known && map->l_name != nullptr ? map->l_name : file;
      return library;
    }
    const char* const error = ::dlerror();
    why += fmt::format("{}{}", why.empty() ? "" : "; ", error == nullptr ? file : error);
  }
  return Status(Code::unsupported, "no plugin can be opened: {}", why);
}

void* PluginLibrary::find(const std::string& symbol) const {
  return ::dlsym(handle_, symbol.c_str());
}

}  // namespace railccl
