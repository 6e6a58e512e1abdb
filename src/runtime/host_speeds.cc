// Host speeds: the cache file, its lock, and what is remembered in the process.
#include "runtime/host_speeds.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "base/owners.h"
#include "base/random.h"
#include "kernels/kernels.h"
#include "runtime/cache_folder.h"
#include "runtime/measure.h"
#include "runtime/measured_cores.h"

namespace railccl::runtime {

using nlohmann::json;
using topology::kSpeedRows;
using topology::SpeedRow;
using topology::Speeds;

namespace {

// To be raised whenever the same machine would give other figures: new code to measure with, new
// rows, another meaning of a row.
constexpr int kMeasurementVersion = 5;
constexpr size_t kFileBytesMax = 64 << 10;
// Longer than a measurement may take; a process that was stopped in the middle of one must not stop
// the others.
constexpr int64_t kLockWaitMs = kMeasureMsMax + 2000;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr const char* kBuild = "sanitized";
#elif defined(__OPTIMIZE__)
constexpr const char* kBuild = "optimized";
#else
constexpr const char* kBuild = "unoptimized";
#endif

/// The processor's name, from the first entry that has one.
std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  std::string text;
  for (std::string line; std::getline(file, line) && !line.empty();)
    for (const char* key : {"model name", "cpu family", "model\t", "stepping", "CPU implementer",
                            "CPU part", "CPU variant", "cache size"})
      if (line.starts_with(key)) text += line.substr(line.find(':') + 1);
  return text;
}

/// One machine's file in the open folder.
class CacheFile {
 public:
  CacheFile(CacheFolder folder, std::string machine)
      : folder_(std::move(folder)),
        machine_(std::move(machine)),
        name_(fmt::format("speeds-{:016x}.json", hash_bytes(machine_.data(), machine_.size()))),
        path_(folder_.path() + '/' + name_) {}

  const std::string& path() const { return path_; }

  /// Nothing when it is not there or not to be believed.
  std::optional<Speeds> load() const {
    auto text = folder_.read(name_, kFileBytesMax);
    Status status = text.status();
    if (text.is_ok()) {
      if (!text->has_value()) return std::nullopt;
      auto speeds = parse_speeds(**text, machine_);
      if (speeds.is_ok()) return *speeds;
      status = speeds.status();
    }
    log::warn("not using measured speeds in {}: {}", path_, status.text());
    return std::nullopt;
  }

  Status save(const Speeds& speeds) const {
    return folder_.write(name_, speeds_file_text(speeds, machine_));
  }

