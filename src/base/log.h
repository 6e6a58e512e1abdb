// The log: error = cannot continue, warn = unexpected but continuing, info = once per object,
// trace = per operation. NCCL_DEBUG picks the level (default: WARN and above), NCCL_DEBUG_FILE the
// place (%h host, %p pid). A disabled line costs one relaxed load and a branch. Thread-safe.
#pragma once

#include <fmt/format.h>

#include <atomic>
#include <string_view>

namespace railccl::log {

enum class Level : int { none = 0, error = 1, warn = 2, info = 3, trace = 4 };

/// The level in force; read through enabled().
extern std::atomic<int> level;

inline bool enabled(Level wanted) {
  return static_cast<int>(wanted) <= level.load(std::memory_order_relaxed);
}

/// Reads NCCL_DEBUG and NCCL_DEBUG_FILE once; later calls do nothing.
void init();
void set_level(Level wanted);
void write(Level level, std::string_view message);

template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::error)) write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::warn)) write(Level::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::info)) write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void trace(fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(Level::trace)) write(Level::trace, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace railccl::log
