// Cache folder: opening it with care, reading and replacing its files.
#include "runtime/cache_folder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

namespace railccl::runtime {

namespace {

Status write_all(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t put = ::write(fd, text.data() + done, text.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return system_error(errno, "cannot write");
    done += static_cast<size_t>(put);
  }
  return ok();
}

}  // namespace

Result<CacheFolder> CacheFolder::open(const Settings& settings) {
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
  const std::string path = base + "/railccl";
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return system_error(errno, "cannot open " + path);
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0) return system_error(errno, "cannot look at " + path);
  if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return Status(Code::system, "{} belongs to or can be written by others", path);
  return CacheFolder(std::move(fd), path);
}

Result<std::optional<std::string>> CacheFolder::read(const std::string& name,
                                                     size_t bytes_max) const {
  // Non-blocking: a FIFO in its place must not stop us.
  const UniqueFd fd(
      openat(fd_.get(), name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd && errno == ENOENT) return std::optional<std::string>();
  if (!fd) return system_error(errno, "cannot open it");
  struct stat status = {};
  if (fstat(fd.get(), &status) != 0) return system_error(errno, "cannot look at it");
  if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() ||
      (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return Status(Code::invalid_argument, "it is not a plain file that only this user may write");
  const auto told = static_cast<uint64_t>(status.st_size);
  if (told > bytes_max) return Status(Code::invalid_argument, "it is too long");
  std::string text(told, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = ::read(fd.get(), text.data() + length, text.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(errno, "cannot read it");
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  // One that has just grown under our eyes is no file of ours: those are replaced as a whole.
  text.resize(length);
  return std::optional<std::string>(std::move(text));
}

Status CacheFolder::write(const std::string& name, const std::string& text) const {
  const std::string fresh = fmt::format("{}.{}", name, getpid());
  UniqueFd fd(openat(fd_.get(), fresh.c_str(),
                     O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd) return system_error(errno, "cannot make it");
  Status status = write_all(fd.get(), text);
  fd.reset();
  if (status.is_ok() && renameat(fd_.get(), fresh.c_str(), fd_.get(), name.c_str()) != 0)
    status = system_error(errno, "cannot rename it");
  if (!status.is_ok()) unlinkat(fd_.get(), fresh.c_str(), 0);
  return status;
}

void CacheFolder::prune(const std::string& prefix, size_t kept) const {
  namespace fs = std::filesystem;
  std::error_code error;
  std::vector<std::pair<fs::file_time_type, fs::path>> files;
  for (fs::directory_iterator entry(path_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->path().filename().string().starts_with(prefix)) continue;
    std::error_code gone;  // by another process, just now
    const fs::file_time_type written = entry->last_write_time(gone);
    if (!gone) files.emplace_back(written, entry->path());
  }
  std::sort(files.rbegin(), files.rend());
  for (size_t i = kept; i < files.size(); i++) unlink(files[i].second.c_str());
}

}  // namespace railccl::runtime
