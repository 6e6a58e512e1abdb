// Plugins: shared libraries behind NCCL's plugin interfaces (networks, tuners, profilers): how they
// are found by the variables that name them, and what all of these interfaces have in common.
//
// A library that was opened stays: plugins leave threads and handlers behind. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace railccl {

/// What plugins' functions return: NCCL's result codes.
using PluginResult = int;
inline constexpr PluginResult kPluginSuccess = 0;
/// "2 (ncclSystemError)".
std::string plugin_result_text(PluginResult result);
/// The nearest of our codes.
Code plugin_code(PluginResult result);

/// Through which plugins write to the log of the library that has loaded them.
using PluginLogger = void (*)(int level, unsigned long topics, const char* file, int line,
                              const char* format, ...);
PluginLogger plugin_logger();

/// One of NCCL's interfaces: of version 5 of ours, `symbol` with a 5 is the table of functions.
struct PluginInterface {
  const char* symbol;  // "ncclTunerPlugin_v"
  int oldest, newest;
};

/// What an opened library has of an interface: the newest version of ours.
struct Plugin {
  int version = 0;
  const void* functions = nullptr;
  std::string file;  // as the loader found it
};

/// Opens the first of plugin_files() that can be opened. Looked for once per process: whoever asks
/// again gets the same answer. Fails with unsupported, and the loader's words for each file, or the
/// versions that it lacks.
Result<Plugin> find_plugin(const std::string& name, const std::string& prefix,
                           const PluginInterface& of);
/// To the log, but once per process: every communicator finds the same out anew.
void warn_of_plugin(const std::string& text);

/// The files that a name may mean, as NCCL tries them. With the prefix "libnccl-net": empty means
/// libnccl-net.so, a path or a file's name itself, and "ofi" the file ofi, then libnccl-net-ofi.so.
std::vector<std::string> plugin_files(std::string_view name, std::string_view prefix);
/// Names separated by commas; nothing for "none", in any case.
std::vector<std::string> plugin_names(std::string_view list);

}  // namespace railccl
