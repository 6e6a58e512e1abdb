// Host speeds: this machine's measured speeds, from the cache file or by measuring now.
//
// A machine is measured once (measure.h) and the result kept in a file that all processes of the
// user share:
//
//     $XDG_CACHE_HOME/railccl/speeds-<key>.json        ($HOME/.cache when XDG_CACHE_HOME is not
//     set)
//
// The key is a hash of all that may change the figures: processor model, cores that may be used,
// caches, memory, kernel release, the instruction set of the kernels, how the library was built,
// and the version of the measurement. So machines that share a home folder keep files apart, and
// machines of one make share a file. It is written under another name and renamed. What is there is
// believed only if it is a plain file of this user that nobody else may write, in such a folder,
// with this machine's key and plausible figures; else a warning says why it is not, and the machine
// is measured anew. While one process measures, others wait for it (a lock file, bounded), so that
// they neither disturb it nor repeat it.
//
// Where no file can be kept the measurement is a quick one (about 0.2 s) and lasts for the process.
#pragma once

#include <string>

#include "base/settings.h"
#include "base/status.h"
#include "topology/speeds.h"

namespace railccl::runtime {

struct HostSpeeds {
  topology::Speeds speeds;  // not known() when RAILCCL_MEASURE=off or measuring failed
  std::string source;       // for people: "measured now, kept in /home/u/.cache/railccl/..."
};

/// Is RAILCCL_MEASURE one of auto, force, off?
Status check_measure_setting(const Settings& settings);

/// At most a few seconds; a process asks the machine once and remembers (force: also measures only
/// once per process). That measuring fails costs speed, nothing else: it is logged. Fails when the
/// setting is malformed. Any thread.
Result<HostSpeeds> host_speeds(const Settings& settings, uint64_t last_level_cache_bytes);

/// What a cache file with this `text` says about the machine that `machine_text()` gave `machine`
/// for. Hostile-safe; Code::invalid_argument says what is wrong.
Result<topology::Speeds> parse_speeds(const std::string& text, const std::string& machine);
/// The text of such a file.
std::string speeds_file_text(const topology::Speeds& speeds, const std::string& machine);

/// What the key of the cache file is a hash of, one "name=value" per line.
std::string machine_text(uint64_t last_level_cache_bytes);

}  // namespace railccl::runtime