  /// Takes the lock of whoever measures, free again when `*lock` closes. While somebody else has
  /// it, waits, looking whether `done`; false when that is so or it took too long. On file systems
  /// without locks everyone measures.
  bool take_lock(const std::function<bool()>& done, UniqueFd* lock) const {
    const std::string name = name_ + ".lock";
    *lock = UniqueFd(
        openat(folder_.fd(), name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    for (const Deadline deadline = Deadline::after_ms(kLockWaitMs); !deadline.passed();) {
      if (!*lock || flock(lock->get(), LOCK_EX | LOCK_NB) == 0) return true;
      if (errno != EWOULDBLOCK && errno != EINTR) return true;
      if (done()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

 private:
  CacheFolder folder_;
  std::string machine_;
  std::string name_;
  std::string path_;
};

HostSpeeds measured(Effort effort, uint64_t last_level_cache_bytes, std::string source) {
  const int64_t start = now_ns();
  const auto speeds = measure(cores_to_measure(), last_level_cache_bytes, effort);
  if (!speeds.is_ok()) {
    log::warn("this machine's speeds could not be measured: {}", speeds.status().text());
    return {{}, "could not be measured: " + speeds.status().text()};
  }
  log::info("measured this machine's speeds in {} ms", (now_ns() - start) / 1'000'000);
  return {*speeds, std::move(source)};
}

HostSpeeds find_speeds(const Settings& settings, uint64_t last_level_cache_bytes) {
  auto folder = CacheFolder::open(settings);
  if (!folder.is_ok()) {
    log::info("measured speeds cannot be kept: {}", folder.status().text());
    return measured(Effort::quick, last_level_cache_bytes,
                    "measured quickly, not kept: " + folder.status().text());
  }
  const CacheFile file(std::move(folder).value(), machine_text(last_level_cache_bytes));
  const bool force = settings.measure == "force";
  std::optional<Speeds> known;
  const auto look = [&] {
    if (!force) known = file.load();
    return known.has_value();
  };
  const auto kept = [&] { return HostSpeeds{*known, "kept in " + file.path()}; };
  if (look()) return kept();
  UniqueFd lock;
  const bool mine = file.take_lock(look, &lock);
  // Whoever had the lock before has measured meanwhile.
  if (known.has_value() || look()) return kept();
  if (!mine)
    return measured(Effort::quick, last_level_cache_bytes,
                    "measured quickly: another process has been measuring for too long");
  HostSpeeds fresh = measured(Effort::full, last_level_cache_bytes, "");
  if (!fresh.speeds.known()) return fresh;
  const Status saved = file.save(fresh.speeds);
  if (saved.is_ok()) {
    fresh.source = "measured now, kept in " + file.path();
  } else {
    fresh.source = "measured now, not kept: " + saved.text();
    log::warn("measured speeds cannot be kept in {}: {}", file.path(), saved.text());
  }
  return fresh;
}

}  // namespace

std::string machine_text(uint64_t last_level_cache_bytes) {
  utsname name = {};
  uname(&name);
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  // Half of the machines of one make differ by a few pages: whole gibibytes.
  const uint64_t gibibytes =
      (static_cast<uint64_t>(std::max(0L, pages)) * static_cast<uint64_t>(std::max(0L, page)) +
       (uint64_t{1} << 29)) >>
      30;
  std::string cpus;
  for (const int cpu : cores_to_measure()) cpus += fmt::format(" {}", cpu);
  return fmt::format(
      "version={}\nprocessor={}\ninstructions={}\nprocessors={}\ncores={}\ncache={}\n"
      "memory={} GiB\nkernel={} {}\nbuild={}\n",
      kMeasurementVersion, processor(), kernels::target_name(), sysconf(_SC_NPROCESSORS_CONF), cpus,
      last_level_cache_bytes, gibibytes, name.release, name.machine, kBuild);
}

Result<Speeds> parse_speeds(const std::string& text, const std::string& machine) {
  const json root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return Status(Code::invalid_argument, "it is not a JSON object");
  const auto machine_at = root.find("machine"), speeds_at = root.find("speeds");
  if (machine_at == root.end() || speeds_at == root.end() || !machine_at->is_string() ||
      !speeds_at->is_object())
    return Status(Code::invalid_argument, "it lacks a machine or speeds");
  if (machine_at->get_ref<const std::string&>() != machine)
    return Status(Code::invalid_argument, "it is about another machine");
  Speeds speeds;
  for (const SpeedRow& row : kSpeedRows) {
    const auto at = speeds_at->find(row.key);
    if (at == speeds_at->end() || !at->is_number())
      return Status(Code::invalid_argument, "{} is not a number", row.key);
    speeds.*row.member = at->get<double>();
    if (!topology::plausible(row, speeds.*row.member))
      return Status(Code::invalid_argument, "{}: no machine has {}", row.key, speeds.*row.member);
  }
  return speeds;
}

std::string speeds_file_text(const Speeds& speeds, const std::string& machine) {
  json numbers = json::object();
  for (const SpeedRow& row : kSpeedRows) numbers[row.key] = speeds.*row.member;
  const json root = {{"machine", machine}, {"speeds", numbers}};
  return root.dump(2, ' ', true, json::error_handler_t::replace) + '\n';
}

Status check_measure_setting(const Settings& settings) {
  for (const char* known : {"auto", "force", "off"})
    if (settings.measure == known) return ok();
  return Status(Code::invalid_argument, "RAILCCL_MEASURE={}: expected auto, force or off",
                settings.measure);
}

Result<HostSpeeds> host_speeds(const Settings& settings, uint64_t last_level_cache_bytes) {
  RAILCCL_CHECK(check_measure_setting(settings));
  if (settings.measure == "off") return HostSpeeds{{}, "not measured: RAILCCL_MEASURE=off"};
  // Other threads of this process that need the same wait here meanwhile.
  static std::mutex mutex;
  static auto* remembered = new std::map<std::string, HostSpeeds>;
  const std::string key =
      fmt::format("{}\n{}\n{}", settings.measure, settings.cache_home, settings.home);
  std::lock_guard lock(mutex);
  if (const auto found = remembered->find(key); found != remembered->end()) return found->second;
  return (*remembered)[key] = find_speeds(settings, last_level_cache_bytes);
}

}  // namespace railccl::runtime
