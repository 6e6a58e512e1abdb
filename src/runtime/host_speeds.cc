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
#include "runtime/measure.h"

namespace railccl::runtime {

using nlohmann::json;
using topology::kSpeedRows;
using topology::SpeedRow;
using topology::Speeds;

namespace {

// To be raised whenever the same machine would give other figures: new code to measure with, new
// rows, another meaning of a row.
constexpr int kMeasurementVersion = 4;
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

/// The folder of the cache files, open, made when missing; or why there can be none.
Result<UniqueFd> open_folder(const Settings& settings, std::string* path) {
  // The specification of XDG_CACHE_HOME says to ignore relative paths.
  std::string base = settings.cache_home.starts_with('/') ? settings.cache_home : "";
  if (base.empty()) {
    if (!settings.home.starts_with('/'))
      return Status(Code::system, "neither XDG_CACHE_HOME nor HOME names a folder");
    base = settings.home + "/.cache";
  }
  for (const std::string& folder : {base, base + "/railccl"})
    if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
      return system_error(errno, "cannot make " + folder);
  *path = base + "/railccl";
  UniqueFd fd(open(path->c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return system_error(errno, "cannot open " + *path);
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0) return system_error(errno, "cannot look at " + *path);
  if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return Status(Code::system, "{} belongs to or can be written by others", *path);
  return fd;
}

/// The file's contents; nothing when there is no such file.
Result<std::optional<std::string>> read_file(int folder, const std::string& name) {
  // Non-blocking: a FIFO in its place must not stop us.
  const UniqueFd fd(openat(folder, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd && errno == ENOENT) return std::optional<std::string>();
  if (!fd) return system_error(errno, "cannot open it");
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0) return system_error(errno, "cannot look at it");
  if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() ||
      (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return Status(Code::invalid_argument, "it is not a plain file that only this user may write");
  std::string text(kFileBytesMax + 1, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(errno, "cannot read it");
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  if (length > kFileBytesMax) return Status(Code::invalid_argument, "it is too long");
  text.resize(length);
  return std::optional<std::string>(std::move(text));
}

Status write_all(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t put = write(fd, text.data() + done, text.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return system_error(errno, "cannot write");
    done += static_cast<size_t>(put);
  }
  return ok();
}

/// Replaces the file as a whole: readers see the old one or the new one.
Status write_file(int folder, const std::string& name, const std::string& text) {
  const std::string fresh = fmt::format("{}.{}", name, getpid());
  UniqueFd fd(
      openat(folder, fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return system_error(errno, "cannot make it");
  Status status = write_all(fd.get(), text);
  fd.reset();
  if (status.is_ok() && renameat(folder, fresh.c_str(), folder, name.c_str()) != 0)
    status = system_error(errno, "cannot rename it");
  if (!status.is_ok()) unlinkat(folder, fresh.c_str(), 0);
  return status;
}

/// One machine's file in the open folder.
class CacheFile {
 public:
  CacheFile(UniqueFd folder, const std::string& path, std::string machine)
      : folder_(std::move(folder)),
        machine_(std::move(machine)),
        name_(fmt::format("speeds-{:016x}.json", hash_bytes(machine_.data(), machine_.size()))),
        path_(path + '/' + name_) {}

  const std::string& path() const { return path_; }

  /// Nothing when it is not there or not to be believed.
  std::optional<Speeds> load() const {
    auto text = read_file(folder_.get(), name_);
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
    return write_file(folder_.get(), name_, speeds_file_text(speeds, machine_));
  }

  /// Takes the lock of whoever measures, free again when `*lock` closes. While somebody else has
  /// it, waits, looking whether `done`; false when that is so or it took too long. On file systems
  /// without locks everyone measures.
  bool take_lock(const std::function<bool()>& done, UniqueFd* lock) const {
    const std::string name = name_ + ".lock";
    *lock = UniqueFd(
        openat(folder_.get(), name.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    for (const Deadline deadline = Deadline::after_ms(kLockWaitMs); !deadline.passed();) {
      if (!*lock || flock(lock->get(), LOCK_EX | LOCK_NB) == 0) return true;
      if (errno != EWOULDBLOCK && errno != EINTR) return true;
      if (done()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

 private:
  UniqueFd folder_;
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
  std::string path;
  auto folder = open_folder(settings, &path);
  if (!folder.is_ok()) {
    log::info("measured speeds cannot be kept: {}", folder.status().text());
    return measured(Effort::quick, last_level_cache_bytes,
                    "measured quickly, not kept: " + folder.status().text());
  }
  const CacheFile file(std::move(folder).value(), path, machine_text(last_level_cache_bytes));
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
