// Finding and opening plugins, and their way to the log.
#include "base/plugin.h"

#include <dlfcn.h>
#include <link.h>
#include <strings.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>

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

struct Library {
  void* handle = nullptr;
  std::string file;
};

Result<Library> open(std::string_view name, std::string_view prefix) {
  std::string why;
  for (const std::string& file : plugin_files(name, prefix)) {
    if (void* const handle = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL); handle != nullptr) {
      link_map* map = nullptr;
      const bool known = ::dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && map != nullptr;
      return Library{handle, known && map->l_name != nullptr ? map->l_name : file};
    }
    const char* const error = ::dlerror();
    why += fmt::format("{}{}", why.empty() ? "" : "; ", error == nullptr ? file : error);
  }
  return Status(Code::unsupported, "no plugin can be opened: {}", why);
}

Result<Plugin> look_for(std::string_view name, std::string_view prefix, const PluginInterface& of) {
  RAILCCL_TRY(const Library library, open(name, prefix));
  for (int version = of.newest; version >= of.oldest; version--) {
    const std::string symbol = fmt::format("{}{}", of.symbol, version);
    const void* const functions = ::dlsym(library.handle, symbol.c_str());
    if (functions != nullptr) return Plugin{version, functions, library.file};
  }
  return Status(Code::unsupported, "{} has no {}{} to v{}", library.file, of.symbol, of.oldest,
                of.newest);
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

Result<Plugin> find_plugin(const std::string& name, const std::string& prefix,
                           const PluginInterface& of) {
  using Key = std::tuple<std::string, std::string, std::string>;
  static std::mutex mutex;
  static auto* const known = new std::map<Key, Result<Plugin>>;
  std::lock_guard lock(mutex);
  Key key(name, prefix, of.symbol);
  if (const auto found = known->find(key); found != known->end()) return found->second;
  return known->emplace(std::move(key), look_for(name, prefix, of)).first->second;
}

void warn_of_plugin(const std::string& text) {
  static std::mutex mutex;
  static auto* const told = new std::set<std::string>;
  std::lock_guard lock(mutex);
  if (told->insert(text).second) log::warn("{}", text);
}

}  // namespace railccl
