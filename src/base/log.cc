// The log's sink: spdlog to stderr or a file, level from NCCL_DEBUG.
#include "base/log.h"

#include <dlfcn.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <strings.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <string>

#include "base/settings.h"

namespace railccl::log {

std::atomic<int> level{static_cast<int>(Level::warn)};

namespace {

std::string expand(const std::string& pattern) {
  std::string path;
  for (size_t i = 0; i < pattern.size(); i++) {
    if (pattern[i] == '%' && i + 1 < pattern.size()) {
      const char kind = pattern[++i];
      if (kind == 'h') {
        char host[256] = {};
        gethostname(host, sizeof host - 1);
        path += host;
      } else if (kind == 'p') {
        path += std::to_string(getpid());
      } else {
        path += kind;
      }
    } else {
      path += pattern[i];
    }
  }
  return path;
}

std::shared_ptr<spdlog::logger> make_sink() {
  const Result<Settings> settings = Settings::load();
  std::shared_ptr<spdlog::logger> sink;
  if (settings.is_ok() && !settings->debug_file.empty()) {
    try {  // a log that cannot be written must not stop the program
      sink = std::make_shared<spdlog::logger>(
          "railccl",
          std::make_shared<spdlog::sinks::basic_file_sink_mt>(expand(settings->debug_file)));
    } catch (const spdlog::spdlog_ex&) {
      sink = nullptr;
    }
  }
  if (sink == nullptr)
    sink = std::make_shared<spdlog::logger>("railccl",
                                            std::make_shared<spdlog::sinks::stderr_sink_mt>());
  sink->set_pattern("%H:%M:%S.%e railccl[%P:%t] %v");
  sink->set_level(spdlog::level::trace);
  sink->flush_on(spdlog::level::trace);
  return sink;
}

const std::shared_ptr<spdlog::logger>& sink() {
  // Leaked on purpose: threads may log while the process exits.
  static auto* logger = new std::shared_ptr<spdlog::logger>(make_sink());
  return *logger;
}

const char* word(Level severity) {
  switch (severity) {
    case Level::error:
      return "ERROR";
    case Level::warn:
      return "WARN";
    case Level::info:
      return "INFO";
    case Level::trace:
      return "TRACE";
    case Level::none:
      break;
  }
  return "VERSION";
}

/// Which library has been loaded, for those who want to be sure that it is this one.
void tell_version(int64_t answer) {
  Dl_info place{};
  const bool found = ::dladdr(reinterpret_cast<const void*>(&init), &place) != 0;
  write(Level::none, fmt::format("railccl {}, which answers as NCCL {}, from {}", RAILCCL_VERSION,
                                 answer, found ? place.dli_fname : "an unknown place"));
}

}  // namespace

void init() {
  static std::once_flag once;
  std::call_once(once, [] {
    const Result<Settings> settings = Settings::load();
    if (!settings.is_ok()) return;
    const std::string& debug = settings->debug;
    if (strcasecmp(debug.c_str(), "TRACE") == 0) set_level(Level::trace);
    if (strcasecmp(debug.c_str(), "INFO") == 0) set_level(Level::info);
    if (strcasecmp(debug.c_str(), "NONE") == 0) set_level(Level::none);
    if (strcasecmp(debug.c_str(), "VERSION") == 0 || enabled(Level::info))
      tell_version(settings->nccl_version);
  });
}

void set_level(Level wanted) { level.store(static_cast<int>(wanted), std::memory_order_relaxed); }

void write(Level severity, std::string_view message) {
  sink()->log(spdlog::level::critical, "{} {}", word(severity), message);
}

}  // namespace railccl::log
